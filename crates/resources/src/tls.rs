//! TLS of listeners and clusters: certificates, what a peer must show, versions and names. Source: Envoy,
//! `extensions.transport_sockets.tls.v3`.

mod decode;
mod encode;
mod secret;

use crate::matcher::StringMatcher;

pub use secret::{Secret, SecretValue};

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataSource {
    /// A file.
    File(String),
    /// The configuration itself.
    Bytes(Vec<u8>),
    /// An environment variable.
    Environment(String),
}

/// The TLS of a filter chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownstreamTls {
    /// What both sides have.
    pub common: CommonTls,
    /// True when a client must show a certificate.
    pub requires_certificate: bool,
    /// True when a client must say which server it wants.
    pub requires_name: bool,
    /// The tickets that are given to go on with a session.
    pub tickets: Tickets,
    /// How long a session can be gone on with, in seconds; 0 for the default.
    pub session_seconds: u32,
    /// True when sessions are not kept here to go on with them.
    pub without_sessions: bool,
    /// True when the client's order of cipher suites counts.
    pub prefers_client_order: bool,
    /// True when no certificate is shown without a staple.
    pub must_staple: bool,
    /// True when all certificates are looked at for a client whose name none has, instead of the first.
    pub scans_all: bool,
}

/// The tickets of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tickets {
    /// Those under a key that it makes itself.
    #[default]
    OwnKey,
    /// None.
    None,
    /// Those under the first of these keys; those under the others are still good.
    Keys(Vec<DataSource>),
    /// The same with the keys of a secret.
    Secret(SecretName),
}

/// The TLS of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// What both sides have.
    pub common: CommonTls,
    /// The name that is told to servers; may be empty.
    pub server_name: String,
    /// True when the host name of the endpoint is told, where it has one.
    pub names_host: bool,
    /// True when the server's certificate must have the name that it was told.
    pub checks_name: bool,
    /// Sessions that are kept to go on with them.
    pub sessions: u32,
}

/// What both sides have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommonTls {
    /// The oldest and the newest version.
    pub versions: (TlsVersion, TlsVersion),
    /// Cipher suites of TLS 1.2, by OpenSSL's names; empty for all.
    pub ciphers: Vec<String>,
    /// Groups of the key exchange; empty for all.
    pub groups: Vec<String>,
    /// Protocols above TLS.
    pub alpn: Vec<String>,
    /// The own certificates.
    pub certificates: Vec<CertificateSource>,
    /// What a peer must show, if anything.
    pub validation: Option<ValidationSource>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// What the side has by default.
    #[default]
    Auto,
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// The configuration itself.
    Given(TlsCertificate),
    /// A secret.
    Secret(SecretName),
}

/// The name of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// The name.
    pub name: String,
    /// True when it is one of the bootstrap, and never comes from elsewhere.
    pub is_static: bool,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// The chain, as PEM, the own certificate first.
    pub chain: DataSource,
    /// The private key, as PEM.
    pub key: DataSource,
    /// A response of OCSP to staple, as DER.
    pub staple: Option<DataSource>,
}

/// Where the rules for peers come from; those of a secret go on top of the given ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidationSource {
    /// The configuration itself.
    pub given: Option<Validation>,
    /// A secret.
    pub secret: Option<SecretName>,
}

/// What a peer must show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validation {
    /// Trusted certificates, as PEM.
    pub trusted: Option<DataSource>,
    /// Revocation lists, as PEM.
    pub revoked: Option<DataSource>,
    /// True when only the peer's own certificate must not be revoked.
    pub only_own_revocation: bool,
    /// Names, one of which the certificate must have; empty for any.
    pub names: Vec<NameMatcher>,
    /// SHA-256 of certificates, one of which it must be; empty for any.
    pub hashes: Vec<[u8; 32]>,
    /// SHA-256 of public keys, one of which it must have; empty for any.
    pub keys: Vec<[u8; 32]>,
    /// True when a certificate that is not trusted is accepted.
    pub accepts_untrusted: bool,
    /// Most authorities above the peer's certificate.
    pub depth: Option<u32>,
    /// True when a certificate whose time is over is accepted.
    pub allows_expired: bool,
    /// True when clients are not told which authorities are trusted.
    pub hides_authorities: bool,
}

/// An alternative name of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMatcher {
    /// Its kind.
    pub kind: NameKind,
    /// Its value.
    pub matcher: StringMatcher,
}

/// The kind of an alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameKind {
    /// An address of mail.
    Email,
    /// A host name.
    Dns,
    /// A URI, such as a SPIFFE identity.
    Uri,
    /// An IP address.
    Ip,
    /// Another one, by its object identifier.
    Other(String),
}

impl DownstreamTls {
    /// Returns the names of the secrets that it wants.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let keys = match &self.tickets {
            Tickets::Secret(name) => Some(name),
            _ => None,
        };
        self.common.secrets().chain(keys)
    }
}

impl CommonTls {
    /// Returns the names of the secrets that it wants.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(name),
            CertificateSource::Given(_) => None,
        });
        certificates.chain(self.validation.iter().filter_map(|source| source.secret.as_ref()))
    }
}

impl Validation {
    /// Returns these rules with those of a secret on top (Envoy: `combined_validation_context`).
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.trusted = other.trusted.clone().or(self.trusted);
        self.revoked = other.revoked.clone().or(self.revoked);
        self.only_own_revocation |= other.only_own_revocation;
        self.accepts_untrusted |= other.accepts_untrusted;
        self.allows_expired |= other.allows_expired;
        self.hides_authorities |= other.hides_authorities;
        self.depth = other.depth.or(self.depth);
        self.names.extend(other.names.iter().cloned());
        self.hashes.extend(&other.hashes);
        self.keys.extend(&other.keys);
        self
    }

    /// Returns the sources of its bytes.
    pub fn sources(&self) -> impl Iterator<Item = &DataSource> {
        self.trusted.iter().chain(&self.revoked)
    }
}

impl TlsCertificate {
    /// Returns the sources of its bytes.
    pub fn sources(&self) -> impl Iterator<Item = &DataSource> {
        [&self.chain, &self.key].into_iter().chain(&self.staple)
    }
}
