//! The side that makes connections.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;

use super::certificate::Certificate;
use super::server::certified;
use super::verify::{Verification, Verifier};
use super::{Identity, Protocols, TlsError};

/// The settings of a client.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// Versions, cipher suites and groups.
    pub protocols: Protocols,
    /// Protocols above TLS that it speaks, the preferred first.
    pub alpn: Vec<Vec<u8>>,
    /// Its certificate, for servers that ask for one.
    pub identity: Option<Identity>,
    /// What a server's certificate must be; `None` accepts any.
    pub servers: Option<Verification>,
    /// Sessions that are kept to go on with them; 0 keeps none.
    pub sessions: usize,
}

/// A client, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// With a name that is told to servers, and without.
    named: Arc<ClientConfig>,
    nameless: Arc<ClientConfig>,
    local: Option<Arc<Certificate>>,
    servers: Option<Verification>,
}

impl ClientTls {
    /// Makes a client of its settings.
    ///
    /// # Errors
    /// When the key is not that of the certificate, or nothing is left to speak.
    pub fn new(settings: &ClientSettings) -> Result<Self, TlsError> {
        let provider = settings.protocols.provider()?;
        let rules = settings.servers.clone().unwrap_or_else(Verification::of_any);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&settings.protocols.versions()?)
            .map_err(|_| TlsError::Nothing("cipher suite"))?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(rules, &provider, true));
        let mut config = match &settings.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(identity)?))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&settings.alpn);
        config.resumption = match settings.sessions {
            0 => Resumption::disabled(),
            most => Resumption::in_memory_sessions(most),
        };
        let mut nameless = config.clone();
        nameless.enable_sni = false;
        let local = settings.identity.as_ref().and_then(|identity| identity.chain.first());
        let local = local.map(|own| Arc::new(Certificate::read(own)));
        Ok(Self { named: Arc::new(config), nameless: Arc::new(nameless), local, servers: settings.servers.clone() })
    }

    /// The same with other protocols above TLS.
    #[must_use]
    pub fn with_alpn(&self, alpn: &[Vec<u8>]) -> Self {
        let with = |config: &Arc<ClientConfig>| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = alpn.to_vec();
            Arc::new(config)
        };
        Self { named: with(&self.named), nameless: with(&self.nameless), ..self.clone() }
    }

    pub(super) fn config(&self, is_named: bool) -> Arc<ClientConfig> {
        if is_named { self.named.clone() } else { self.nameless.clone() }
    }

    /// The rules for servers, if there are any.
    pub(super) fn servers(&self) -> Option<&Verification> {
        self.servers.as_ref()
    }

    /// The certificate that it shows.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.local.as_ref()
    }
}
