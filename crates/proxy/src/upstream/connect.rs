//! Making a connection to an endpoint.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serin_http1::{Codec, ResponseHead};
use serin_http2::{Config, Role, Session};
use serin_transport::ByteStream;
use serin_transport::h2::{Driven, Driver};
use serin_transport::tls::TlsInfo;

use crate::handshake::{failure, rejection};
use crate::metric::{self, End};
use crate::runtime::{ClusterRuntime, Host, Permit};
use crate::tls::{ClientSlot, Offer};
use crate::wire::{H1Reader, H1Writer};

/// A connection of either protocol, ready for a request.
pub(crate) enum Upstream {
    H1(Box<H1Connection>),
    H2(H2Connection),
}

/// An HTTP/1 connection with the counts it holds. It stays in one place while it is used and kept.
pub(crate) struct H1Connection {
    pub(crate) reader: H1Reader,
    pub(crate) writer: H1Writer,
    /// Requests made on it.
    pub(crate) requests: u32,
    pub(crate) idle_since: Instant,
    pub(crate) idle_timeout: Duration,
    /// The last response's head, for its memory.
    pub(crate) head: ResponseHead,
    /// The name by which it is kept, if its endpoint was told one that followed from the request.
    pub(crate) name: Option<Rc<str>>,
    pub(crate) gauge: Gauge,
}

impl Drop for H1Connection {
    fn drop(&mut self) {
        if self.reader.is_gone() {
            self.gauge.ended_by_remote();
        }
    }
}

/// A handle to an HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct H2Connection {
    pub(crate) session: Session,
    pub(crate) usage: Rc<H2Use>,
}

/// The use of an HTTP/2 connection; all its handles look at the same.
pub(crate) struct H2Use {
    streams: Cell<usize>,
    requests: Cell<u32>,
    most_requests: Option<u32>,
    retired: Cell<bool>,
    /// True when no connection could be made.
    unreachable: Cell<bool>,
    idle_since: Cell<Instant>,
    idle_timeout: Duration,
    /// The properties of its TLS, once it is there.
    tls: OnceCell<Arc<TlsInfo>>,
}

impl H2Use {
    /// The properties of its TLS.
    pub(crate) fn tls(&self) -> Option<&Arc<TlsInfo>> {
        self.tls.get()
    }

    fn new(cluster: &ClusterRuntime) -> Rc<Self> {
        Rc::new(Self {
            streams: Cell::new(0),
            requests: Cell::new(0),
            most_requests: cluster.config.max_requests_per_connection,
            retired: Cell::new(false),
            unreachable: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            idle_timeout: cluster.config.idle_timeout,
            tls: OnceCell::new(),
        })
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// No new streams from now on; those that are open go on.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
    }

    /// Returns true when no connection could be made.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.unreachable.get()
    }

    /// Returns true when it takes new streams.
    pub(crate) fn is_usable(&self) -> bool {
        !self.retired.get() && self.most_requests.is_none_or(|most| self.requests.get() < most)
    }

    /// Returns true when it has been without streams for longer than it should.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        let limited = !self.idle_timeout.is_zero();
        limited && self.streams.get() == 0 && now.duration_since(self.idle_since.get()) >= self.idle_timeout
    }
}

/// An open stream, counted until dropped.
pub(crate) struct H2Stream(Rc<H2Use>);

impl H2Stream {
    /// Counts one more.
    pub(crate) fn open(connection: &H2Connection) -> Self {
        let usage = &connection.usage;
        usage.streams.set(usage.streams.get() + 1);
        usage.requests.set(usage.requests.get().saturating_add(1));
        Self(usage.clone())
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

/// Counts an open connection of a host and its cluster.
pub(crate) struct Gauge {
    host: Arc<Host>,
    cluster: Arc<crate::runtime::ClusterState>,
    worker: usize,
    permit: Option<Permit>,
    end: Cell<End>,
}

impl Gauge {
    /// The other end has closed the connection, or broken it off.
    pub(crate) fn ended_by_remote(&self) {
        self.end.set(End { by_remote: true, ..self.end.get() });
    }

    /// Something is going on on the connection, or not any more.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        self.end.set(End { is_busy, ..self.end.get() });
    }

    /// Counts bytes that were received and sent.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.cluster.stats.add(self.worker, metric::cluster::CX_RX_BYTES, received);
        self.cluster.stats.add(self.worker, metric::cluster::CX_TX_BYTES, sent);
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.host.stats.sub(self.worker, metric::host::CX_ACTIVE);
        self.cluster.stats.sub(self.worker, metric::cluster::CX_ACTIVE);
        let counters = self.end.get().counters(metric::cluster::CX_DESTROY);
        counters.for_each(|index| self.cluster.stats.add(self.worker, index, 1));
        drop(self.permit.take());
        if self.cluster.waiting() > 0 {
            self.cluster.freed.notify_waiters();
        }
    }
}

