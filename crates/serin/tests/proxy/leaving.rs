//! SIGTERM: requests in flight finish, clients are told to leave, new connections are still served for a while.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::{Client, read_response};
use serin_testkit::process::{terminate, wait_until};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

#[test]
fn a_proxy_that_is_told_to_go_finishes_what_it_began() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        loop {
            while head_end(&buffer).is_none() {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            if buffer.starts_with(b"GET /slow") {
                std::thread::sleep(Duration::from_millis(1500));
            }
            buffer.clear();
            if stream.write_all(ok("done").as_bytes()).is_err() {
                return;
            }
        }
    })
    .unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let mut proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut idle = Client::new(address);
    assert_eq!(idle.get("/", &[]).unwrap().header("connection"), None);
    let mut slow = std::net::TcpStream::connect(address).unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    wait_until(Duration::from_secs(5), || (proxy.stat("cluster.a.upstream_rq_active") == 1).then_some(())).unwrap();
    terminate(proxy.process.id());
    wait_until(Duration::from_secs(5), || proxy.page("/ready").ok().filter(|p| p.0 == 503)).unwrap();
    assert_eq!(proxy.page("/ready").unwrap().1, "DRAINING\n");
    let told = idle.get("/", &[]).unwrap();
    assert_eq!((told.text().as_str(), told.header("connection")), ("done", Some("close")));
    assert_eq!(Client::new(address).get("/", &[]).unwrap().text(), "done");
    assert_eq!(read_response(&mut slow, false).unwrap().text(), "done");
    assert_eq!(proxy.process.exit_code(Duration::from_secs(10)).unwrap(), Some(0));
}

#[test]
fn quitquitquit_ends_it() {
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 204}}]);
    let mut proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[])).unwrap();
    assert_eq!(Client::new(proxy.admin).request("POST", "/quitquitquit", &[], b"").unwrap().text(), "OK\n");
    assert_eq!(proxy.process.exit_code(Duration::from_secs(10)).unwrap(), Some(0));
}

#[test]
fn admin_pages_answer_as_envoys_do() {
    let backend = Backend::answering(ok("x")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut config = bootstrap(&routes, &[cluster("a", &[backend.address()])]);
    config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = json!([{
    "name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": log.path().display().to_string(),
        "log_format": {"text_format_source": {"inline_string":
            "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %REQ(X-NONE)%\n"}},
    }}]);
    let proxy = Proxy::serin(SERIN, &config).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    client.request("POST", "/path?q", &[], b"12345").unwrap();
    let logged = || std::fs::read_to_string(log.path()).ok().filter(|t| !t.is_empty());
    let line = wait_until(Duration::from_secs(5), logged).unwrap();
    assert_eq!(line, "POST /path?q 200 5 1 a -\n");

    for (path, part) in [
        ("/stats", "cluster.a.upstream_rq_2xx: 1"),
        ("/stats?filter=a.upstream_rq_time", "cluster.a.upstream_rq_time: "),
        ("/stats?filter=downstream_rq_time", ".downstream_rq_time: "),
        ("/stats?format=json&filter=upstream_rq_total", "\"cluster.a.upstream_rq_total\""),
        (
            "/stats/prometheus",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"a\"} 1",
        ),
        ("/clusters", "::rq_success::1"),
        ("/clusters?format=json", "\"cluster_statuses\""),
        ("/server_info", "\"state\": \"LIVE\""),
        ("/config_dump", "envoy.admin.v3.ClustersConfigDump"),
        ("/config_dump?resource=static_route_configs", "\"virtual_hosts\""),
        ("/listeners", "main::127.0.0.1:"),
    ] {
        let (status, text) = proxy.page(path).unwrap();
        assert!(status == 200 && text.contains(part), "{path}: {status} {text}");
    }
    assert_eq!(proxy.page("/stats?format=xml").unwrap().0, 400);
}

#[test]
fn a_bootstrap_that_cannot_be_run_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        let file = folder.path().join("bootstrap.yaml");
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(SERIN).args(["proxy", "--bootstrap"]).arg(&file).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = run("static_resources:\n  clusters:\n  - name: a\n    conect_timeout: 1s\n");
    assert!(unknown.contains("conect_timeout") && unknown.contains("bootstrap.yaml"), "{unknown}");
    let refused = run("static_resources:\n  clusters:\n  - name: a\n    lb_policy: CLUSTER_PROVIDED\n");
    assert!(refused.contains("static_resources.clusters[0].lb_policy"), "{refused}");
    let missing = std::process::Command::new(SERIN).args(["proxy", "--bootstrap", "/nowhere.yaml"]).output().unwrap();
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read /nowhere.yaml"));
}

/// `/explain` says what was looked at, what was drawn, and who is left out.
#[test]
fn a_request_is_explained() {
    let backend = Backend::answering(ok("x")).unwrap();
    let mut many = cluster("many", &[backend.address(), "127.0.0.1:9".parse().unwrap()]);
    many["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["health_status"] = json!("UNHEALTHY");
    many["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
    let routes = json!([
        {"match": {"path": "/exact"}, "direct_response": {"status": 204}},
        {"match": {"prefix": "/", "headers": [{"name": "x-internal", "string_match": {"exact": "1"}}]}, "route": {"cluster": "none"}},
        {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [{"name": "many", "weight": 90}, {"name": "none", "weight": 10}]}}},
    ]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[many])).unwrap();
    let explain = |query: &str| {
        let (status, text) = proxy.page(&format!("/explain?{query}")).unwrap();
        (status, serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default())
    };
    let (status, found) = explain("url=http://shop.example/cart&draw=0.95");
    assert_eq!((status, &found["virtual_host"]["by"]), (200, &json!("the domain '*'")));
    assert_eq!(found["routes"][0]["why_not"], "the path does not match");
    assert_eq!(found["routes"][1]["why_not"], "header 'x-internal' does not match");
    assert_eq!(found["routes"][2]["matches"], true);
    let clusters = &found["outcome"]["clusters"];
    assert_eq!((&clusters[0]["percent"], &clusters[1]["drawn"]), (&json!(90.0), &json!(true)));
    assert_eq!(clusters[0]["endpoints"][0]["left_out"], json!(null));
    assert_eq!(clusters[0]["endpoints"][1]["left_out"], "it is not well");
    assert_eq!(explain("url=http://a/x&header=x-internal:1").1["routes"][1]["matches"], true);
    assert_eq!(explain("url=http://a/exact").1["outcome"]["status"], 204);
    assert_eq!(explain("").0, 400);
}
