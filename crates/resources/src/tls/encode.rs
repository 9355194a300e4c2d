//! The way back into the messages.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::{
    CertificateSource, CommonTls, DataSource, DownstreamTls, NameKind, NameMatcher, SecretName, Tickets,
    TlsCertificate, TlsVersion, UpstreamTls, Validation, ValidationSource,
};
use crate::convert;

impl DataSource {
    fn encode(&self) -> core::DataSource {
        use core::data_source::Specifier as S;
        let specifier = match self {
            Self::File(path) => S::Filename(path.clone()),
            Self::Bytes(bytes) => S::InlineBytes(bytes.clone()),
            Self::Environment(name) => S::EnvironmentVariable(name.clone()),
        };
        core::DataSource { specifier: Some(specifier), ..Default::default() }
    }
}

impl DownstreamTls {
    /// As a transport socket.
    pub(crate) fn encode(&self) -> core::TransportSocket {
        use pb::downstream_tls_context::SessionTicketKeysType as K;
        let context = pb::DownstreamTlsContext {
            common_tls_context: Some(self.common.encode()),
            require_client_certificate: self.requires_certificate.then(|| convert::wrap_bool(true)),
            require_sni: self.requires_name.then(|| convert::wrap_bool(true)),
            disable_stateful_session_resumption: self.without_sessions,
            prefer_client_ciphers: self.prefers_client_order,
            ocsp_staple_policy: if self.must_staple { 2 } else { 0 },
            full_scan_certs_on_sni_mismatch: self.scans_all.then(|| convert::wrap_bool(true)),
            session_timeout: (self.session_seconds != 0)
                .then(|| convert::proto_duration(std::time::Duration::from_secs(self.session_seconds.into()))),
            session_ticket_keys_type: match &self.tickets {
                Tickets::OwnKey => None,
                Tickets::None => Some(K::DisableStatelessSessionResumption(true)),
                Tickets::Keys(keys) => Some(K::SessionTicketKeys(ticket_keys(keys))),
                Tickets::Secret(name) => Some(K::SessionTicketKeysSdsSecretConfig(secret(name))),
            },
        };
        socket(convert::any(&context))
    }
}

impl UpstreamTls {
    /// As a transport socket.
    pub(crate) fn encode(&self) -> core::TransportSocket {
        let context = pb::UpstreamTlsContext {
            common_tls_context: Some(self.common.encode()),
            sni: self.server_name.clone(),
            auto_host_sni: self.names_host,
            auto_sni_san_validation: self.checks_name,
            max_session_keys: (self.sessions != 1).then(|| convert::wrap_u32(self.sessions)),
            ..Default::default()
        };
        socket(convert::any(&context))
    }
}

fn socket(config: envoy_types::pb::google::protobuf::Any) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}

impl CommonTls {
    fn encode(&self) -> pb::CommonTlsContext {
        let parameters = pb::TlsParameters {
            tls_minimum_protocol_version: self.versions.0.encode(),
            tls_maximum_protocol_version: self.versions.1.encode(),
            cipher_suites: self.ciphers.clone(),
            ecdh_curves: self.groups.clone(),
            ..Default::default()
        };
        let given = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Given(certificate) => Some(certificate.encode()),
            CertificateSource::Secret(_) => None,
        });
        let secrets = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(secret(name)),
            CertificateSource::Given(_) => None,
        });
        pb::CommonTlsContext {
            tls_params: (parameters != pb::TlsParameters::default()).then_some(parameters),
            tls_certificates: given.collect(),
            tls_certificate_sds_secret_configs: secrets.collect(),
            alpn_protocols: self.alpn.clone(),
            validation_context_type: self.validation.as_ref().and_then(ValidationSource::encode),
            ..Default::default()
        }
    }
}

pub(super) fn ticket_keys(keys: &[DataSource]) -> pb::TlsSessionTicketKeys {
    pb::TlsSessionTicketKeys { keys: keys.iter().map(DataSource::encode).collect() }
}

fn secret(secret: &SecretName) -> pb::SdsSecretConfig {
    pb::SdsSecretConfig { name: secret.name.clone(), sds_config: (!secret.is_static).then(convert::ads) }
}

impl TlsVersion {
    fn encode(self) -> i32 {
        use pb::tls_parameters::TlsProtocol as P;
        let version = match self {
            Self::Auto => P::TlsAuto,
            Self::V12 => P::TlSv12,
            Self::V13 => P::TlSv13,
        };
        version as i32
    }
}

impl TlsCertificate {
    pub(super) fn encode(&self) -> pb::TlsCertificate {
        pb::TlsCertificate {
            certificate_chain: Some(self.chain.encode()),
            private_key: Some(self.key.encode()),
            ocsp_staple: self.staple.as_ref().map(DataSource::encode),
            ..Default::default()
        }
    }
}

impl ValidationSource {
    fn encode(&self) -> Option<pb::common_tls_context::ValidationContextType> {
        use pb::common_tls_context::{CombinedCertificateValidationContext as Combined, ValidationContextType as V};
        match (&self.given, &self.secret) {
            (None, None) => None,
            (Some(given), None) => Some(V::ValidationContext(given.encode())),
            (None, Some(name)) => Some(V::ValidationContextSdsSecretConfig(secret(name))),
            (Some(given), Some(name)) => Some(V::CombinedValidationContext(Combined {
                default_validation_context: Some(given.encode()),
                validation_context_sds_secret_config: Some(secret(name)),
                ..Default::default()
            })),
        }
    }
}

impl Validation {
    pub(super) fn encode(&self) -> pb::CertificateValidationContext {
        use base64::Engine as _;
        let hexadecimal = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = |hash: &[u8; 32]| base64::engine::general_purpose::STANDARD.encode(hash);
        pb::CertificateValidationContext {
            trusted_ca: self.trusted.as_ref().map(DataSource::encode),
            crl: self.revoked.as_ref().map(DataSource::encode),
            only_verify_leaf_cert_crl: self.only_own_revocation,
            match_typed_subject_alt_names: self.names.iter().map(NameMatcher::encode).collect(),
            verify_certificate_hash: self.hashes.iter().map(hexadecimal).collect(),
            verify_certificate_spki: self.keys.iter().map(base64).collect(),
            trust_chain_verification: i32::from(self.accepts_untrusted),
            max_verify_depth: self.depth.map(convert::wrap_u32),
            allow_expired_certificate: self.allows_expired,
            suppress_client_ca_list: self.hides_authorities,
            ..Default::default()
        }
    }
}

impl NameMatcher {
    fn encode(&self) -> pb::SubjectAltNameMatcher {
        use pb::subject_alt_name_matcher::SanType as T;
        let (kind, oid) = match &self.kind {
            NameKind::Email => (T::Email, String::new()),
            NameKind::Dns => (T::Dns, String::new()),
            NameKind::Uri => (T::Uri, String::new()),
            NameKind::Ip => (T::IpAddress, String::new()),
            NameKind::Other(oid) => (T::OtherName, oid.clone()),
        };
        pb::SubjectAltNameMatcher { san_type: kind as i32, matcher: Some(self.matcher.encode()), oid }
    }
}
