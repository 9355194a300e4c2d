//! TCP proxy: a client's connection is joined to an endpoint's, and bytes pass both ways until both ends are done.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;
use serin_resources::tcp_proxy::TcpProxy;
use serin_traffic::balance::LbContext;
use serin_traffic::outcome::Outcome;
use serin_traffic::split::Split;
use serin_transport::{ByteStream, ReadHalf, WriteHalf, buffers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::metric::{self, tcp as counter};
use crate::timer::Timers;
use crate::tls::Offer;
use crate::upstream::{Gauge, Place, open};
use crate::worker::{ConnectionGuard, LocalCluster, Worker};

/// Serves one connection until it ends.
pub(crate) async fn connection(worker: Rc<Worker>, stream: ByteStream, proxy: &TcpProxy, guard: &ConnectionGuard) {
    let count = |index: usize, amount: u64| guard.chain.stats.add(worker.id, index, amount);
    let split = Split::new(proxy.clusters.iter().map(|(_, weight)| *weight));
    let drawn = proxy.clusters.get(split.pick(worker.random()));
    let cluster = drawn.and_then(|(name, _)| worker.cluster(&worker.snapshot(), name));
    let Some(cluster) = cluster else { return count(counter::CX_NO_ROUTE, 1) };
    let Some((upstream, gauge)) = reach(&worker, &cluster, proxy.connect_attempts).await else { return };
    let (from_client, to_client) = stream.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    let (received, sent) = (Cell::new(0), Cell::new(0));
    let timers = Timers::new();
    {
        let up = relay(from_client, to_upstream, &timers, &received);
        let down = relay(from_upstream, to_client, &timers, &sent);
        let mut both = std::pin::pin!(async { tokio::join!(up, down) });
        let limit = proxy.idle_timeout;
        loop {
            let before = timers.last();
            let until = (!limit.is_zero()).then(|| before + limit);
            if timers.until(until, both.as_mut()).await.is_some() {
                break;
            }
            if timers.last() == before {
                count(counter::IDLE_TIMEOUT, 1);
                break;
            }
        }
    }
    count(counter::RECEIVED, received.get());
    count(counter::SENT, sent.get());
    drop(gauge);
}

/// Connects to an endpoint of the cluster, or to another when that fails.
async fn reach(worker: &Rc<Worker>, cluster: &LocalCluster, attempts: u32) -> Option<(ByteStream, Gauge)> {
    for _ in 0..attempts {
        let choice = {
            let mut state = cluster.balancer.borrow_mut();
            cluster.pick(&mut state, &LbContext::default(), cluster, &mut || worker.random())
        };
        let Some(local) = choice.and_then(|c| cluster.hosts.get(c)) else {
            cluster.state.stats.add(worker.id, metric::cluster::CX_NONE_HEALTHY, 1);
            return None;
        };
        let Some(permit) = cluster.permit_connection(false) else {
            cluster.state.stats.add(worker.id, metric::cluster::CX_OVERFLOW, 1);
            return None;
        };
        let tls = choice.and_then(|c| cluster.members.get(c)?.tls.clone());
        let name = tls.as_ref().map(|tls| tls.settings.server_name.as_str()).filter(|name| !name.is_empty());
        let name = name.map(Into::into);
        let place = Place { host: local.host.clone(), tls, name, offer: Offer::Other };
        match open(worker.id, cluster, &place, permit).await {
            Ok(connected) => {
                cluster.note(&local.host, Outcome::Response { status: 200, grpc: None });
                return Some(connected);
            }
            Err(_) => cluster.note(&local.host, Outcome::ConnectFailure),
        }
    }
    None
}

/// Passes bytes on until the sender ends, and then the end. A buffer is there only while bytes are, but for a sender that
/// has many: it keeps a large one.
async fn relay(mut from: ReadHalf, mut to: WriteHalf, timers: &Timers, moved: &Cell<u64>) {
    let mut buffer = BytesMut::new();
    loop {
        if std::future::poll_fn(|cx| from.poll_read_ready(cx)).await.is_err() {
            break;
        }
        if buffer.capacity() == 0 {
            buffer = buffers::take();
        }
        let room = buffer.capacity();
        let Ok(read @ 1..) = from.read_buf(&mut buffer).await else { break };
        timers.tick();
        if to.write_all(&buffer).await.is_err() {
            break;
        }
        moved.set(moved.get() + read as u64);
        buffer.clear();
        if read >= room {
            buffer.reserve(LARGE);
        } else if read < LARGE / 16 {
            buffers::give(std::mem::take(&mut buffer));
        }
    }
    let _ = to.shutdown().await;
}

/// Bytes that are read at once from a sender that has many.
const LARGE: usize = 128 * 1024;
