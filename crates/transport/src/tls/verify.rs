//! Whom a connection is with: the chain of the peer's certificate, and what else must be true of it.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::certificate::{Certificate, fingerprint};
use super::{TlsError, certificates};

/// The reason why a peer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its certificate does not lead to a trusted one, is not valid now, or is revoked.
    #[error("the certificate is not trusted: {0}")]
    Chain(String),
    /// None of its names is an accepted one.
    #[error("no name of the certificate is an accepted one")]
    Name,
    /// It is none of the listed certificates, and has none of the listed keys.
    #[error("the certificate is not one of those that are listed")]
    Hash,
}

/// A rule on the names of a peer's certificate.
type NameRule = Arc<dyn Fn(&Certificate) -> bool + Send + Sync>;

/// The algorithms of signatures in chains.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms);

/// Certificates that are trusted, and revocation lists that stand beside them. None trusts nobody.
#[derive(Debug, Default)]
pub struct Trusted {
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    /// The certificates themselves: a peer may show one of them.
    certificates: Vec<CertificateDer<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
}

impl Trusted {
    /// Reads certificates, and revocation lists if there are any, from PEM.
    ///
    /// # Errors
    /// When there is no certificate, or something cannot be read.
    pub fn read(pem: &[u8]) -> Result<Self, TlsError> {
        let certificates = certificates(pem)?;
        let read = |root: &CertificateDer<'static>| {
            let anchor = anchor_from_trusted_cert(root).map_err(|error| TlsError::Certificate(error.to_string()))?;
            Ok(anchor.to_owned())
        };
        let anchors: Vec<TrustAnchor<'static>> = certificates.iter().map(read).collect::<Result<_, _>>()?;
        let subjects = anchors.iter().map(|anchor| DistinguishedName::in_sequence(anchor.subject.as_ref())).collect();
        Ok(Self { anchors, subjects, revoked: revocation_lists(pem)?, certificates })
    }
}

/// Reads all revocation lists of a PEM text.
fn revocation_lists(pem: &[u8]) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
    let unreadable = |error: &dyn fmt::Display| TlsError::RevocationList(error.to_string());
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).map(|list| {
        let list = list.map_err(|error| unreadable(&error))?;
        let read = BorrowedCertRevocationList::from_der(&list).and_then(|list| list.to_owned());
        read.map(CertRevocationList::from).map_err(|error| unreadable(&error))
    });
    lists.collect()
}

/// The rules for a peer's certificate.
#[derive(Clone, Default)]
pub struct Verification {
    trusted: Arc<Trusted>,
    /// True when no chain is asked for.
    any_chain: bool,
    /// True when a chain that is not trusted is accepted all the same.
    accepts_untrusted: bool,
    revoked: Arc<Vec<CertRevocationList<'static>>>,
    /// True when only the peer's own certificate must not be revoked.
    only_own_revocation: bool,
    names: Option<NameRule>,
    /// SHA-256 of certificates and of public keys, any of which is accepted.
    hashes: Vec<[u8; 32]>,
    keys: Vec<[u8; 32]>,
    /// Most authorities above the peer's certificate.
    most_above: Option<usize>,
    allows_expired: bool,
    /// True when clients are not told which authorities are trusted.
    hides_authorities: bool,
    /// True when a server's certificate must have the name that it was told.
    checks_told_name: bool,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification").field("anchors", &self.trusted.anchors.len()).finish_non_exhaustive()
    }
}

impl Verification {
    /// Asks for no chain: only other rules, if there are any, decide.
    #[must_use]
    pub fn of_any() -> Self {
        Self { any_chain: true, ..Self::default() }
    }

    /// Trusts these certificates.
    #[must_use]
    pub fn trusting(trusted: Arc<Trusted>) -> Self {
        Self { trusted, ..Self::default() }
    }

    /// Does not tell clients which authorities are trusted.
    #[must_use]
    pub fn hiding_authorities(self, hides_authorities: bool) -> Self {
        Self { hides_authorities, ..self }
    }

    /// Returns true when a peer without a certificate cannot pass.
    pub(super) fn needs_certificate(&self) -> bool {
        self.names.is_some() || !self.hashes.is_empty() || !self.keys.is_empty()
    }

    /// Returns true when there is anything to judge a certificate by.
    #[must_use]
    pub fn judges(&self) -> bool {
        !self.any_chain || self.names.is_some() || !self.hashes.is_empty() || !self.keys.is_empty()
    }

    /// Accepts a chain that is not trusted all the same.
    #[must_use]
    pub fn accepting_untrusted(self, accepts: bool) -> Self {
        Self { accepts_untrusted: accepts, ..self }
    }

