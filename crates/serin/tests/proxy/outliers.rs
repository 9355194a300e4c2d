//! Outlier detection: who misbehaves gets no more requests for a while. Serin and Envoy alike.

use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nbad";

#[test]
fn an_endpoint_that_errs_is_ejected_and_taken_back() {
    let (good, bad) = (Backend::answering(ok("good")).unwrap(), Backend::answering(BAD).unwrap());
    let mut cluster = cluster("a", &[good.address(), bad.address()]);
    cluster["outlier_detection"] = json!({"consecutive_5xx": 3, "interval": "0.2s", "base_ejection_time": "1s",
        "max_ejection_percent": 50});
    cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster])).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    let mut ask = || client.get("/", &[]).unwrap().status;
    let ejected = |n: u64| {
        let there = || (proxy.stat("cluster.a.outlier_detection.ejections_active") == n).then_some(());
        wait_until(Duration::from_secs(10), there).unwrap();
    };

    let first: Vec<u16> = (0..6).map(|_| ask()).collect();
    assert_eq!(first.iter().filter(|s| **s == 503).count(), 3, "one after the other: {first:?}");
    ejected(1);
    assert!(proxy.page("/clusters").unwrap().1.contains("health_flags::/failed_outlier_check"));
    assert!((0..20).all(|_| ask() == 200));
    ejected(0);
    // The count is that of the main thread; workers hear of it a moment later.
    wait_until(Duration::from_secs(10), || (ask() == 503).then_some(())).unwrap();
    let again: Vec<u16> = (0..2).map(|_| ask()).collect();
    assert_eq!(again.iter().filter(|s| **s == 503).count(), 1, "it is back: {again:?}");
    assert_eq!(proxy.stat("cluster.a.outlier_detection.ejections_enforced_consecutive_5xx"), 1);
}

/// No more than the share that may be: of two endpoints that both fail, one stays.
#[test]
fn not_everyone_is_ejected() {
    let (one, other) = (Backend::answering(BAD).unwrap(), Backend::answering(BAD).unwrap());
    let mut cluster = cluster("a", &[one.address(), other.address()]);
    cluster["outlier_detection"] =
        json!({"consecutive_5xx": 2, "interval": "10s", "base_ejection_time": "60s", "max_ejection_percent": 50});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster])).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    let mut overflow = || {
        assert_eq!(client.get("/", &[]).unwrap().status, 503);
        (proxy.stat("cluster.a.outlier_detection.ejections_overflow") > 0).then_some(())
    };
    wait_until(Duration::from_secs(10), &mut overflow).unwrap();
    assert_eq!(proxy.stat("cluster.a.outlier_detection.ejections_active"), 1);
}

/// Public reports: one host too many was ejected, and the last one of small clusters. Hosts, those that fail, the limit and whether one
/// may always be, and how many are ejected in the end.
#[test]
fn the_share_of_ejected_hosts_is_never_passed() {
    for (hosts, bad, percent, always, expected) in [
        (1, 1, None, false, 0),
        (2, 2, None, false, 0),
        (3, 2, None, false, 0),
        (3, 2, Some(50), false, 1),
        (3, 3, Some(67), false, 2),
        (10, 5, Some(25), false, 2),
        (2, 2, None, true, 1),
        (1, 1, Some(0), true, 1),
    ] {
        let backends: Vec<Backend> = (0..hosts)
            .map(|n| Backend::answering(if n < bad { BAD.to_owned() } else { ok("good") }).unwrap())
            .collect();
        let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
        let mut cluster = cluster("a", &addresses);
        cluster["outlier_detection"] = json!({"consecutive_5xx": 2, "interval": "10s", "base_ejection_time": "60s",
            "enforcing_success_rate": 0, "always_eject_one_host": always});
        if let Some(percent) = percent {
            cluster["outlier_detection"]["max_ejection_percent"] = json!(percent);
        }
        cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
        let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster])).unwrap();
        let mut client = Client::new(proxy.listener("main").unwrap());
        // As many as it takes for every host that is left to fail often enough, and once more.
        (0..hosts * 8).for_each(|_| _ = client.get("/", &[]).unwrap());
        let ejected = |n: u64| (proxy.stat("cluster.a.outlier_detection.ejections_active") == n).then_some(());
        let case = format!("{bad} of {hosts} hosts fail, at most {percent:?} %, always one: {always}");
        wait_until(Duration::from_secs(10), || ejected(expected)).unwrap_or_else(|e| panic!("{case}: {e}"));
        std::thread::sleep(Duration::from_millis(300));
        assert!(ejected(expected).is_some(), "{case}");
    }
}
