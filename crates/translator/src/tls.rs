//! TLS towards services: the certificates of a DestinationRule as Envoy's transport socket.

use serin_model::{ClientTls, ServerCheck, ServerTls};
use serin_resources::cluster::{Cluster, RequestNames};
use serin_resources::matcher::{StringMatch, StringMatcher};
use serin_resources::tls::{
    CertificateSource, CommonTls, DataSource, DownstreamTls, NameKind, NameMatcher, TlsCertificate, TlsVersion,
    UpstreamTls, Validation, ValidationSource,
};

/// Where most systems have the authorities that they trust. A proxy that does not find the file makes no connection; Serin's looks
/// at the other usual places, too.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes connections of a cluster secure. The names are those of the service's certificates, which count where the rule has none (Istio:
/// `ServiceEntry.subjectAltNames`).
pub(crate) fn apply(tls: &ClientTls, names: &[String], cluster: &mut Cluster) {
    // Without a name of its own a server is told that of the request, and must have it unless others are given (Istio:
    // `setAutoSniAndAutoSanValidation`).
    let auto_sni = tls.sni.is_empty();
    let auto_san = auto_sni && tls.server.as_ref().is_some_and(|check| own_or(check, names).is_empty());
    cluster.names = RequestNames { auto_sni, auto_san, header: String::new() };
    cluster.tls = Some(UpstreamTls {
        common: CommonTls {
            versions: (TlsVersion::V12, TlsVersion::V13),
            certificates: tls.identity.iter().map(|(chain, key)| certificate(chain, key)).collect(),
            validation: tls.server.as_ref().map(|check| server_check(check, names)),
            ..CommonTls::default()
        },
        server_name: tls.sni.clone(),
        sessions: 1,
        ..UpstreamTls::default()
    });
}

/// TLS that ends at a gateway.
pub(crate) fn server(tls: &ServerTls) -> DownstreamTls {
    let version = |version: Option<serin_model::TlsVersion>| match version {
        None => TlsVersion::Auto,
        Some(serin_model::TlsVersion::V12) => TlsVersion::V12,
        Some(serin_model::TlsVersion::V13) => TlsVersion::V13,
    };
    let [oldest, newest] = tls.versions.map(version);
    DownstreamTls {
        common: CommonTls {
            versions: (oldest, newest),
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            certificates: vec![certificate(&tls.certificate, &tls.key)],
            validation: tls
                .clients
                .as_ref()
                .map(|check| validation(check.authorities.clone(), check.revoked.as_ref(), &check.names)),
            ..CommonTls::default()
        },
        requires_certificate: tls.clients.as_ref().is_some_and(|check| check.required),
        ..DownstreamTls::default()
    }
}

fn certificate(chain: &str, key: &str) -> CertificateSource {
    let file = |path: &str| DataSource::File(path.to_owned());
    CertificateSource::Given(TlsCertificate { chain: file(chain), key: file(key), staple: None })
}

fn own_or<'a>(check: &'a ServerCheck, names: &'a [String]) -> &'a [String] {
    if check.names.is_empty() { names } else { &check.names }
}

fn server_check(check: &ServerCheck, names: &[String]) -> ValidationSource {
    let authorities = check.authorities.clone().unwrap_or_else(|| SYSTEM_AUTHORITIES.to_owned());
    validation(authorities, check.revoked.as_ref(), own_or(check, names))
}

fn validation(authorities: String, revoked: Option<&String>, names: &[String]) -> ValidationSource {
    let kinds = [NameKind::Dns, NameKind::Uri, NameKind::Email, NameKind::Ip];
    let is = |name: &String| StringMatcher { pattern: StringMatch::Exact(name.clone()), ignore_case: false };
    let matchers = |name: &String| kinds.clone().map(|kind| NameMatcher { kind, matcher: is(name) });
    let given = Validation {
        trusted: Some(DataSource::File(authorities)),
        revoked: revoked.cloned().map(DataSource::File),
        names: names.iter().flat_map(matchers).collect(),
        ..Validation::default()
    };
    ValidationSource { given: Some(given), secret: None }
}