    /// Refuses certificates that are in one of the revocation lists of a PEM text; with `only_own`, those of issuers are not looked up.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn with_revoked(mut self, pem: &[u8], only_own: bool) -> Result<Self, TlsError> {
        let read = revocation_lists(pem)?;
        if read.is_empty() {
            return Err(TlsError::RevocationList("there is none".to_owned()));
        }
        self.revoked = Arc::new(read);
        self.only_own_revocation = only_own;
        Ok(self)
    }

    /// Accepts only certificates of which that is true.
    #[must_use]
    pub fn with_names(self, rule: impl Fn(&Certificate) -> bool + Send + Sync + 'static) -> Self {
        Self { names: Some(Arc::new(rule)), ..self }
    }

    /// Accepts only certificates with one of these SHA-256 digests, or with a public key with one of those.
    #[must_use]
    pub fn with_hashes(self, hashes: Vec<[u8; 32]>, keys: Vec<[u8; 32]>) -> Self {
        Self { hashes, keys, ..self }
    }

    /// Accepts only chains with so many authorities above the peer's certificate, the trusted one among them.
    #[must_use]
    pub fn with_depth(self, most_above: Option<usize>) -> Self {
        Self { most_above, ..self }
    }

    /// Accepts certificates whose time is over or has not begun.
    #[must_use]
    pub fn allowing_expired(self, allows_expired: bool) -> Self {
        Self { allows_expired, ..self }
    }

    /// Accepts only servers whose certificate has the name that they were told.
    #[must_use]
    pub fn checking_told_name(self, checks: bool) -> Self {
        Self { checks_told_name: checks, ..self }
    }

    /// Returns true when chains are judged.
    #[must_use]
    pub fn has_chain(&self) -> bool {
        !self.any_chain
    }

    /// Returns the reason why a peer would not be accepted if not everybody were.
    pub(super) fn overlooked(&self, chain: &[CertificateDer<'_>], of_client: bool) -> Option<Rejected> {
        let (own, between) = chain.split_first().filter(|_| self.accepts_untrusted)?;
        let usage = if of_client { KeyUsage::client_auth() } else { KeyUsage::server_auth() };
        self.judge(own, between, UnixTime::now(), usage).err()
    }

    fn check(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Rejected> {
        if self.accepts_untrusted { Ok(()) } else { self.judge(own, between, now, usage) }
    }

    fn judge(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Rejected> {
        if !self.any_chain {
            self.check_chain(own, between, now, usage).map_err(|error| Rejected::Chain(error.to_string()))?;
        }
        if self.names.is_none() && self.hashes.is_empty() && self.keys.is_empty() {
            return Ok(());
        }
        let certificate = Certificate::read(own);
        if self.names.as_ref().is_some_and(|rule| !rule(&certificate)) {
            return Err(Rejected::Name);
        }
        let is_listed = self.hashes.contains(&fingerprint(&certificate.der))
            || self.keys.contains(&fingerprint(&certificate.public_key));
        if is_listed || (self.hashes.is_empty() && self.keys.is_empty()) { Ok(()) } else { Err(Rejected::Hash) }
    }

    fn check_chain(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let first = self.check_chain_at(own, between, now, usage);
        let (not_before, not_after) = match &first {
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) if self.allows_expired => {
                Certificate::read(own).validity
            }
            _ => return first,
        };
        // As it was, or will be, while it is valid.
        let then = if (now.as_secs() as i64) < not_before { not_before } else { not_after };
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then.max(0) as u64));
        self.check_chain_at(own, between, then, usage)
    }

    fn check_chain_at(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let certificate = EndEntityCert::try_from(own)?;
        let lists: Vec<&CertRevocationList<'_>> = self.trusted.revoked.iter().chain(&*self.revoked).collect();
        let depth =
            if self.only_own_revocation { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
        // Without the list of an issuer nothing is known of what it has signed: that is refused, as OpenSSL does.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let most = self.most_above;
        let is_short = |path: &webpki::VerifiedPath<'_>| {
            let between = path.intermediate_certificates().count();
            let is_deep = between > 0 && most.is_some_and(|most| between + 1 > most);
            if is_deep { Err(webpki::Error::MaximumPathDepthExceeded) } else { Ok(()) }
        };
        let anchors = &self.trusted.anchors;
        let verified =
            certificate.verify_for_usage(ALGORITHMS.all, anchors, between, now, usage, revocation, Some(&is_short));
        match verified {
            Ok(_) => Ok(()),
            // A trusted certificate that is itself shown is trusted while it is valid (OpenSSL: partial chains).
            Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity)
                if self.trusted.certificates.iter().any(|trusted| trusted.as_ref() == own.as_ref()) =>
            {
                let (not_before, not_after) = Certificate::read(own).validity;
                let now = now.as_secs() as i64;
                if (not_before..=not_after).contains(&now) { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
            }
            Err(error) => Err(error),
        }
    }
}

/// A verifier for rustls, of servers and of clients.
#[derive(Debug)]
pub(super) struct Verifier {
    rules: Verification,
    algorithms: WebPkiSupportedAlgorithms,
    /// True when a client must show a certificate.
    is_required: bool,
}

impl Verifier {
    pub(super) fn new(rules: Verification, provider: &CryptoProvider, is_required: bool) -> Arc<Self> {
        Arc::new(Self { rules, algorithms: provider.signature_verification_algorithms, is_required })
    }
}

fn failed(rejected: Rejected) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.rules.check(own, between, now, KeyUsage::server_auth()).map_err(failed)?;
        let has_name = || {
            EndEntityCert::try_from(own).is_ok_and(|own| own.verify_is_valid_for_subject_name(name).is_ok())
                || has_short_wildcard(own, name)
        };
        if self.rules.checks_told_name && !has_name() {
            return Err(failed(Rejected::Name));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        if self.rules.hides_authorities { &[] } else { &self.rules.trusted.subjects }
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let checked = self.rules.check(own, between, now, KeyUsage::client_auth());
        checked.map(|()| ClientCertVerified::assertion()).map_err(failed)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns true when a certificate is for all names below one label, such as `*.local`. webpki takes no such wildcard; Envoy does.
fn has_short_wildcard(own: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(name) = name else { return false };
    let Some((label, rest)) = name.as_ref().split_once('.') else { return false };
    let is_rest = |dns: &String| dns.strip_prefix("*.").is_some_and(|below| below.eq_ignore_ascii_case(rest));
    !label.is_empty() && !rest.contains('.') && Certificate::read(own).dns.iter().any(is_rest)
}
