//! TLS of filter chains and clusters: made of settings, of secrets and files, and made again when one of these changes. A side whose
//! secrets are not there, or cannot be read, makes no connection.

mod materials;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwapOption, Guard};
use serin_http1::Codec;
use serin_resources::cluster::RequestNames;
use serin_resources::tls::{DownstreamTls, SecretValue, UpstreamTls};
use serin_transport::tls::{ClientTls, ServerTls};
use serin_xds::client::{Identity, Secure};

use crate::error::Error;
use materials::{Look, Materials, Stamps, Trusts, Unready};

/// The TLS of a filter chain.
#[derive(Debug)]
pub(crate) struct ServerSlot {
    settings: DownstreamTls,
    current: ArcSwapOption<ServerTls>,
    stamps: Mutex<Stamps>,
}

/// The TLS of a cluster, or of some of its endpoints.
#[derive(Debug)]
pub(crate) struct ClientSlot {
    pub(crate) settings: UpstreamTls,
    names: RequestNames,
    current: ArcSwapOption<Faces>,
    stamps: Mutex<Stamps>,
}

/// A client by the protocols above TLS that it offers.
#[derive(Debug)]
pub(crate) struct Faces {
    http1: ClientTls,
    http2: ClientTls,
    either: ClientTls,
    other: ClientTls,
}

/// The protocol above TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// This one.
    Http(Codec),
    /// One of the two of HTTP.
    Either,
    /// None of HTTP.
    Other,
}

impl ServerSlot {
    /// The server as it is now; `None` when what it needs is not there.
    pub(crate) fn current(&self) -> Option<Arc<ServerTls>> {
        self.current.load_full()
    }

    /// Returns true when a client must say which server it wants.
    pub(crate) fn requires_name(&self) -> bool {
        self.settings.requires_name
    }
}

impl ClientSlot {
    /// The client as it is now; `None` when what it needs is not there.
    pub(crate) fn current(&self) -> Guard<Option<Arc<Faces>>> {
        self.current.load()
    }
}

impl ClientSlot {
    /// What makes connections to gRPC servers, which are told that name unless it is empty.
    pub(crate) fn into_identity(self: Arc<Self>, name: &str) -> Secure {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Arc::new(move || {
            let faces = self.current();
            let tls = faces.as_ref()?.offering(Offer::Http(Codec::Http2)).clone();
            Some(Identity { tls, name: name.clone() })
        })
    }
}

impl Faces {
    pub(crate) fn offering(&self, offer: Offer) -> &ClientTls {
        match offer {
            Offer::Http(Codec::Http1) => &self.http1,
            Offer::Http(Codec::Http2) => &self.http2,
            Offer::Either => &self.either,
            Offer::Other => &self.other,
        }
    }
}

/// Why TLS cannot be made of its settings.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) text: String,
    /// True when files were read: they may be other ones soon.
    of_files: bool,
}

impl Problem {
    /// Puts what was made apart from why it was not.
    fn apart<T>(made: Result<T, Unready>, stamps: &Stamps) -> (Option<Arc<T>>, Option<Self>) {
        match made {
            Ok(made) => (Some(Arc::new(made)), None),
            Err(Unready::Missing(_)) => (None, None),
            Err(Unready::Wrong(text)) => (None, Some(Self { text, of_files: !stamps.is_empty() })),
        }
    }

    /// What a resource of discovery is refused for. Files are not: the configuration before it might ask for less, even for no TLS, so it
    /// ends, and no connection is made until the files can be used.
    pub(crate) fn refuses(self, name: &str) -> Result<(), Error> {
        if self.of_files {
            tracing::warn!(name, "no connection is made until this can be used: {}", self.text);
            return Ok(());
        }
        Err(self.into())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Certificates(problem.text)
    }
}

/// All secrets, and everything that is made of them.
#[derive(Debug, Default)]
pub(crate) struct TlsStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    secrets: BTreeMap<String, SecretValue>,
    trusts: Trusts,
    servers: Vec<Weak<ServerSlot>>,
    clients: Vec<Weak<ClientSlot>>,
}

