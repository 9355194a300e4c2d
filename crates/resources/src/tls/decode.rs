//! The decoders of TLS settings.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::{
    CertificateSource, CommonTls, DataSource, DownstreamTls, NameKind, NameMatcher, SecretName, Tickets,
    TlsCertificate, TlsVersion, UpstreamTls, Validation, ValidationSource,
};
use crate::convert;
use crate::matcher::StringMatcher;
use crate::{Audit, Error, Path};

/// Reads the TLS of a transport socket, which must be of this kind; `None` is plain text.
fn context<T: prost::Name + Default>(
    value: Option<&core::TransportSocket>,
    path: &Path<'_>,
) -> Result<Option<T>, Error> {
    let Some(value) = value else { return Ok(None) };
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &value.config_type else {
        return match value.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(None),
            other => Err(path.error(format!("'{other}' needs typed_config"))),
        };
    };
    if any.type_url == T::type_url() {
        return convert::from_any(any, &path.field("typed_config")).map(Some);
    }
    if any.type_url.ends_with("raw_buffer.v3.RawBuffer") {
        return Ok(None);
    }
    Err(path.error(format!("'{}' is not supported here, only {} and raw_buffer", any.type_url, T::NAME)))
}

impl DownstreamTls {
    /// Decodes the transport socket of a filter chain; `None` is plain text.
    pub(crate) fn of_socket(
        value: Option<&core::TransportSocket>,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Option<Self>, Error> {
        let path = path.field("transport_socket");
        let context: Option<pb::DownstreamTlsContext> = context(value, &path)?;
        context.map(|context| Self::decode(&context, audit, &path.field("typed_config"))).transpose()
    }

    fn decode(value: &pb::DownstreamTlsContext, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::DownstreamTlsContext as pb::DownstreamTlsContext, audit, path;
            supported: common_tls_context, require_client_certificate, require_sni, session_ticket_keys_type,
                disable_stateful_session_resumption, full_scan_certs_on_sni_mismatch, prefer_client_ciphers,
                ocsp_staple_policy, session_timeout;
            ignored: ;
            refused: );
        use pb::downstream_tls_context::SessionTicketKeysType as K;
        let common = path.field("common_tls_context");
        let common = CommonTls::decode(value.common_tls_context.as_ref(), audit, &common)?;
        if common.certificates.is_empty() {
            return Err(path.field("common_tls_context").error("has no certificate"));
        }
        if value.session_timeout.as_ref().is_some_and(|time| time.seconds < 0 || time.seconds >= i64::from(u32::MAX)) {
            return Err(path.field("session_timeout").error("must be from 0 to 4294967294 seconds"));
        }
        let tickets = match &value.session_ticket_keys_type {
            None | Some(K::DisableStatelessSessionResumption(false)) => Tickets::OwnKey,
            Some(K::DisableStatelessSessionResumption(true)) => Tickets::None,
            Some(K::SessionTicketKeys(keys)) => {
                Tickets::Keys(ticket_keys(keys, audit, &path.field("session_ticket_keys"))?)
            }
            Some(K::SessionTicketKeysSdsSecretConfig(secret)) => {
                let path = path.field("session_ticket_keys_sds_secret_config");
                Tickets::Secret(secret_name(secret, audit, &path)?)
            }
        };
        Ok(Self {
            common,
            requires_certificate: value.require_client_certificate.as_ref().is_some_and(|v| v.value),
            requires_name: value.require_sni.as_ref().is_some_and(|v| v.value),
            tickets,
            session_seconds: value.session_timeout.as_ref().and_then(|t| u32::try_from(t.seconds).ok()).unwrap_or(0),
            without_sessions: value.disable_stateful_session_resumption,
            prefers_client_order: value.prefer_client_ciphers,
            must_staple: match value.ocsp_staple_policy {
                // A staple is always sent when there is one; it is not looked at.
                0 | 1 => false,
                2 => true,
                _ => return Err(path.field("ocsp_staple_policy").error("is not known")),
            },
            scans_all: value.full_scan_certs_on_sni_mismatch.as_ref().is_some_and(|v| v.value),
        })
    }
}

