//! A client's connection and the requests on it.

mod admit_upgrade;
mod alter;
mod attempt;
mod attempts;
mod body;
mod client_certificate;
mod compare;
mod connection_h1;
mod connection_h2;
mod date;
mod deadlines;
mod draw;
mod filters;
mod finish;
mod follow;
mod forward;
mod hang_up;
mod held;
mod local_reply;
mod mirror;
mod reply_mapping;
mod request;
mod respond;
mod serve;
mod stage;
mod strict;
mod upgrade;
mod upload;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serin_http1::{Codec, Error, RequestHead};
use serin_resources::connection_manager::{DownstreamCodec, HttpConnectionManager};
use serin_traffic::router::{Circumstances, Peer};
use serin_transport::tls::TlsInfo;
use serin_transport::{ByteStream, buffers, canonical};
use tokio::io::AsyncReadExt as _;

pub(crate) use filters::COUNTERS;

use crate::metric;
use crate::worker::View;
use crate::worker::{ConnectionGuard, Worker};

/// The state of a connection, from its beginning to its end.
pub(crate) struct ConnectionContext {
    pub(crate) worker: Rc<Worker>,
    /// Name of its listener; the newest configuration under that name applies.
    pub(crate) listener: Rc<str>,
    /// The newest view of its chain, with the number of its snapshot.
    seen: RefCell<(u64, Rc<View>)>,
    /// Bytes of responses that wait for it to read.
    held: Cell<usize>,
    /// True when its chain was not there any more at the last look.
    is_stale: Cell<bool>,
    /// Requests on it so far, and when it began.
    requests: Cell<u32>,
    began: Instant,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    /// The properties of its TLS; `None` is plain text.
    pub(crate) tls: Option<Arc<TlsInfo>>,
    /// The server that its TLS asked for, where an inspector has looked.
    pub(crate) server_name: Option<Rc<str>>,
}

impl ConnectionContext {
    /// What routes of a request may depend on, besides its head.
    pub(crate) fn circumstances(&self) -> Circumstances {
        let peer = match self.tls.as_deref() {
            None => Peer::Plain,
            Some(tls) if tls.peer.is_empty() => Peer::Nameless,
            Some(tls) if tls.is_validated => Peer::Validated,
            Some(_) => Peer::Presented,
        };
        Circumstances { random: self.worker.random(), peer }
    }

    /// The scheme of requests on it.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The newest view of the chain, and whether the chain is still there: if not, it is as it was at the end.
    pub(crate) fn view(&self) -> (bool, Rc<View>) {
        let generation = self.worker.generation();
        let mut seen = self.seen.borrow_mut();
        if seen.0 != generation {
            let newest = self.worker.view(&self.listener, |listener| listener.successor(&seen.1.chain));
            let Some(view) = newest else {
                self.is_stale.set(true);
                return (false, seen.1.clone());
            };
            self.is_stale.set(false);
            *seen = (generation, view);
        }
        (true, seen.1.clone())
    }

    /// Counts a request; false when it must be the last of the connection. Whether its chain is still there was found by the last
    /// [`view`](Self::view).
    #[inline]
    pub(crate) fn begin_request(&self) -> bool {
        if self.is_stale.get() {
            return false;
        }
        let number = self.requests.get().saturating_add(1);
        self.requests.set(number);
        let view = self.seen.borrow();
        let Some(http) = view.1.chain.config.filter.manager() else { return true };
        if http.max_requests_per_connection.is_some_and(|most| number >= most) {
            view.1.chain.stats.add(self.worker.id, metric::http::CX_MAX_REQUESTS, 1);
            return false;
        }
        let limit = http.max_connection_duration;
        if !limit.is_zero() && self.began.elapsed() >= limit {
            view.1.chain.stats.add(self.worker.id, metric::http::CX_MAX_DURATION, 1);
            return false;
        }
        true
    }
}

