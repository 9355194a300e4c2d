//! Circuit breakers admit exactly as many as they should, whatever worker a request comes to.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::read_response;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

/// A backend that answers nobody until it is told to.
struct Holding {
    backend: Backend,
    seen: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

impl Holding {
    fn start() -> Self {
        let (seen, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, released) = (seen.clone(), open.clone());
        let backend = Backend::scripted(move |stream, record| {
            let mut buffer = Vec::new();
            loop {
                while head_end(&buffer).is_none() {
                    if read(stream, &mut buffer, record) == 0 {
                        return;
                    }
                }
                buffer.clear();
                counted.fetch_add(1, Relaxed);
                while !released.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if stream.write_all(ok("x").as_bytes()).is_err() {
                    return;
                }
            }
        })
        .unwrap();
        Self { backend, seen, open }
    }
}

fn start(holding: &Holding, options: &[&str], thresholds: &Value) -> (Proxy, SocketAddr) {
    let mut cluster = cluster("a", &[holding.backend.address()]);
    cluster["circuit_breakers"] = json!({"thresholds": [thresholds]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "20s"}}]);
    let proxy = Proxy::with(SERIN, options, &bootstrap(&routes, &[cluster])).unwrap();
    let address = proxy.listener("main").unwrap();
    (proxy, address)
}

/// Asks that often at once, each on a connection of its own.
fn ask(address: SocketAddr, count: usize) -> Vec<std::thread::JoinHandle<u16>> {
    let ready = Arc::new(Barrier::new(count));
    (0..count)
        .map(|_| {
            let ready = ready.clone();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                ready.wait();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
                read_response(&mut stream, false).unwrap().status
            })
        })
        .collect()
}

fn statuses(asked: Vec<std::thread::JoinHandle<u16>>) -> (usize, usize) {
    let all: Vec<u16> = asked.into_iter().map(|t| t.join().unwrap()).collect();
    let count = |status| all.iter().filter(|s| **s == status).count();
    (count(200), count(503))
}

#[test]
fn a_limit_of_n_admits_exactly_n() {
    let holding = Holding::start();
    let (proxy, address) = start(&holding, &[], &json!({"max_requests": 7}));
    for round in 1..=3 {
        holding.open.store(false, Relaxed);
        let asked = ask(address, 30);
        let refused = || (proxy.stat("cluster.a.upstream_rq_pending_overflow") == 23 * round).then_some(());
        wait_until(Duration::from_secs(10), refused).unwrap();
        assert_eq!(proxy.stat("cluster.a.upstream_rq_active"), 7);
        holding.open.store(true, Relaxed);
        assert_eq!(statuses(asked), (7, 23));
        assert_eq!(holding.seen.load(Relaxed), 7 * round as usize);
    }
}

/// The example of Istio's documentation: one connection, one request that waits for it, no more.
#[test]
fn one_waits_for_the_only_connection_and_others_are_refused() {
    let holding = Holding::start();
    // With one worker: each worker that has no connection makes one, whatever the limit.
    let thresholds = json!({"max_connections": 1, "max_pending_requests": 1});
    let (proxy, address) = start(&holding, &["--concurrency", "1"], &thresholds);
    let reaches = |stat: &str, n: u64| {
        let there = || (proxy.stat(&format!("cluster.a.{stat}")) == n).then_some(());
        wait_until(Duration::from_secs(20), there).unwrap_or_else(|e| panic!("{stat}: {e}"));
    };
    let first = ask(address, 1);
    reaches("upstream_rq_active", 1);
    let waiting = ask(address, 1);
    reaches("upstream_rq_pending_active", 1);
    let refused = ask(address, 5);
    reaches("upstream_rq_pending_overflow", 5);
    assert_eq!(statuses(refused), (0, 5));
    holding.open.store(true, Relaxed);
    assert_eq!(statuses(first), (1, 0));
    assert_eq!(statuses(waiting), (1, 0), "whoever waited was served");
    assert_eq!(proxy.stat("cluster.a.upstream_rq_pending_active"), 0);
}