/// The reason why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The system says why.
    Refused(String),
    Timeout,
    /// The handshake failed, for this reason.
    Tls(String),
}

/// Where a connection goes: an endpoint, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) host: Arc<Host>,
    /// Its TLS; `None` is plain text.
    pub(crate) tls: Option<Arc<ClientSlot>>,
    /// The name that it is told.
    pub(crate) name: Option<Rc<str>>,
    /// The protocol that it is offered.
    pub(crate) offer: Offer,
}

impl Place {
    /// Takes note of what both agreed on, where the endpoint has a say.
    fn agreed(&self, stream: &ByteStream) -> Codec {
        let is_http2 = stream.tls().is_some_and(|tls| tls.alpn.as_deref() == Some(b"h2"));
        let codec = if is_http2 { Codec::Http2 } else { Codec::Http1 };
        if self.offer == Offer::Either {
            self.host.agreed(codec);
        }
        codec
    }
}

/// Makes a connection for HTTP/1, or, where the endpoint has a say, for what it chooses.
pub(crate) async fn connect(
    worker: usize,
    cluster: &Arc<ClusterRuntime>,
    place: &Place,
    permit: Permit,
) -> Result<Upstream, ConnectError> {
    let (stream, gauge) = open(worker, cluster, place, permit).await?;
    let stats = &cluster.state.stats;
    if place.agreed(&stream) == Codec::Http2 && place.offer == Offer::Either {
        stats.add(worker, metric::cluster::CX_HTTP2_TOTAL, 1);
        let (connection, session) = h2_connection(cluster);
        let usage = connection.usage.clone();
        tokio::task::spawn_local(drive(stream, session, usage, gauge));
        return Ok(Upstream::H2(connection));
    }
    stats.add(worker, metric::cluster::CX_HTTP1_TOTAL, 1);
    Ok(Upstream::H1(plain(stream, gauge, cluster)))
}

/// Makes a connection that carries bytes as they are.
pub(crate) async fn raw(
    worker: usize,
    cluster: &ClusterRuntime,
    place: &Place,
    permit: Permit,
) -> Result<Box<H1Connection>, ConnectError> {
    let (stream, gauge) = open(worker, cluster, place, permit).await?;
    Ok(plain(stream, gauge, cluster))
}

fn h2_connection(cluster: &ClusterRuntime) -> (H2Connection, Session) {
    let session = Session::new(Role::Client, Config::default());
    (H2Connection { session: session.clone(), usage: H2Use::new(cluster) }, session)
}

/// Moves the bytes of an HTTP/2 connection until it ends.
async fn drive(stream: ByteStream, session: Session, usage: Rc<H2Use>, gauge: Gauge) {
    stream.tls().cloned().into_iter().for_each(|tls| _ = usage.tls.set(tls));
    let gauge = Rc::new(gauge);
    let counted = gauge.clone();
    let moved = Box::new(move |received, sent| counted.moved(received, sent));
    let mut driver = Driver::new(stream, session.clone(), BytesMut::new()).telling(moved);
    while let Driven::Request(_) = driver.next().await {}
    gauge.set_busy(usage.streams() > 0);
    if !session.is_finished() {
        gauge.ended_by_remote();
    }
    usage.retire();
}