impl TlsStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the TLS of a filter chain. It is empty while a secret is missing.
    ///
    /// # Errors
    /// What of its certificates, keys or lists cannot be used.
    pub(crate) fn server(&self, settings: &DownstreamTls) -> Result<Arc<ServerSlot>, Problem> {
        match self.server_anyway(settings) {
            (slot, None) => Ok(slot),
            (_, Some(problem)) => Err(problem),
        }
    }

    /// The same, empty also while something cannot be used, with what that is: no connection is served until it can.
    pub(crate) fn server_anyway(&self, settings: &DownstreamTls) -> (Arc<ServerSlot>, Option<Problem>) {
        let mut inner = self.inner();
        let mut materials = Materials::new(&inner.secrets, &inner.trusts);
        let made = materials.server(settings);
        let stamps = materials.stamps;
        let (current, problem) = Problem::apart(made, &stamps);
        let slot =
            Arc::new(ServerSlot { settings: settings.clone(), current: current.into(), stamps: Mutex::new(stamps) });
        inner.servers.push(Arc::downgrade(&slot));
        (slot, problem)
    }

    /// Makes the TLS of a cluster. It is empty while a secret is missing.
    ///
    /// # Errors
    /// What of its certificates, keys or lists cannot be used.
    pub(crate) fn client(&self, settings: &UpstreamTls, names: &RequestNames) -> Result<Arc<ClientSlot>, Problem> {
        match self.client_anyway(settings, names) {
            (slot, None) => Ok(slot),
            (_, Some(problem)) => Err(problem),
        }
    }

    /// The same, empty also while something cannot be used, with what that is: no connection is made until it can.
    pub(crate) fn client_anyway(
        &self,
        settings: &UpstreamTls,
        names: &RequestNames,
    ) -> (Arc<ClientSlot>, Option<Problem>) {
        let mut inner = self.inner();
        let mut materials = Materials::new(&inner.secrets, &inner.trusts);
        let made = materials.client(settings, names);
        let stamps = materials.stamps;
        let (current, problem) = Problem::apart(made, &stamps);
        let slot = Arc::new(ClientSlot {
            settings: settings.clone(),
            names: names.clone(),
            current: current.into(),
            stamps: Mutex::new(stamps),
        });
        inner.clients.push(Arc::downgrade(&slot));
        (slot, problem)
    }

    /// Takes a secret in, and makes everything again that uses it.
    pub(crate) fn put(&self, name: &str, value: SecretValue) {
        self.inner().secrets.insert(name.to_owned(), value);
        self.refresh(|secrets, _| secrets.contains(&name));
    }

    /// Forgets a secret. What uses it goes on as it is: Envoy keeps it, too.
    pub(crate) fn remove(&self, name: &str) {
        self.inner().secrets.remove(name);
    }

    /// Makes everything again whose files have changed.
    pub(crate) fn look_at_files(&self) {
        let mut look = Look::default();
        self.refresh(|_, stamps| look.have_changed(stamps));
    }

    /// Makes again what `is_concerned`, by the names of its secrets and the stamps of its files.
    fn refresh(&self, mut is_concerned: impl FnMut(&[&str], &Stamps) -> bool) {
        let inner = &mut *self.inner();
        inner.servers.retain(|slot| slot.strong_count() > 0);
        inner.clients.retain(|slot| slot.strong_count() > 0);
        for slot in inner.servers.iter().filter_map(Weak::upgrade) {
            let mut stamps = slot.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            let secrets: Vec<&str> = slot.settings.secrets().map(|secret| secret.name.as_str()).collect();
            if is_concerned(&secrets, &stamps) {
                let mut materials = Materials::new(&inner.secrets, &inner.trusts);
                take(materials.server(&slot.settings), &slot.current);
                *stamps = materials.stamps;
            }
        }
        for slot in inner.clients.iter().filter_map(Weak::upgrade) {
            let mut stamps = slot.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            let secrets: Vec<&str> = slot.settings.common.secrets().map(|secret| secret.name.as_str()).collect();
            if is_concerned(&secrets, &stamps) {
                let mut materials = Materials::new(&inner.secrets, &inner.trusts);
                take(materials.client(&slot.settings, &slot.names), &slot.current);
                *stamps = materials.stamps;
            }
        }
    }
}

/// Puts what was made into use; what could not be made leaves what there was.
fn take<T>(made: Result<T, Unready>, current: &ArcSwapOption<T>) {
    match made {
        Ok(made) => current.store(Some(Arc::new(made))),
        Err(Unready::Missing(secret)) => tracing::debug!("the secret '{secret}' is not there yet"),
        Err(Unready::Wrong(problem)) => tracing::warn!("certificates stay as they were: {problem}"),
    }
}
