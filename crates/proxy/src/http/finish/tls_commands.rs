//! The values of format commands about certificates. Source: Envoy, "Access logging", `DOWNSTREAM_PEER_…`, `DOWNSTREAM_TLS_…`.

use serin_transport::tls::{Certificate, TlsInfo, fingerprint, fingerprint_sha1};

use crate::http::client_certificate::{hexadecimal, url_encoded};
use crate::times::start_time;

/// The value of a command; `side` is `DOWNSTREAM_` or `UPSTREAM_`, whose connection it is about.
pub(super) fn command(tls: &TlsInfo, side: &str, name: &str, argument: Option<&str>) -> Option<String> {
    let name = name.strip_prefix(side)?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match name {
        "TLS_VERSION" => return some(tls.version),
        "TLS_CIPHER" => return some(&tls.cipher),
        "TLS_GROUP" => return some(tls.group),
        _ => {}
    }
    if let Some(of_local) = name.strip_prefix("LOCAL_") {
        return of_certificate(tls.local.as_deref()?, of_local);
    }
    let of_peer = name.strip_prefix("PEER_")?;
    let peer = tls.peer.first()?;
    let each = |value: fn(&Certificate) -> String| {
        let all: Vec<String> = tls.peer.iter().map(value).collect();
        some(&all.join(","))
    };
    let time = |seconds: i64| start_time(jiff::Timestamp::from_second(seconds).ok()?, argument);
    match of_peer {
        "ISSUER" => some(&peer.issuer),
        "SERIAL" => some(&peer.serial),
        "FINGERPRINT_256" => Some(sha256(peer)),
        "FINGERPRINT_1" => Some(sha1(peer)),
        "CERT" => Some(url_encoded(&peer.pem())),
        "CERT_V_START" => time(peer.validity.0),
        "CERT_V_END" => time(peer.validity.1),
        "CHAIN_FINGERPRINTS_256" => each(sha256),
        "CHAIN_FINGERPRINTS_1" => each(sha1),
        "CHAIN_SERIALS" => each(|certificate| certificate.serial.clone()),
        other => of_certificate(peer, other),
    }
}

fn sha256(certificate: &Certificate) -> String {
    hexadecimal(&fingerprint(&certificate.der))
}

fn sha1(certificate: &Certificate) -> String {
    hexadecimal(&fingerprint_sha1(&certificate.der))
}

/// What is said of the certificates of both sides.
fn of_certificate(certificate: &Certificate, name: &str) -> Option<String> {
    let text = match name {
        "SUBJECT" => certificate.subject.clone(),
        "URI_SAN" => certificate.uris.join(","),
        "DNS_SAN" => certificate.dns.join(","),
        "EMAIL_SAN" => certificate.emails.join(","),
        "IP_SAN" => certificate.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "OTHERNAME_SAN" => certificate.others.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(","),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