/// Opens a connection, with its handshake, within the cluster's connect timeout.
pub(crate) async fn open(
    worker: usize,
    cluster: &ClusterRuntime,
    place: &Place,
    permit: Permit,
) -> Result<(ByteStream, Gauge), ConnectError> {
    let host = &place.host;
    let (stats, host_stats) = (&cluster.state.stats, &host.stats);
    stats.add(worker, metric::cluster::CX_TOTAL, 1);
    host_stats.add(worker, metric::host::CX_TOTAL, 1);
    let opening = async {
        let stream = ByteStream::connect(host.address).await.map_err(|error| ConnectError::Refused(reason(&error)))?;
        stream.prepare_connected(host.address);
        match &place.tls {
            None => Ok(stream),
            Some(tls) => Box::pin(secured(stream, tls, place, cluster, |index| stats.add(worker, index, 1))).await,
        }
    };
    let opened = tokio::time::timeout(cluster.config.connect_timeout, opening).await;
    let failed = |index, error: ConnectError| {
        stats.add(worker, index, 1);
        let end = End { by_remote: error != ConnectError::Timeout, is_busy: false };
        end.counters(metric::cluster::CX_DESTROY).for_each(|index| stats.add(worker, index, 1));
        host_stats.add(worker, metric::host::CX_CONNECT_FAIL, 1);
        error
    };
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(metric::cluster::CX_CONNECT_FAIL, error)),
        Err(_) => return Err(failed(metric::cluster::CX_CONNECT_TIMEOUT, ConnectError::Timeout)),
    };
    stats.add(worker, metric::cluster::CX_ACTIVE, 1);
    host_stats.add(worker, metric::host::CX_ACTIVE, 1);
    Ok((
        stream,
        Gauge {
            host: host.clone(),
            cluster: cluster.state.clone(),
            worker,
            permit: Some(permit),
            end: Cell::default(),
        },
    ))
}

/// The reason why the system made no connection, in its own words, without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

/// Does the handshake. Without what it needs nothing is said.
async fn secured(
    stream: ByteStream,
    slot: &ClientSlot,
    place: &Place,
    cluster: &ClusterRuntime,
    count: impl Fn(usize),
) -> Result<ByteStream, ConnectError> {
    let Some(faces) = slot.current().clone() else {
        count(metric::cluster::SSL_NOT_READY);
        return Err(ConnectError::Tls("a secret is not there yet".to_owned()));
    };
    match stream.connect_tls(faces.offering(place.offer), place.name.as_deref()).await {
        Ok(stream) => {
            count(metric::cluster::SSL_HANDSHAKE);
            if let Some(tls) = stream.tls() {
                cluster.state.agreed.count(tls);
                if tls.is_resumed {
                    count(metric::cluster::SSL_SESSION_REUSED);
                }
                if let Some(overlooked) = &tls.overlooked {
                    count(metric::of_handshake(rejection(overlooked)));
                }
            }
            Ok(stream)
        }
        Err(error) => {
            tracing::debug!(address = %place.host.address, "handshake failed: {error}");
            failure(&error).into_iter().for_each(|index| count(metric::of_handshake(index)));
            Err(ConnectError::Tls(error.to_string()))
        }
    }
}

fn plain(stream: ByteStream, gauge: Gauge, cluster: &ClusterRuntime) -> Box<H1Connection> {
    let (read, write) = stream.into_split();
    Box::new(H1Connection {
        reader: H1Reader::new(read, BytesMut::new()),
        writer: H1Writer::new(write),
        requests: 0,
        idle_since: Instant::now(),
        idle_timeout: cluster.config.idle_timeout,
        head: ResponseHead::default(),
        name: None,
        gauge,
    })
}

/// An HTTP/2 connection, which a task of its own opens and drives until it ends. Requests need not wait for that: what
/// they say is collected meanwhile, so that a burst shares one connection instead of making one each.
pub(crate) fn multiplexed(worker: usize, cluster: Arc<ClusterRuntime>, place: Place, permit: Permit) -> H2Connection {
    let (connection, session) = h2_connection(&cluster);
    let usage = connection.usage.clone();
    tokio::task::spawn_local(async move {
        match open(worker, &cluster, &place, permit).await {
            // An endpoint that had a say may have changed its mind.
            Ok((stream, gauge)) if place.offer != Offer::Either || place.agreed(&stream) == Codec::Http2 => {
                cluster.state.stats.add(worker, metric::cluster::CX_HTTP2_TOTAL, 1);
                drop((cluster, place));
                drive(stream, session, usage, gauge).await;
            }
            Ok(_) | Err(_) => {
                usage.unreachable.set(true);
                usage.retire();
                session.close();
            }
        }
    });
    connection
}

impl H2Connection {
    /// Returns true when it takes new streams, now or later.
    pub(crate) fn is_usable(&self) -> bool {
        self.usage.is_usable() && self.session.is_open()
    }
}
