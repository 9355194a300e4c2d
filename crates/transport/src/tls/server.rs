//! The side that accepts connections.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoClientAuth, NoServerSessionStorage, danger::ClientCertVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ServerConfig, SignatureAlgorithm};

use super::certificate::Certificate;
use super::tickets::{Tickets, kept};
use super::verify::{Verification, Verifier};
use super::{Identity, Protocols, TlsError};

/// The settings of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerSettings {
    /// Versions, cipher suites and groups.
    pub protocols: Protocols,
    /// Protocols above TLS that it speaks, the preferred first.
    pub alpn: Vec<Vec<u8>>,
    /// Its certificates; the first is shown to clients that ask for a name that none has.
    pub identities: Vec<Identity>,
    /// What a client's certificate must be; `None` asks for no certificate.
    pub clients: Option<Verification>,
    /// True when a client must show a certificate.
    pub needs_client_certificate: bool,
    /// The tickets that it gives.
    pub tickets: Tickets,
    /// How long a client can go on with a session.
    pub session_lifetime: Duration,
    /// What it asks of clients: tickets of servers with the same keys are good where this is the same.
    pub context: [u8; 32],
    /// True when no sessions are kept.
    pub without_sessions: bool,
    /// True when the client's order of cipher suites counts instead of the own one.
    pub prefers_client_order: bool,
    /// True when a client that asks for an unknown name gets the best certificate for it instead of the first.
    pub scans_all: bool,
}

/// A server, ready for handshakes.
#[derive(Debug)]
pub struct ServerTls {
    faces: Vec<Face>,
    alpn: Vec<Vec<u8>>,
    clients: Option<Verification>,
    scans_all: bool,
}

/// One certificate of a server.
#[derive(Debug)]
struct Face {
    certificate: Arc<Certificate>,
    key: Arc<dyn SigningKey>,
    /// With the protocols above TLS, and without, for a client that speaks none of them.
    config: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
}

impl ServerTls {
    /// Makes a server of its settings.
    ///
    /// # Errors
    /// When there is no certificate, a key is not that of its certificate, or nothing is left to speak.
    pub fn new(settings: &ServerSettings) -> Result<Self, TlsError> {
        if settings.identities.is_empty() {
            return Err(TlsError::Certificate("there is none".to_owned()));
        }
        let provider = settings.protocols.provider()?;
        let versions = settings.protocols.versions()?;
        let verifier: Arc<dyn ClientCertVerifier> = match &settings.clients {
            Some(rules) => {
                Verifier::new(rules.clone(), &provider, settings.needs_client_certificate || rules.needs_certificate())
            }
            None => Arc::new(NoClientAuth),
        };
        let sessions = kept(1024, settings.session_lifetime);
        let ticketer = settings.tickets.producer(&settings.context, settings.session_lifetime);
        let face = |identity: &Identity| {
            let certified = certified(identity)?;
            let key = certified.key.clone();
            let certificate =
                Arc::new(Certificate::read(identity.chain.first().unwrap_or(&CertificateDer::from_slice(&[]))));
            let mut config = ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&versions)
                .map_err(|_| TlsError::Nothing("cipher suite"))?
                .with_client_cert_verifier(verifier.clone())
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
            config.session_storage = match settings.without_sessions {
                true => Arc::new(NoServerSessionStorage {}),
                false => sessions.clone(),
            };
            config.ignore_client_order = !settings.prefers_client_order;
            match &ticketer {
                Some(ticketer) => config.ticketer = ticketer.clone(),
                None => config.send_tls13_tickets = 0,
            }
            let without_alpn = Arc::new(config.clone());
            config.alpn_protocols.clone_from(&settings.alpn);
            Ok(Face { certificate, key, config: Arc::new(config), without_alpn })
        };
        let faces = settings.identities.iter().map(face).collect::<Result<_, TlsError>>()?;
        Ok(Self {
            faces,
            alpn: settings.alpn.clone(),
            clients: settings.clients.clone(),
            scans_all: settings.scans_all,
        })
    }

    /// Returns the certificates that it shows.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.faces.iter().map(|face| &face.certificate)
    }

    /// The rules for clients, if there are any.
    pub(super) fn clients(&self) -> Option<&Verification> {
        self.clients.as_ref()
    }

    /// Chooses by what a client says: a certificate with the name that it asks for, of a kind that it understands.
    pub(super) fn choose(
        &self,
        hello: &rustls::server::ClientHello<'_>,
    ) -> Option<(Arc<ServerConfig>, Arc<Certificate>)> {
        let fits = |face: &&Face| face.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let wildcard = name.as_deref().and_then(|name| name.split_once('.')).map(|(_, rest)| format!("*.{rest}"));
        let named = |wanted: &Option<String>| {
            let wanted = wanted.as_deref()?;
            best(self.faces.iter().filter(fits).filter(|face| has_name(&face.certificate, wanted)))
        };
        let any = || best(self.faces.iter().filter(fits));
        let unnamed = || if name.is_none() || self.scans_all { any() } else { self.faces.first().filter(fits) };
        let face = named(&name).or_else(|| named(&wildcard)).or_else(unnamed).or_else(any).or(self.faces.first())?;
        let shares = hello.alpn().is_some_and(|mut asked| asked.any(|one| self.alpn.iter().any(|own| own == one)));
        let config = if shares { &face.config } else { &face.without_alpn };
        Some((config.clone(), face.certificate.clone()))
    }
}

/// The certificate that is preferred: the first with an elliptic curve, else the first.
fn best<'a>(faces: impl Iterator<Item = &'a Face>) -> Option<&'a Face> {
    let faces: Vec<&Face> = faces.collect();
    let ecdsa = faces.iter().find(|face| face.key.algorithm() == SignatureAlgorithm::ECDSA);
    ecdsa.or(faces.first()).copied()
}

/// Returns true when a certificate is one for that name; its common name counts when it has no other.
fn has_name(certificate: &Certificate, wanted: &str) -> bool {
    let is = |name: &String| name.eq_ignore_ascii_case(wanted);
    certificate.dns.iter().any(is) || (certificate.dns.is_empty() && certificate.common_name.iter().any(is))
}

/// A key with its chain, which belong together.
pub(super) fn certified(identity: &Identity) -> Result<CertifiedKey, TlsError> {
    let key = aws_lc_rs::sign::any_supported_type(&identity.key).map_err(|error| TlsError::Key(error.to_string()))?;
    let mut certified = CertifiedKey::new(identity.chain.clone(), key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => return Err(TlsError::OtherKey),
        Err(error) => return Err(TlsError::Certificate(error.to_string())),
    }
    certified.ocsp = (!identity.staple.is_empty()).then(|| identity.staple.clone());
    Ok(certified)
}
