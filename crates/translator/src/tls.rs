//! TLS towards services: the certificates of a DestinationRule as Envoy's transport socket.

use serin_model::{ClientTls, ServerCheck};
use serin_resources::cluster::{Cluster, RequestNames};
use serin_resources::matcher::{StringMatch, StringMatcher};
use serin_resources::tls::{
    CertificateSource, CommonTls, DataSource, NameKind, NameMatcher, TlsCertificate, TlsVersion, UpstreamTls,
    Validation, ValidationSource,
};

/// Where most systems have the authorities that they trust. A proxy that does not find the file makes no connection; Serin's looks
/// at the other usual places, too.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes connections of a cluster secure.
pub(crate) fn apply(tls: &ClientTls, cluster: &mut Cluster) {
    let file = |path: &String| DataSource::File(path.clone());
    let certificate = |(chain, key): &(String, String)| {
        CertificateSource::Given(TlsCertificate { chain: file(chain), key: file(key), staple: None })
    };
    // Without a name of its own a server is told that of the request, and must have it unless others are given (Istio:
    // `setAutoSniAndAutoSanValidation`).
    let auto_sni = tls.sni.is_empty();
    let auto_san = auto_sni && tls.server.as_ref().is_some_and(|check| check.names.is_empty());
    cluster.names = RequestNames { auto_sni, auto_san, header: String::new() };
    cluster.tls = Some(UpstreamTls {
        common: CommonTls {
            versions: (TlsVersion::V12, TlsVersion::V13),
            certificates: tls.identity.iter().map(certificate).collect(),
            validation: tls.server.as_ref().map(validation),
            ..CommonTls::default()
        },
        server_name: tls.sni.clone(),
        sessions: 1,
        ..UpstreamTls::default()
    });
}

fn validation(check: &ServerCheck) -> ValidationSource {
    let authorities = check.authorities.clone().unwrap_or_else(|| SYSTEM_AUTHORITIES.to_owned());
    let kinds = [NameKind::Dns, NameKind::Uri, NameKind::Email, NameKind::Ip];
    let is = |name: &String| StringMatcher { pattern: StringMatch::Exact(name.clone()), ignore_case: false };
    let matchers = |name: &String| kinds.clone().map(|kind| NameMatcher { kind, matcher: is(name) });
    let given = Validation {
        trusted: Some(DataSource::File(authorities)),
        revoked: check.revoked.clone().map(DataSource::File),
        names: check.names.iter().flat_map(matchers).collect(),
        ..Validation::default()
    };
    ValidationSource { given: Some(given), secret: None }
}