/// Reads the sources of keys for tickets.
pub(super) fn ticket_keys(
    value: &pb::TlsSessionTicketKeys,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Vec<DataSource>, Error> {
    audit!(value, pb::TlsSessionTicketKeys as pb::TlsSessionTicketKeys, audit, path;
        supported: keys;
        ignored: ;
        refused: );
    if value.keys.is_empty() {
        return Err(path.field("keys").error("has none"));
    }
    let at = path.field("keys");
    value.keys.iter().enumerate().map(|(i, key)| DataSource::decode(key, &at.index(i))).collect()
}

impl UpstreamTls {
    /// Decodes the transport socket of a cluster; `None` is plain text.
    pub(crate) fn of_socket(
        value: Option<&core::TransportSocket>,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Option<Self>, Error> {
        let path = path.field("transport_socket");
        let context: Option<pb::UpstreamTlsContext> = context(value, &path)?;
        context.map(|context| Self::decode(&context, audit, &path.field("typed_config"))).transpose()
    }

    fn decode(value: &pb::UpstreamTlsContext, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::UpstreamTlsContext as pb::UpstreamTlsContext, audit, path;
            supported: common_tls_context, sni, auto_host_sni, auto_sni_san_validation, max_session_keys;
            ignored: allow_renegotiation, enforce_rsa_key_usage;
            refused: );
        let common = path.field("common_tls_context");
        let common = CommonTls::decode(value.common_tls_context.as_ref(), audit, &common)?;
        if common.certificates.len() > 1 {
            return Err(path.field("common_tls_context").error("has more than one certificate"));
        }
        if value.sni.len() > 255 {
            return Err(path.field("sni").error("is longer than 255 bytes"));
        }
        let is_checked = common.validation.as_ref().is_some_and(|source| {
            source.secret.is_some() || source.given.as_ref().is_some_and(|given| given.trusted.is_some())
        });
        if value.auto_sni_san_validation && !is_checked {
            return Err(path.field("auto_sni_san_validation").error("needs a validation context with trusted_ca"));
        }
        Ok(Self {
            common,
            server_name: value.sni.clone(),
            names_host: value.auto_host_sni,
            checks_name: value.auto_sni_san_validation,
            sessions: value.max_session_keys.as_ref().map_or(1, |v| v.value),
        })
    }
}

impl CommonTls {
    fn decode(value: Option<&pb::CommonTlsContext>, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(Self::default()) };
        audit!(value, pb::CommonTlsContext as pb::CommonTlsContext, audit, path;
            supported: tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols,
                validation_context_type;
            ignored: key_log;
            refused: tls_certificate_provider_instance, custom_tls_certificate_selector,
                tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance, custom_handshaker);
        let mut common = Self { alpn: value.alpn_protocols.clone(), ..Self::default() };
        let too_long = |name: &String| name.is_empty() || name.len() > 255;
        if let Some(i) = common.alpn.iter().position(too_long) {
            return Err(path.field("alpn_protocols").index(i).error("must have from 1 to 255 bytes"));
        }
        if let Some(parameters) = &value.tls_params {
            common.decode_parameters(parameters, audit, &path.field("tls_params"))?;
        }
        let given = path.field("tls_certificates");
        for (i, certificate) in value.tls_certificates.iter().enumerate() {
            let certificate = TlsCertificate::decode(certificate, audit, &given.index(i))?;
            common.certificates.push(CertificateSource::Given(certificate));
        }
        let secrets = path.field("tls_certificate_sds_secret_configs");
        if !value.tls_certificates.is_empty() && !value.tls_certificate_sds_secret_configs.is_empty() {
            return Err(secrets.error("does not go with tls_certificates"));
        }
        for (i, secret) in value.tls_certificate_sds_secret_configs.iter().enumerate() {
            common.certificates.push(CertificateSource::Secret(secret_name(secret, audit, &secrets.index(i))?));
        }
        common.validation = validation(value.validation_context_type.as_ref(), audit, path)?;
        Ok(common)
    }

    fn decode_parameters(
        &mut self,
        value: &pb::TlsParameters,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        audit!(value, pb::TlsParameters as pb::TlsParameters, audit, path;
            supported: tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves;
            ignored: ;
            refused: signature_algorithms, compliance_policies);
        let most = path.field("tls_maximum_protocol_version");
        self.versions.0 = match value.tls_minimum_protocol_version {
            0 => TlsVersion::Auto,
            // Older versions are never spoken.
            1..=3 => TlsVersion::V12,
            4 => TlsVersion::V13,
            _ => return Err(path.field("tls_minimum_protocol_version").error("is not known")),
        };
        self.versions.1 = match value.tls_maximum_protocol_version {
            0 => TlsVersion::Auto,
            1 | 2 => return Err(most.error("is older than TLS 1.2, which is the oldest that is spoken")),
            3 => TlsVersion::V12,
            4 => TlsVersion::V13,
            _ => return Err(most.error("is not known")),
        };
        for (i, names) in value.cipher_suites.iter().enumerate() {
            // A text may hold several, as OpenSSL has them; those in brackets are equal.
            for name in names.split([':', '|', '[', ']']).filter(|name| !name.is_empty()) {
                if !CIPHERS.contains(&name) {
                    return Err(path.field("cipher_suites").index(i).error(format!("'{name}' is not known")));
                }
                self.ciphers.push(name.to_owned());
            }
        }
        for (i, name) in value.ecdh_curves.iter().enumerate() {
            if !GROUPS.contains(&name.as_str()) {
                return Err(path.field("ecdh_curves").index(i).error(format!("'{name}' is not supported")));
            }
            self.groups.push(name.clone());
        }
        Ok(())
    }
}