/// A connection that a listener accepted.
pub(crate) struct Accepted {
    /// The name of the listener.
    pub(crate) listener: Rc<str>,
    /// Its chain for the connection, when it accepted it.
    pub(crate) view: Rc<View>,
    pub(crate) stream: ByteStream,
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// The address of the listener, which may be unspecified.
    pub(crate) bound: SocketAddr,
    /// The server that its TLS asked for, where an inspector has looked.
    pub(crate) server_name: Option<Rc<str>>,
}

/// Serves one connection until it ends.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    accepted: Accepted,
    http: &HttpConnectionManager,
    guard: &ConnectionGuard,
) {
    let Accepted { listener, view, stream, peer, bound, server_name } = accepted;
    // Only a listener at every address has to ask at which one the client came.
    let local = if bound.ip().is_unspecified() { stream.local_addr().ok().map(canonical) } else { Some(bound) };
    let tls = stream.tls().cloned();
    let agreed = match tls.as_ref().and_then(|tls| tls.alpn.as_deref()) {
        Some(b"h2") => Some(Codec::Http2),
        Some(b"http/1.1" | b"http/1.0") => Some(Codec::Http1),
        _ => None,
    };
    let seen = RefCell::new((0, view));
    let context = Rc::new(ConnectionContext {
        worker,
        listener,
        seen,
        held: Cell::new(0),
        is_stale: Cell::new(false),
        requests: Cell::new(0),
        began: Instant::now(),
        peer,
        local,
        tls,
        server_name,
    });
    let id = context.worker.id;
    let first = match (http.codec, agreed) {
        (DownstreamCodec::Fixed(codec), _) | (DownstreamCodec::Auto, Some(codec)) => {
            Some((stream, BytesMut::new(), codec))
        }
        (DownstreamCodec::Auto, None) => detect(stream, http.timeouts.idle, &context.worker).await,
    };
    match first {
        Some((stream, buffer, Codec::Http2)) => {
            guard.chain.stats.add(id, metric::http::CX_HTTP2_TOTAL, 1);
            guard.end.set(Box::pin(connection_h2::serve(context, stream, buffer, http.timeouts)).await);
        }
        Some((stream, buffer, Codec::Http1)) => {
            guard.chain.stats.add(id, metric::http::CX_HTTP1_TOTAL, 1);
            guard.end.set(connection_h1::serve(context, stream, buffer).await);
        }
        None => guard.end.set(metric::End { by_remote: true, is_busy: false }),
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear what the client speaks; `None` when it went away or never said anything.
async fn detect(mut stream: ByteStream, idle: Duration, worker: &Worker) -> Option<(ByteStream, BytesMut, Codec)> {
    let mut buffer = BytesMut::new();
    loop {
        let ready = tokio::select! {
            ready = within(idle, std::future::poll_fn(|cx| stream.poll_read_ready(cx))) => ready?,
            () = finishing(worker) => return None,
        };
        if buffer.capacity() == 0 {
            buffer = buffers::take();
        }
        if ready.is_err() || !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            return None;
        }
        let known = buffer.len().min(PREFACE.len());
        let prefix = buffer.get(..known) == PREFACE.get(..known);
        if !prefix || known == PREFACE.len() {
            return Some((stream, buffer, if prefix { Codec::Http2 } else { Codec::Http1 }));
        }
    }
}

/// Counts one in the newest configuration of the connection's listener.
fn count(context: &ConnectionContext, index: usize) {
    context.view().1.chain.stats.add(context.worker.id, index, 1);
}

/// The outcome, or `None` after `limit`; zero is no limit.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    if limit.is_zero() { Some(future.await) } else { tokio::time::timeout(limit, future).await.ok() }
}

/// Takes out what a client expects of us, which can only be `100-continue`.
fn expectation(head: &mut RequestHead) -> Result<(), Error> {
    let wrong = head.fields.get_all("expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue"));
    if wrong || head.fields.get_all("expect").count() > 1 {
        return Err(Error::Expectation);
    }
    head.fields.remove("expect");
    Ok(())
}

/// Waits until idle connections must close.
pub(crate) async fn finishing(worker: &Worker) {
    while !worker.finishing.get() {
        worker.wake.notified().await;
    }
}
