//! What a certificate says, as logs and rules ask for it.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509Name};

/// A certificate with what is asked of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Its bytes (DER).
    pub der: Vec<u8>,
    /// The bytes of its public key (`SubjectPublicKeyInfo`, DER).
    pub public_key: Vec<u8>,
    /// Its subject (RFC 2253: the most specific part first).
    pub subject: String,
    /// Its issuer, in the same form.
    pub issuer: String,
    /// The common name of its subject, if it has one.
    pub common_name: Option<String>,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
    /// Alternative names of the subject: host names.
    pub dns: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// Addresses of mail.
    pub emails: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Names of other kinds: the object identifier, and the text.
    pub others: Vec<(String, String)>,
    /// The seconds since 1970 from which on and up to which it is valid.
    pub validity: (i64, i64),
}

impl Certificate {
    /// Reads a certificate; what cannot be understood of it is left empty.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Self {
        let mut read = Self { der: der.to_vec(), ..Self::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { return read };
        read.public_key = parsed.public_key().raw.to_vec();
        read.subject = name(parsed.subject());
        read.issuer = name(parsed.issuer());
        let common = parsed.subject().iter_common_name().next();
        read.common_name = common.and_then(|value| value.as_str().ok()).map(str::to_owned);
        read.serial = hexadecimal(parsed.raw_serial());
        let validity = parsed.validity();
        read.validity = (validity.not_before.timestamp(), validity.not_after.timestamp());
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                names.general_names.iter().for_each(|name| read.add(name));
            }
        }
        read
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(text) => self.dns.push((*text).to_owned()),
            GeneralName::URI(text) => self.uris.push((*text).to_owned()),
            GeneralName::RFC822Name(text) => self.emails.push((*text).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                self.ips.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            GeneralName::OtherName(oid, value) => {
                // The text stands behind the tags of its explicit context and of its string.
                let text = value.get(4..).unwrap_or_default();
                self.others.push((oid.to_id_string(), String::from_utf8_lossy(text).into_owned()));
            }
            _ => {}
        }
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.der)
    }
}

/// A DER certificate as PEM.
fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = ALPHABET.get((bits >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
                text.push(if place <= group.len() { char::from(digit) } else { '=' });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The SHA-256 digest of bytes, as certificates and keys are known by it.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

/// The SHA-1 digest of bytes, for logs of those who still look at it.
#[must_use]
pub fn fingerprint_sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let significant = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    bytes.get(significant..).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A distinguished name (RFC 2253 §2): its parts from the last to the first.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            let values = part.iter().map(|value| {
                let oid = value.attr_type().to_id_string();
                let text = value.as_str().map_or_else(|_| String::new(), escaped);
                format!("{}={text}", short(&oid).map_or(oid.as_str(), |short| short))
            });
            values.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// The short name of an attribute.
fn short(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// A value with its special characters escaped (RFC 2253 §2.4).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let is_edge = (c == ' ' && (at == 0 || at == last)) || (c == '#' && at == 0);
        if is_edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