/// The groups that can be used.
const GROUPS: [&str; 4] = ["X25519MLKEM768", "X25519", "P-256", "P-384"];

/// The cipher suites of TLS 1.2 that Envoy knows; those without forward secrecy or authenticated encryption are never used.
const CIPHERS: [&str; 16] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

fn secret_name(value: &pb::SdsSecretConfig, audit: &mut Audit, path: &Path<'_>) -> Result<SecretName, Error> {
    audit!(value, pb::SdsSecretConfig as pb::SdsSecretConfig, audit, path;
        supported: name, sds_config; ignored: ; refused: );
    if value.name.is_empty() {
        return Err(path.field("name").error("is required"));
    }
    // Without a source it is a secret of the bootstrap.
    if value.sds_config.is_some() {
        convert::require_ads(value.sds_config.as_ref(), &path.field("sds_config"))?;
    }
    Ok(SecretName { name: value.name.clone(), is_static: value.sds_config.is_none() })
}

fn validation(
    value: Option<&pb::common_tls_context::ValidationContextType>,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<ValidationSource>, Error> {
    use pb::common_tls_context::{CombinedCertificateValidationContext as Combined, ValidationContextType as V};
    let source = match value {
        None => return Ok(None),
        Some(V::ValidationContext(context)) => {
            let given = Validation::decode(context, audit, &path.field("validation_context"))?;
            ValidationSource { given: Some(given), secret: None }
        }
        Some(V::ValidationContextSdsSecretConfig(secret)) => {
            let name = secret_name(secret, audit, &path.field("validation_context_sds_secret_config"))?;
            ValidationSource { given: None, secret: Some(name) }
        }
        Some(V::CombinedValidationContext(combined)) => {
            let path = path.field("combined_validation_context");
            audit!(combined, Combined as Combined, audit, &path;
                supported: default_validation_context, validation_context_sds_secret_config;
                ignored: ;
                refused: validation_context_certificate_provider, validation_context_certificate_provider_instance);
            let Some(default) = &combined.default_validation_context else {
                return Err(path.field("default_validation_context").error("is required"));
            };
            let Some(secret) = &combined.validation_context_sds_secret_config else {
                return Err(path.field("validation_context_sds_secret_config").error("is required"));
            };
            let given = Validation::decode(default, audit, &path.field("default_validation_context"))?;
            let name = secret_name(secret, audit, &path.field("validation_context_sds_secret_config"))?;
            ValidationSource { given: Some(given), secret: Some(name) }
        }
        Some(V::ValidationContextCertificateProvider(_)) => {
            return Err(Audit::refuse(path, "validation_context_certificate_provider"));
        }
        Some(V::ValidationContextCertificateProviderInstance(_)) => {
            return Err(Audit::refuse(path, "validation_context_certificate_provider_instance"));
        }
    };
    Ok(Some(source))
}

impl DataSource {
    fn decode(value: &core::DataSource, path: &Path<'_>) -> Result<Self, Error> {
        use core::data_source::Specifier as S;
        Ok(match &value.specifier {
            Some(S::Filename(name)) if !name.is_empty() => Self::File(name.clone()),
            Some(S::InlineBytes(bytes)) if !bytes.is_empty() => Self::Bytes(bytes.clone()),
            Some(S::InlineString(text)) if !text.is_empty() => Self::Bytes(text.clone().into_bytes()),
            Some(S::EnvironmentVariable(name)) if !name.is_empty() => Self::Environment(name.clone()),
            _ => return Err(path.error("needs a file, bytes, text or an environment variable")),
        })
    }
}

impl TlsCertificate {
    pub(super) fn decode(value: &pb::TlsCertificate, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::TlsCertificate as pb::TlsCertificate, audit, path;
            supported: certificate_chain, private_key, ocsp_staple;
            ignored: watched_directory;
            refused: pkcs12, private_key_provider, password, signed_certificate_timestamp, tls_params);
        let source = |field: &'static str, value: &Option<core::DataSource>| match value {
            Some(value) => DataSource::decode(value, &path.field(field)),
            None => Err(path.field(field).error("is required")),
        };
        let staple = value.ocsp_staple.as_ref();
        Ok(Self {
            chain: source("certificate_chain", &value.certificate_chain)?,
            key: source("private_key", &value.private_key)?,
            staple: staple.map(|value| DataSource::decode(value, &path.field("ocsp_staple"))).transpose()?,
        })
    }
}

