//! Pools with connections over real sockets.

use std::sync::Arc;

use serin_resources::cluster::{Cluster, Discovery};
use serin_traffic::balance::Zones;
use serin_transport::{ByteStream, Listener};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::*;
use crate::runtime::{ClusterRuntime, ClusterState, Endpoints, Host, Permit};
use crate::tls::Offer;
use crate::upstream::{H2Stream, Place, connect, multiplexed};

/// An upstream, and a cluster that leads to it.
struct Fixture {
    listener: Listener,
    cluster: Arc<ClusterRuntime>,
    host: Arc<Host>,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut Cluster)) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let host = Arc::new(Host::new(listener.local_addr().unwrap(), 1));
        let mut config = Cluster::new("a", Discovery::Eds("a".to_owned()));
        change(&mut config);
        let state = Arc::new(ClusterState::new(1, mpsc::unbounded_channel().0));
        let endpoints = Endpoints { members: Vec::new(), overprovisioning: 140 };
        let cluster = ClusterRuntime::new(config, state, endpoints, None, &Zones::default());
        Self { listener, cluster: Arc::new(cluster), host }
    }

    /// A connection, and its other end.
    async fn http1(&self) -> (Box<H1Connection>, ByteStream) {
        let place = self.place(Codec::Http1);
        let made = connect(0, &self.cluster, &place, Permit::uncounted());
        let (made, accepted) = tokio::join!(made, self.listener.accept());
        match made {
            Ok(Upstream::H1(made)) => (made, accepted.unwrap().0),
            _ => panic!("cannot connect"),
        }
    }

    fn place(&self, codec: Codec) -> Place {
        Place { host: self.host.clone(), tls: None, name: None, offer: Offer::Http(codec) }
    }

    fn http2(&self) -> H2Connection {
        multiplexed(0, self.cluster.clone(), self.place(Codec::Http2), Permit::uncounted())
    }

    fn open(&self) -> u64 {
        self.host.stats.get(crate::metric::host::CX_ACTIVE)
    }
}

fn taken(pool: &HostPool) -> Option<Box<H1Connection>> {
    match pool.checkout(Codec::Http1)? {
        Upstream::H1(connection) => Some(connection),
        Upstream::H2(_) => panic!("asked for HTTP/1"),
    }
}

/// Waits until the socket of the connection has seen what its other end did.
async fn seen(connection: &H1Connection) {
    std::future::poll_fn(|cx| connection.reader.socket.poll_read_ready(cx)).await.unwrap();
}

#[tokio::test]
async fn the_newest_connection_is_used_first() {
    let fixture = Fixture::new(|_| {});
    let pool = HostPool::default();
    let ((mut first, _a), (mut second, _b)) = (fixture.http1().await, fixture.http1().await);
    (first.requests, second.requests) = (1, 2);
    pool.put(first);
    pool.put(second);
    let taken = [taken(&pool).unwrap(), taken(&pool).unwrap()];
    assert_eq!(taken.map(|connection| connection.requests), [2, 1]);
    assert!(pool.checkout(Codec::Http1).is_none() && pool.checkout(Codec::Http2).is_none());
    assert_eq!(fixture.open(), 0, "connections that are dropped are not counted");
}

/// A connection that was closed by its other end, or on which something came that nobody asked for, is not used again.
#[tokio::test]
async fn what_is_not_quiet_is_not_used() {
    let fixture = Fixture::new(|_| {});
    let pool = HostPool::default();
    let (mut good, _stays) = fixture.http1().await;
    good.requests = 7;
    let (closed, end) = fixture.http1().await;
    drop(end);
    seen(&closed).await;
    let (noisy, mut end) = fixture.http1().await;
    end.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    seen(&noisy).await;
    [good, closed, noisy].into_iter().for_each(|connection| pool.put(connection));
    assert_eq!(fixture.open(), 3);
    let used = taken(&pool).unwrap();
    assert_eq!(used.requests, 7);
    assert!(taken(&pool).is_none());
    assert_eq!(fixture.open(), 1);
}

#[tokio::test]
async fn sweeping_closes_what_is_idle_and_what_nobody_needs() {
    let fixture = Fixture::new(|config| config.idle_timeout = Duration::from_secs(60));
    let mut pools = Pools::default();
    let ((fresh, _a), (mut old, _b)) = (fixture.http1().await, fixture.http1().await);
    old.idle_since -= Duration::from_secs(61);
    let pool = pools.of(fixture.host.id);
    pool.put(old);
    pool.put(fresh);
    pools.sweep(&[fixture.host.id].into());
    assert_eq!(fixture.open(), 1);
    assert!(Rc::ptr_eq(&pool, &pools.of(fixture.host.id)));
    pools.sweep(&HashSet::new());
    assert_eq!(fixture.open(), 0);
    assert!(!Rc::ptr_eq(&pool, &pools.of(fixture.host.id)));
}

/// Without an idle timeout a connection stays however long it is idle.
#[tokio::test]
async fn no_idle_timeout_is_no_limit() {
    let fixture = Fixture::new(|config| config.idle_timeout = Duration::ZERO);
    let pool = HostPool::default();
    let (mut old, _end) = fixture.http1().await;
    old.idle_since -= Duration::from_secs(1_000_000);
    pool.put(old);
    pool.sweep(Instant::now());
    assert!(taken(&pool).is_some());
}

#[test]
fn streams_fill_the_oldest_http2_connection_with_room() {
    local(async {
        let fixture = Fixture::new(|config| config.max_requests_per_connection = Some(STREAMS as u32 + 1));
        let pool = HostPool::default();
        let (first, second) = (fixture.http2(), fixture.http2());
        pool.share(first.clone());
        pool.share(second.clone());
        let chosen = || match pool.checkout(Codec::Http2) {
            Some(Upstream::H2(connection)) => Rc::ptr_eq(&connection.usage, &first.usage),
            _ => panic!("no connection"),
        };
        let mut streams: Vec<H2Stream> = (0..STREAMS - 1).map(|_| H2Stream::open(&first)).collect();
        assert!(chosen());
        streams.push(H2Stream::open(&first));
        assert!(!chosen(), "it has as many streams as may be");
        drop(streams.pop());
        assert!(chosen());
        let last = H2Stream::open(&first);
        // It has had all requests that it may have: nothing puts it back.
        drop((last, streams));
        assert!(!chosen());
        second.usage.retire();
        assert!(pool.checkout(Codec::Http2).is_none() && pool.any().is_none());
        assert!(pool.http2.borrow().is_empty());
        assert!(!first.session.is_open(), "a connection that is not kept must end");
    });
}

/// Runs where tasks of one thread can be made.
fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
