//! TCP proxy: a client's connection is joined to an endpoint's, and bytes pass both ways until both ends are done.

mod record;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use serin_resources::tcp_proxy::{TcpProxy, WeightedTarget};
use serin_traffic::balance::LbContext;
use serin_traffic::hash;
use serin_traffic::outcome::Outcome;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::split::Split;
use serin_transport::{ByteStream, ReadHalf, WriteHalf, buffers, canonical};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::metric::{self, tcp as counter};
use crate::timer::Timers;
use crate::tls::Offer;
use crate::upstream::{ConnectError, Gauge, Place, open};
use crate::worker::{ConnectionGuard, LocalCluster, Worker};
use record::TcpRecord;

/// A connection for a TCP proxy.
pub(crate) struct Accepted {
    pub(crate) stream: ByteStream,
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// The server that its TLS asked for, where an inspector has looked.
    pub(crate) server_name: Option<Rc<str>>,
}

/// Serves one connection until it ends.
pub(crate) async fn connection(worker: Rc<Worker>, accepted: Accepted, proxy: &TcpProxy, guard: &ConnectionGuard) {
    let Accepted { stream, peer, server_name } = accepted;
    let count = |index: usize, amount: u64| guard.chain.stats.add(worker.id, index, amount);
    let mut record = TcpRecord::new(&guard.chain, peer);
    record.local = stream.local_addr().ok().map(canonical);
    record.server_name = server_name;
    if proxy.log_moments.start {
        record.log(record::START);
    }
    let split = Split::new(proxy.clusters.iter().map(|target| target.weight));
    let drawn = proxy.clusters.get(split.pick(worker.random()));
    let cluster = drawn.and_then(|target| worker.cluster(&worker.snapshot(), &target.name));
    let (Some(cluster), Some(target)) = (cluster, drawn) else {
        record.flag = ResponseFlag::NoClusterFound;
        return count(counter::CX_NO_ROUTE, 1);
    };
    record.cluster = Some(cluster.clone());
    let way = Way { proxy, target, peer };
    let Some((upstream, gauge)) = reach(&worker, &cluster, &way, &mut record).await else { return };
    record.upstream_local = upstream.local_addr().ok();
    if proxy.log_moments.connected {
        record.log(record::CONNECTED);
    }
    match join(stream, upstream, proxy, &record).await {
        Ended::ByClient => {}
        Ended::ByUpstream => gauge.ended_by_remote(),
        Ended::Reset => {
            gauge.ended_by_remote();
            record.flag = ResponseFlag::UpstreamRemoteReset;
        }
        Ended::Idle => count(counter::IDLE_TIMEOUT, 1),
        Ended::Late => {
            count(counter::MAX_DURATION, 1);
            record.flag = ResponseFlag::DurationTimeout;
        }
    }
    gauge.moved(record.sent.get(), record.received.get());
    count(counter::RECEIVED, record.received.get());
    count(counter::SENT, record.sent.get());
}

/// How a joined connection ended.
enum Ended {
    /// Both had said all, the client last.
    ByClient,
    /// Both had said all, the upstream last.
    ByUpstream,
    /// The upstream broke off.
    Reset,
    /// Nobody said anything for too long.
    Idle,
    /// It lasted too long.
    Late,
}

/// Passes bytes both ways until the connection ends.
async fn join(stream: ByteStream, upstream: ByteStream, proxy: &TcpProxy, record: &TcpRecord<'_>) -> Ended {
    let (from_client, to_client) = stream.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    let timers = Timers::new();
    let last = (!proxy.max_duration.is_zero()).then(|| timers.last() + proxy.max_duration);
    let up = relay(from_client, to_upstream, &timers, &record.received);
    let down = relay(from_upstream, to_client, &timers, &record.sent);
    let client_was_first = Cell::new(false);
    let upstream_is_done = Cell::new(false);
    let up = async {
        up.await;
        client_was_first.set(!upstream_is_done.get());
    };
    let down = async {
        let ended = down.await;
        upstream_is_done.set(true);
        ended
    };
    let mut both = std::pin::pin!(async {
        match tokio::join!(up, down) {
            ((), false) => Ended::Reset,
            ((), true) if client_was_first.get() => Ended::ByUpstream,
            ((), true) => Ended::ByClient,
        }
    });
    loop {
        let before = timers.last();
        let idle = (!proxy.idle_timeout.is_zero()).then(|| before + proxy.idle_timeout);
        if let Some(ended) = timers.until(idle.into_iter().chain(last).min(), both.as_mut()).await {
            return ended;
        }
        match last {
            Some(last) if Instant::now() >= last => return Ended::Late,
            _ if timers.last() == before => return Ended::Idle,
            _ => {}
        }
    }
}

