//! A connection that a client made: which filter chain it gets, its handshake, and who serves it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serin_resources::listener::Filter;
use serin_traffic::filter::Caller;
use serin_traffic::filter_chain::{Connection, Hello};
use serin_transport::tls::{ClientHello, Sniffed};
use serin_transport::{ByteStream, canonical};

use crate::handshake::{failure, names_of, rejection};
use crate::http::{self, Accepted, within};
use crate::metric::{self, inspector, tls as counter};
use crate::snapshot::ListenerRuntime;
use crate::tcp;
use crate::worker::{ConnectionGuard, View, Worker};

/// The time in which a client must say so much that its chain can be chosen (Envoy: `listener_filters_timeout`).
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// The time for a handshake, unless its chain says another.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was accepted.
pub(crate) struct Arrival {
    pub(crate) worker: Rc<Worker>,
    /// The name of the listener.
    pub(crate) listener: Rc<str>,
    pub(crate) stream: ByteStream,
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// The address of the listener, which may be unspecified.
    pub(crate) bound: SocketAddr,
    /// The server that its TLS asks for, where an inspector has looked.
    pub(crate) server_name: Option<Rc<str>>,
}

/// Counts an HTTP connection as one of TLS until dropped.
struct SecuredGuard<'a>(Option<&'a ConnectionGuard>);

impl<'a> SecuredGuard<'a> {
    fn new(guard: &'a ConnectionGuard) -> Self {
        let of_http = guard.chain.config.filter.manager().is_some();
        if of_http {
            guard.count(metric::http::CX_SSL_TOTAL, 1);
            guard.count(metric::http::CX_SSL_ACTIVE, 1);
        }
        Self(of_http.then_some(guard))
    }
}

impl Drop for SecuredGuard<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.0 {
            guard.count(metric::http::CX_SSL_ACTIVE, u64::MAX);
        }
    }
}

impl Arrival {
    /// Lets it in, or ends it. It is served in a task of its own.
    pub(crate) fn begin(self) {
        if !self.worker.inspects(&self.listener) {
            return self.admit(None);
        }
        tokio::task::spawn_local(async move {
            match within(HELLO_TIMEOUT, self.stream.sniff()).await {
                Some(Ok(Sniffed::Tls(hello))) => {
                    let has_name = hello.server_name.is_some();
                    metric::INSPECTED.add(inspector::TLS_FOUND);
                    metric::INSPECTED.add(if has_name { inspector::SNI_FOUND } else { inspector::SNI_NOT_FOUND });
                    let has_alpn = !hello.alpn.is_empty();
                    metric::INSPECTED.add(if has_alpn { inspector::ALPN_FOUND } else { inspector::ALPN_NOT_FOUND });
                    self.admit(Some(&hello));
                }
                Some(Ok(Sniffed::Other)) => {
                    metric::INSPECTED.add(inspector::TLS_NOT_FOUND);
                    self.admit(None);
                }
                Some(Err(_)) | None => {}
            }
        });
    }

    fn admit(mut self, hello: Option<&ClientHello>) {
        self.server_name = hello.and_then(|hello| hello.server_name.as_deref()).map(Into::into);
        let connection = || {
            // Only a listener at every address has to ask at which one the client came.
            let is_anywhere = self.bound.ip().is_unspecified();
            let here = if is_anywhere { self.stream.local_addr().ok().map(canonical) } else { Some(self.bound) };
            Connection {
                destination: here.unwrap_or(self.bound),
                direct_source: self.peer,
                source: self.peer,
                hello: hello.map(|hello| Hello { server_name: hello.server_name.as_deref(), protocols: &hello.alpn }),
            }
        };
        let chosen = self.worker.view(&self.listener, |listener: &ListenerRuntime| listener.choose(connection));
        let Some(view) = chosen else { return };
        self.stream.prepare_accepted(self.peer, self.bound);
        let guard = ConnectionGuard::new(self.worker.clone(), view.chain.clone());
        if view.chain.tls.is_none() && !self.passes(&view) {
            return;
        }
        tokio::task::spawn_local(async move {
            match view.chain.tls.is_some() {
                // In a box, so that plain connections do not carry what a handshake needs.
                true => {
                    let _counted = SecuredGuard::new(&guard);
                    match Box::pin(self.secured(&view)).await {
                        Some(secured) if secured.passes(&view) => secured.serve(view, &guard).await,
                        _ => {}
                    }
                }
                false => self.serve(view, &guard).await,
            }
            drop(guard);
        });
    }

    /// Returns true when all filters of connections let it in.
    fn passes(&self, view: &View) -> bool {
        if view.chain.gates.is_empty() {
            return true;
        }
        let local = self.stream.local_addr().ok().map(canonical);
        let caller = Caller {
            peer: self.peer,
            local,
            client: self.peer.ip(),
            names: self.stream.tls().map(|tls| names_of(tls)),
            server_name: self.server_name.as_deref(),
        };
        view.chain.gates.iter().all(|gate| gate.lets_in(&caller))
    }

    /// Does the handshake; `None` when it failed.
    async fn secured(self, view: &View) -> Option<Self> {
        let slot = view.chain.tls.as_ref()?;
        let count = |index: usize| view.chain.tls_counts.add(index);
        let Some(server) = slot.current() else {
            count(counter::NOT_READY);
            return None;
        };
        let limit = match view.chain.config.handshake_timeout {
            Duration::ZERO => HANDSHAKE_TIMEOUT,
            given => given,
        };
        let Self { worker, listener, stream, peer, bound, server_name } = self;
        let stream = match within(limit, stream.accept_tls(&server)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::debug!(%peer, listener = &*listener, "handshake failed: {error}");
                failure(&error).into_iter().for_each(count);
                return None;
            }
            None => {
                count(counter::TIMEOUT);
                return None;
            }
        };
        let info = stream.tls()?;
        if slot.requires_name() && info.server_name.is_none() {
            count(counter::CONNECTION_ERROR);
            return None;
        }
        count(counter::HANDSHAKE);
        view.chain.tls_counts.agreed(info);
        info.overlooked.as_ref().map(rejection).into_iter().for_each(count);
        if info.is_resumed {
            count(counter::SESSION_REUSED);
        }
        if info.peer.is_empty() {
            count(counter::NO_CERTIFICATE);
        }
        Some(Self { worker, listener, stream, peer, bound, server_name })
    }

    async fn serve(self, view: Rc<View>, guard: &ConnectionGuard) {
        let Self { worker, listener, stream, peer, bound, server_name } = self;
        match &guard.chain.config.filter {
            Filter::Http(http) => {
                http::connection(worker, Accepted { listener, view, stream, peer, bound, server_name }, http, guard)
                    .await;
            }
            Filter::Tcp(proxy) => {
                let accepted = tcp::Accepted { stream, peer, server_name };
                Box::pin(tcp::connection(worker, accepted, proxy, guard)).await;
            }
        }
    }
}
