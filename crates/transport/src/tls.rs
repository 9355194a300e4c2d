//! TLS: what both sides of a connection show and accept, the handshake, and what it found out about the peer.
//!
//! Settings are plain values; [`ServerTls`] and [`ClientTls`] are made of them once and used for every connection. Which
//! configuration format they come from is not known here, nor who may connect: whoever makes the settings says by
//! [`Verification`] what a peer must show. Only TLS 1.2 and 1.3 are spoken; early data is never accepted or sent.

mod certificate;
mod client;
mod handshake;
mod hello;
mod server;
mod stream;
mod tickets;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};

pub use certificate::{Certificate, fingerprint, fingerprint_sha1};
pub use client::{ClientSettings, ClientTls};
pub use handshake::HandshakeError;
pub(crate) use handshake::{accept, connect};
pub(crate) use hello::sniff;
pub use hello::{ClientHello, Sniffed};
pub use server::{ServerSettings, ServerTls};
pub(crate) use stream::{Tls, TlsWrite};
pub use tickets::{TicketKey, Tickets};
pub use verify::{Rejected, Trusted, Verification};

/// The properties of an established TLS connection.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// The version, as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub cipher: String,
    /// The group of the key exchange, by OpenSSL's name; empty when there was none.
    pub group: &'static str,
    /// True when the chain of the peer's certificate leads to a trusted one.
    pub is_validated: bool,
    /// The reason why the peer would not have been accepted, had not everybody been.
    pub overlooked: Option<Rejected>,
    /// The protocol that both agreed on, if any.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for, if any.
    pub server_name: Option<String>,
    /// The certificates that the peer showed, its own first; empty when it showed none.
    pub peer: Vec<Certificate>,
    /// The certificate of this side, if it showed one.
    pub local: Option<Arc<Certificate>>,
    /// True when an earlier session went on.
    pub is_resumed: bool,
}

/// The reason why settings make no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A text with certificates has none, or one that cannot be read.
    #[error("no certificate can be read from it: {0}")]
    Certificate(String),
    /// A text with a private key has none, or one that cannot be read.
    #[error("no private key can be read from it: {0}")]
    Key(String),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// A revocation list cannot be read.
    #[error("the revocation list cannot be read: {0}")]
    RevocationList(String),
    /// A key for tickets does not have 80 bytes.
    #[error("a key for session tickets has {0} bytes instead of 80")]
    TicketKey(usize),
    /// No cipher suite, group or version is left that can be used.
    #[error("no usable {0} is left")]
    Nothing(&'static str),
}

/// A certificate with its chain and its private key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// A response of OCSP to staple; empty for none.
    staple: Vec<u8>,
}

impl Identity {
    /// Reads certificates, the own one first, and a key (PKCS #1, PKCS #8 or SEC 1) from PEM.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8], staple: Vec<u8>) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        Ok(Self { chain, key, staple })
    }
}

impl Identity {
    /// Returns true when it has a response of OCSP to staple.
    #[must_use]
    pub fn has_staple(&self) -> bool {
        !self.staple.is_empty()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), staple: self.staple.clone() }
    }
}

/// Reads all certificates of a PEM text, of which there must be one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(TlsError::Certificate("there is none".to_owned())),
        Err(error) => Err(TlsError::Certificate(error.to_string())),
    }
}

/// The versions, cipher suites and groups that may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protocols {
    /// True when TLS 1.2 may not be used.
    pub without_12: bool,
    /// True when TLS 1.3 may not be used.
    pub without_13: bool,
    /// Cipher suites of TLS 1.2 by OpenSSL's names; empty for all.
    pub ciphers: Vec<String>,
    /// Groups of the key exchange by OpenSSL's names, the preferred first; empty for all.
    pub groups: Vec<String>,
}

impl Protocols {
    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        let mut versions = Vec::new();
        if !self.without_13 {
            versions.push(&rustls::version::TLS13);
        }
        if !self.without_12 {
            versions.push(&rustls::version::TLS12);
        }
        if versions.is_empty() { Err(TlsError::Nothing("version")) } else { Ok(versions) }
    }

    /// The cryptography that may be used.
    fn provider(&self) -> Result<Arc<CryptoProvider>, TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.ciphers.is_empty() {
            // In the given order, behind those of TLS 1.3.
            let place = |suite: &rustls::SupportedCipherSuite| match suite.tls13() {
                Some(_) => Some(0),
                None => Some(1 + self.ciphers.iter().position(|name| *name == cipher_name(suite.suite()))?),
            };
            provider.cipher_suites.retain(|suite| place(suite).is_some());
            provider.cipher_suites.sort_by_key(|suite| place(suite));
            if provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()) && self.without_13 {
                return Err(TlsError::Nothing("cipher suite"));
            }
        }
        if !self.groups.is_empty() {
            let all = std::mem::take(&mut provider.kx_groups);
            let named = self.groups.iter().filter_map(|name| group_named(name));
            provider.kx_groups =
                named.filter_map(|group| all.iter().find(|known| known.name() == group).copied()).collect();
            if provider.kx_groups.is_empty() {
                return Err(TlsError::Nothing("group"));
            }
        }
        Ok(Arc::new(provider))
    }
}

/// Returns true for the name of a cipher suite of TLS 1.2 that can be used.
#[must_use]
pub fn is_cipher(name: &str) -> bool {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().any(|suite| suite.tls13().is_none() && cipher_name(suite.suite()) == name)
}

/// Returns true for the name of a group that can be used.
#[must_use]
pub fn is_group(name: &str) -> bool {
    group_named(name).is_some()
}

/// OpenSSL's name of a group.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        _ => "",
    }
}

fn group_named(name: &str) -> Option<NamedGroup> {
    Some(match name {
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        "X25519" => NamedGroup::X25519,
        "P-256" | "prime256v1" | "secp256r1" => NamedGroup::secp256r1,
        "P-384" | "secp384r1" => NamedGroup::secp384r1,
        _ => return None,
    })
}

/// OpenSSL's name of a cipher suite.
fn cipher_name(suite: CipherSuite) -> String {
    let name = match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