impl Validation {
    pub(super) fn decode(
        value: &pb::CertificateValidationContext,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::CertificateValidationContext as Context;
        audit!(value, Context as Context, audit, path;
            supported: trusted_ca, verify_certificate_spki, verify_certificate_hash, match_typed_subject_alt_names, crl,
                trust_chain_verification, only_verify_leaf_cert_crl, max_verify_depth, allow_expired_certificate,
                match_subject_alt_names, suppress_client_ca_list;
            ignored: watched_directory;
            refused: ca_certificate_provider_instance, system_root_certs,
                require_signed_certificate_timestamp, custom_validator_config);
        let source = |field: &'static str, value: &Option<core::DataSource>| {
            value.as_ref().map(|value| DataSource::decode(value, &path.field(field))).transpose()
        };
        let of_names = path.field("match_typed_subject_alt_names");
        let names = value.match_typed_subject_alt_names.iter().enumerate();
        let hashes = value.verify_certificate_hash.iter().enumerate();
        let keys = value.verify_certificate_spki.iter().enumerate();
        let mut decoded = Self {
            trusted: source("trusted_ca", &value.trusted_ca)?,
            revoked: source("crl", &value.crl)?,
            only_own_revocation: value.only_verify_leaf_cert_crl,
            names: names.map(|(i, name)| NameMatcher::decode(name, &of_names.index(i))).collect::<Result<_, _>>()?,
            hashes: hashes
                .map(|(i, hash)| digest(hash).ok_or_else(|| invalid(path, "verify_certificate_hash", i)))
                .collect::<Result<_, _>>()?,
            keys: keys
                .map(|(i, key)| key_digest(key).ok_or_else(|| invalid(path, "verify_certificate_spki", i)))
                .collect::<Result<_, _>>()?,
            accepts_untrusted: match value.trust_chain_verification {
                0 => false,
                1 => true,
                _ => return Err(path.field("trust_chain_verification").error("is not known")),
            },
            depth: value.max_verify_depth.as_ref().map(|v| v.value),
            allows_expired: value.allow_expired_certificate,
            hides_authorities: value.suppress_client_ca_list,
        };
        // The older field is for names of any kind.
        for (i, matcher) in value.match_subject_alt_names.iter().enumerate() {
            let matcher = StringMatcher::decode(matcher, &path.field("match_subject_alt_names").index(i))?;
            let kinds = [NameKind::Dns, NameKind::Uri, NameKind::Email, NameKind::Ip];
            decoded.names.extend(kinds.map(|kind| NameMatcher { kind, matcher: matcher.clone() }));
        }
        if decoded.depth.is_some_and(|depth| depth > 100) {
            return Err(path.field("max_verify_depth").error("is more than 100"));
        }
        Ok(decoded)
    }
}

fn invalid(path: &Path<'_>, field: &'static str, index: usize) -> Error {
    path.field(field).index(index).error("is no SHA-256")
}

/// A SHA-256 in hexadecimal digits, perhaps with colons between bytes.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: String = match text.len() {
        64 => text.to_owned(),
        95 => text.split(':').filter(|pair| pair.len() == 2).collect(),
        _ => return None,
    };
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (digits.len() == 64).then_some(bytes)
}

/// A SHA-256 in base64.
fn key_digest(text: &str) -> Option<[u8; 32]> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
}

impl NameMatcher {
    fn decode(value: &pb::SubjectAltNameMatcher, path: &Path<'_>) -> Result<Self, Error> {
        let matcher = value.matcher.as_ref().ok_or_else(|| path.field("matcher").error("is required"))?;
        let kind = match value.san_type {
            1 => NameKind::Email,
            2 => NameKind::Dns,
            3 => NameKind::Uri,
            4 => NameKind::Ip,
            5 if !value.oid.is_empty() => NameKind::Other(value.oid.clone()),
            5 => return Err(path.field("oid").error("is required")),
            _ => return Err(path.field("san_type").error("is not known")),
        };
        Ok(Self { kind, matcher: StringMatcher::decode(matcher, &path.field("matcher"))? })
    }
}