/// What chooses an endpoint.
struct Way<'a> {
    proxy: &'a TcpProxy,
    target: &'a WeightedTarget,
    peer: SocketAddr,
}

impl Way<'_> {
    /// Metadata that the endpoint must have: the proxy's, with the drawn cluster's.
    fn metadata(&self) -> Option<Cow<'_, BTreeMap<String, String>>> {
        match (self.proxy.metadata.is_empty(), self.target.metadata.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Cow::Borrowed(&self.proxy.metadata)),
            (_, false) => {
                let mut all = self.proxy.metadata.clone();
                all.extend(self.target.metadata.clone());
                Some(Cow::Owned(all))
            }
        }
    }
}

/// Connects to an endpoint of the cluster, or to another when that fails.
async fn reach(
    worker: &Rc<Worker>,
    cluster: &LocalCluster,
    way: &Way<'_>,
    record: &mut TcpRecord<'_>,
) -> Option<(ByteStream, Gauge)> {
    let metadata = way.metadata();
    let hash = way.proxy.hashes_source.then(|| hash::of_source(way.peer.ip()));
    let count = |index: usize| cluster.state.stats.add(worker.id, index, 1);
    for attempt in 0..way.proxy.connect_attempts {
        let context = LbContext { hash, metadata: metadata.as_deref(), ..LbContext::default() };
        let choice = {
            let mut state = cluster.balancer.borrow_mut();
            cluster.pick(&mut state, &context, cluster, &mut || worker.random())
        };
        let Some(local) = choice.and_then(|c| cluster.hosts.get(c)) else {
            count(metric::cluster::CX_NONE_HEALTHY);
            record.flag = ResponseFlag::NoHealthyUpstream;
            return None;
        };
        let Some(permit) = cluster.permit_connection(false) else {
            count(metric::cluster::CX_OVERFLOW);
            record.flag = ResponseFlag::UpstreamOverflow;
            return None;
        };
        record.attempts = attempt + 1;
        record.upstream = Some(local.host.address);
        let tls = choice.and_then(|c| cluster.members.get(c)?.tls.clone());
        let name = tls.as_ref().map(|tls| tls.settings.server_name.as_str()).filter(|name| !name.is_empty());
        let name = name.map(Into::into);
        let place = Place { host: local.host.clone(), tls, name, offer: Offer::Other };
        match open(worker.id, cluster, &place, permit).await {
            Ok(connected) => {
                cluster.note(&local.host, Outcome::Response { status: 200, grpc: None });
                record.flag = ResponseFlag::None;
                record.failure = None;
                return Some(connected);
            }
            Err(error) => {
                cluster.note(&local.host, Outcome::ConnectFailure);
                record.flag = ResponseFlag::UpstreamConnectionFailure;
                record.failure = reason(error);
            }
        }
    }
    count(metric::cluster::CX_CONNECT_ATTEMPTS_EXCEEDED);
    record.retries_exhausted = true;
    None
}

/// The reason of a connection that was not made.
fn reason(error: ConnectError) -> Option<String> {
    match error {
        ConnectError::Refused(reason) => Some(format!("delayed_connect_error:_{}", reason.replace(' ', "_"))),
        ConnectError::Timeout => None,
        ConnectError::Tls(reason) => Some(format!("TLS_error:|{reason}:TLS_error_end")),
    }
}

/// Passes bytes on until the sender ends, and then the end; false when it broke off. A buffer is there only while bytes are, but
/// for a sender that has many: it keeps a large one.
async fn relay(mut from: ReadHalf, mut to: WriteHalf, timers: &Timers, moved: &Cell<u64>) -> bool {
    let mut buffer = BytesMut::new();
    let mut ended = false;
    loop {
        if std::future::poll_fn(|cx| from.poll_read_ready(cx)).await.is_err() {
            break;
        }
        if buffer.capacity() == 0 {
            buffer = buffers::take();
        }
        let room = buffer.capacity();
        let read = match from.read_buf(&mut buffer).await {
            Ok(0) => {
                ended = true;
                break;
            }
            Ok(read) => read,
            Err(_) => break,
        };
        timers.tick();
        moved.set(moved.get() + read as u64);
        if to.write_all(&buffer).await.is_err() {
            // Whoever takes no more is done; its own direction says how.
            ended = true;
            break;
        }
        buffer.clear();
        if read >= room {
            buffer.reserve(LARGE);
        } else if read < LARGE / 16 {
            buffers::give(std::mem::take(&mut buffer));
        }
    }
    let _ = to.shutdown().await;
    ended
}

/// Bytes that are read at once from a sender that has many.
const LARGE: usize = 128 * 1024;
