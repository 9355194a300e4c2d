//! What upstreams are told of a client's certificate (`x-forwarded-client-cert`). Source: Envoy,
//! `ConnectionManagerUtility::mutateXfccRequestHeader`.

use serin_http1::RequestHead;
use serin_resources::connection_manager::{CertificateDetails, ClientCertificate, ForwardMode};
use serin_transport::tls::{TlsInfo, fingerprint};

const HEADER: &str = "x-forwarded-client-cert";

/// Removes, keeps or writes the header of a request.
pub(super) fn tell(config: ClientCertificate, tls: Option<&TlsInfo>, head: &mut RequestHead) {
    let mutual = tls.filter(|tls| !tls.peer.is_empty());
    match (config.mode, mutual) {
        (ForwardMode::AlwaysForward, _) | (ForwardMode::Forward, Some(_)) => {}
        (ForwardMode::Sanitize, _) | (_, None) => _ = head.fields.remove(HEADER),
        (ForwardMode::Set, Some(tls)) => head.fields.set(HEADER, element(config.details, tls).as_bytes()),
        (ForwardMode::Append, Some(tls)) => {
            let before =
                head.fields.get_all(HEADER).filter(|value| !value.is_empty()).collect::<Vec<_>>().join(&b","[..]);
            let own = element(config.details, tls);
            let all = if before.is_empty() { own.into_bytes() } else { [&before, own.as_bytes()].join(&b","[..]) };
            head.fields.set(HEADER, &all);
        }
    }
}

/// What is said of the client of one connection.
fn element(details: CertificateDetails, tls: &TlsInfo) -> String {
    let mut parts = Vec::new();
    let own = tls.local.iter().flat_map(|local| &local.uris);
    parts.extend(own.map(|uri| format!("By={uri}")));
    let Some(peer) = tls.peer.first() else { return String::new() };
    parts.push(format!("Hash={}", hexadecimal(&fingerprint(&peer.der))));
    if details.certificate {
        parts.push(format!("Cert=\"{}\"", url_encoded(&peer.pem())));
    }
    if details.chain {
        let chain: String = tls.peer.iter().map(|certificate| url_encoded(&certificate.pem())).collect();
        parts.push(format!("Chain=\"{chain}\""));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.issuer {
        parts.push(format!("Issuer=\"{}\"", peer.issuer));
    }
    if details.uri && peer.uris.is_empty() {
        parts.push("URI=".to_owned());
    }
    if details.uri {
        parts.extend(peer.uris.iter().map(|uri| format!("URI={uri}")));
    }
    if details.dns {
        parts.extend(peer.dns.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A PEM text as it stands in a header: line ends and what ends an element are encoded.
pub(super) fn url_encoded(pem: &str) -> String {
    let mut out = String::with_capacity(pem.len() + 128);
    for c in pem.chars() {
        match c {
            '\n' => out.push_str("%0A"),
            ' ' => out.push_str("%20"),
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            c => out.push(c),
        }
    }
    out
}
