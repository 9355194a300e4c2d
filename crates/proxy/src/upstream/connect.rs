//! Making a connection to an endpoint.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serin_http1::ResponseHead;
use serin_http2::{Config, Role, Session};
use serin_transport::ByteStream;
use serin_transport::h2::{Driven, Driver};

use crate::metric;
use crate::runtime::{ClusterRuntime, Host, Permit};
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
    gauge: Gauge,
}

impl H1Connection {
    /// Both halves, and what counts the connection until it is dropped.
    pub(crate) fn dismantle(self) -> (H1Reader, H1Writer, Gauge) {
        (self.reader, self.writer, self.gauge)
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
}

impl H2Use {
    fn new(cluster: &ClusterRuntime) -> Rc<Self> {
        Rc::new(Self {
            streams: Cell::new(0),
            requests: Cell::new(0),
            most_requests: cluster.config.max_requests_per_connection,
            retired: Cell::new(false),
            unreachable: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            idle_timeout: cluster.config.idle_timeout,
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
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.host.stats.sub(self.worker, metric::host::CX_ACTIVE);
        self.cluster.stats.sub(self.worker, metric::cluster::CX_ACTIVE);
        drop(self.permit.take());
        if self.cluster.waiting() > 0 {
            self.cluster.freed.notify_waiters();
        }
    }
}

/// The reason why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    Refused,
    Timeout,
}

/// Makes an HTTP/1 connection.
pub(crate) async fn connect(
    worker: usize,
    cluster: &ClusterRuntime,
    host: &Arc<Host>,
    permit: Permit,
) -> Result<Box<H1Connection>, ConnectError> {
    let (stream, gauge) = open(worker, cluster, host, permit).await?;
    Ok(plain(stream, gauge, cluster))
}

/// Opens a socket within the cluster's connect timeout.
pub(crate) async fn open(
    worker: usize,
    cluster: &ClusterRuntime,
    host: &Arc<Host>,
    permit: Permit,
) -> Result<(ByteStream, Gauge), ConnectError> {
    let (stats, host_stats) = (&cluster.state.stats, &host.stats);
    stats.add(worker, metric::cluster::CX_TOTAL, 1);
    host_stats.add(worker, metric::host::CX_TOTAL, 1);
    let opened = tokio::time::timeout(cluster.config.connect_timeout, ByteStream::connect(host.address)).await;
    let failed = |index, error| {
        stats.add(worker, index, 1);
        host_stats.add(worker, metric::host::CX_CONNECT_FAIL, 1);
        error
    };
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err(failed(metric::cluster::CX_CONNECT_FAIL, ConnectError::Refused)),
        Err(_) => return Err(failed(metric::cluster::CX_CONNECT_TIMEOUT, ConnectError::Timeout)),
    };
    stream.prepare_connected(host.address);
    stats.add(worker, metric::cluster::CX_ACTIVE, 1);
    host_stats.add(worker, metric::host::CX_ACTIVE, 1);
    Ok((stream, Gauge { host: host.clone(), cluster: cluster.state.clone(), worker, permit: Some(permit) }))
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
        gauge,
    })
}

/// An HTTP/2 connection, which a task of its own opens and drives until it ends. Requests need not wait for that: what
/// they say is collected meanwhile, so that a burst shares one connection instead of making one each.
pub(crate) fn multiplexed(
    worker: usize,
    cluster: Arc<ClusterRuntime>,
    host: Arc<Host>,
    permit: Permit,
) -> H2Connection {
    let session = Session::new(Role::Client, Config::default());
    let usage = H2Use::new(&cluster);
    let connection = H2Connection { session: session.clone(), usage: usage.clone() };
    tokio::task::spawn_local(async move {
        match open(worker, &cluster, &host, permit).await {
            Ok((stream, gauge)) => {
                drop((cluster, host));
                let mut driver = Driver::new(stream, session, BytesMut::new());
                while let Driven::Request(_) = driver.next().await {}
                usage.retire();
                drop(gauge);
            }
            Err(_) => {
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
