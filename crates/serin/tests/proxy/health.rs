//! Active health checks: who fails is left out, and comes back. Serin and Envoy alike.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::Client;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

/// A backend whose health can be switched.
fn patient(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let state = well.clone();
    let backend = Backend::scripted(move |stream, seen| {
        let mut buffer = Vec::new();
        loop {
            while head_end(&buffer).is_none() {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            let check = buffer.starts_with(b"GET /healthz");
            buffer.clear();
            let ill = check && !state.load(Relaxed);
            let answer = if ill { ok("ill").replace("200", "503") } else { ok(name) };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
    .unwrap();
    (backend, well)
}

#[test]
fn who_fails_is_left_out_and_comes_back() {
    let ((one, _), (two, state)) = (patient("one"), patient("two"));
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut cluster = cluster("a", &[one.address(), two.address()]);
    cluster["health_checks"] = json!([{"timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 2, "healthy_threshold": 2, "event_log_path": log.path(),
        "http_health_check": {"path": "/healthz"}}]);
    // Envoy gathers changes of health for a second, unless told otherwise.
    cluster["common_lb_config"] = json!({"update_merge_window": "0s"});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster])).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    let mut shares = |count: usize| {
        let answers = (0..count).map(|_| client.get("/", &[]).unwrap().text());
        answers.filter(|text| text == "two").count()
    };
    assert_eq!(shares(20), 10);
    let flags = |ill: bool| {
        let there = || (proxy.page("/clusters").unwrap().1.contains("/failed_active_hc") == ill).then_some(());
        wait_until(Duration::from_secs(10), there).unwrap();
    };
    state.store(false, Relaxed);
    flags(true);
    wait_until(Duration::from_secs(5), || (shares(10) == 0).then_some(())).unwrap();
    assert_eq!(shares(40), 0);
    state.store(true, Relaxed);
    flags(false);
    wait_until(Duration::from_secs(5), || (shares(10) > 0).then_some(())).unwrap();
    assert!(proxy.stat("cluster.a.health_check.failure") >= 1);
    // Envoy writes its files every ten seconds.
    let events = || {
        let text = std::fs::read_to_string(log.path()).ok()?;
        (text.contains("eject_unhealthy_event") && text.contains("add_healthy_event")).then_some(())
    };
    wait_until(Duration::from_secs(15), events).unwrap();
}
