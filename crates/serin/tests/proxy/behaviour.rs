//! What any proxy must do with an Envoy bootstrap.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::Client;
use serin_testkit::load;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

fn start(routes: &serde_json::Value, clusters: &[serde_json::Value]) -> (Proxy, Client) {
    let proxy = Proxy::start(SERIN, &bootstrap(routes, clusters)).unwrap();
    let client = Client::new(proxy.listener("main").unwrap());
    (proxy, client)
}

#[test]
fn weighted_clusters_share_and_nothing_fails() {
    let (a, b) = (Backend::answering(ok("a")).unwrap(), Backend::answering(ok("b")).unwrap());
    let routes = json!([{"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [
        {"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}}}]);
    let (proxy, _) = start(&routes, &[cluster("a", &[a.address()]), cluster("b", &[b.address()])]);
    let answers = load::burst(proxy.listener("main").unwrap(), "/", 4000, str::to_owned);
    assert_eq!(load::failures(&answers), Vec::<String>::new());
    let hits = answers.iter().filter(|a| matches!(&a.outcome, Ok((_, text)) if text == "b")).count();
    assert!(hits.abs_diff(400) <= 95, "{hits} of 4000 went to b, expected 400 ± 5 × 19");
    assert_eq!(proxy.stat("cluster.b.upstream_rq_total"), hits as u64);
    // A request is counted after its response has left.
    let all = || (proxy.stat("http.main.downstream_rq_2xx") == 4000).then_some(());
    wait_until(Duration::from_secs(10), all).unwrap();
}

#[test]
fn routes_match_in_order_and_rewrite() {
    let backend = Backend::answering(ok("up")).unwrap();
    let routes = json!([
        {"match": {"path": "/exact"}, "redirect": {"path_redirect": "/else", "response_code": "FOUND"}},
        {"match": {"prefix": "/teapot"}, "direct_response": {"status": 418, "body": {"inline_string": "short and stout"}}},
        {"match": {"safe_regex": {"regex": "/v[0-9]+"}}, "route": {"cluster": "a", "prefix_rewrite": "/version"}},
        {"match": {"prefix": "/api/", "headers": [{"name": "x-user", "string_match": {"prefix": "ja"}}],
                   "query_parameters": [{"name": "q", "string_match": {"exact": "a%20b"}}]},
         "route": {"cluster": "a", "prefix_rewrite": "/", "host_rewrite_literal": "inside"},
         "request_headers_to_add": [{"header": {"key": "x-added", "value": "yes"}}],
         "request_headers_to_remove": ["x-gone"],
         "response_headers_to_add": [{"header": {"key": "x-back", "value": "1"}}]},
        {"match": {"path_separated_prefix": "/sep"}, "route": {"cluster": "missing"}},
    ]);
    let (_proxy, mut client) = start(&routes, &[cluster("a", &[backend.address()])]);
    let moved = client.get("/exact?x=1", &[("host", "book.example:81")]).unwrap();
    assert_eq!((moved.status, moved.header("location")), (302, Some("http://book.example:81/else?x=1")));
    let tea = client.get("/teapot/1", &[]).unwrap();
    assert_eq!((tea.status, tea.text().as_str()), (418, "short and stout"));
    assert_eq!(client.get("/v12", &[]).unwrap().status, 200);
    assert!(text(&backend.take()).starts_with("GET /version HTTP/1.1\r\n"));
    assert_eq!(client.get("/v12x", &[]).unwrap().status, 404);
    let headers = [("x-user", "jason"), ("x-gone", "1"), ("X-Kept", "As Is")];
    let api = client.get("/api/list?q=a%20b", &headers).unwrap();
    assert_eq!((api.status, api.header("x-back")), (200, Some("1")));
    let seen = text(&backend.take()).to_ascii_lowercase();
    assert!(seen.starts_with("get /list?q=a%20b http/1.1\r\n"), "{seen}");
    for (part, there) in
        [("host: inside\r\n", true), ("x-added: yes\r\n", true), ("x-gone", false), ("x-kept: as is\r\n", true)]
    {
        assert_eq!(seen.contains(part), there, "{part} in {seen}");
    }
    assert_eq!(client.get("/api/list?q=other", &headers).unwrap().status, 404);
    assert_eq!(client.get("/separate", &[]).unwrap().status, 404);
    assert_eq!(client.get("/sep/x", &[]).unwrap().status, 503);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A backend that answers its n-th request by `answers[n]`, the last one from then on.
fn sequence(answers: Vec<String>) -> (Backend, std::sync::Arc<AtomicUsize>) {
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let backend = Backend::scripted(move |stream, seen| {
        let mut buffer = Vec::new();
        loop {
            while head_end(&buffer).is_none() {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            buffer.clear();
            let turn = counter.fetch_add(1, Relaxed);
            let answer = answers.get(turn).or(answers.last()).unwrap();
            if answer == "hang" {
                std::thread::sleep(Duration::from_secs(3));
                return;
            }
            if answer == "close" || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (backend.unwrap(), count)
}

#[test]
fn retries_follow_their_policy() {
    let unavailable = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
    let retry = |on: &str| json!({"retry_on": on, "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    for (answers, on, status, tries) in [
        (vec![unavailable.clone(), unavailable.clone(), ok("x")], "5xx", 200, 3),
        (vec![unavailable.clone()], "5xx", 503, 3),
        (vec![unavailable.clone(), ok("x")], "connect-failure", 503, 1),
        (vec!["close".to_owned(), ok("x")], "reset", 200, 2),
        (vec!["HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n".to_owned(), ok("x")], "retriable-4xx", 200, 2),
    ] {
        let (backend, count) = sequence(answers);
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "retry_policy": retry(on)}}]);
        let (proxy, mut client) = start(&routes, &[cluster("a", &[backend.address()])]);
        let response = client.request("POST", "/", &[], b"a body that is sent again").unwrap();
        assert_eq!((response.status, count.load(Relaxed)), (status, tries), "{on}");
        assert_eq!(proxy.stat("cluster.a.upstream_rq_retry"), tries as u64 - 1);
        let sent = text(&backend.take()).matches("a body that is sent again").count();
        assert!(sent <= tries && sent >= 1, "{sent} bodies in {tries} tries");
    }
}

#[test]
fn a_refused_connection_is_retried_elsewhere() {
    let backend = Backend::answering(ok("alive")).unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let policy = json!({"retry_on": "connect-failure", "num_retries": 3, "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "retry_policy": policy}}]);
    let (_proxy, mut client) = start(&routes, &[cluster("a", &[gone, backend.address()])]);
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).unwrap().text(), "alive");
    }
}

#[test]
fn time_runs_out_for_a_try_and_for_the_whole() {
    let (backend, count) = sequence(vec!["hang".to_owned(), ok("second")]);
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"});
    let routes = json!([
        {"match": {"prefix": "/try"}, "route": {"cluster": "a", "timeout": "5s", "retry_policy": policy}},
        {"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "0.3s"}},
    ]);
    let (hanging, _) = sequence(vec!["hang".to_owned()]);
    let (_proxy, mut client) =
        start(&routes, &[cluster("a", &[backend.address()]), cluster("b", &[hanging.address()])]);
    assert_eq!(client.get("/try", &[]).unwrap().text(), "second");
    assert_eq!(count.load(Relaxed), 2);
    let late = client.get("/", &[]).unwrap();
    assert_eq!((late.status, late.text().as_str()), (504, "upstream request timeout"));
}

#[test]
fn faults_are_injected() {
    let backend = Backend::answering(ok("real")).unwrap();
    let fault = |config: serde_json::Value| {
        let mut config = config;
        config["@type"] = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault".into();
        json!({"envoy.filters.http.fault": config})
    };
    let all = json!({"numerator": 100, "denominator": "HUNDRED"});
    let routes = json!([
        {"match": {"prefix": "/abort"}, "route": {"cluster": "a"},
         "typed_per_filter_config": fault(json!({"abort": {"http_status": 418, "percentage": all}}))},
        {"match": {"prefix": "/delay"}, "route": {"cluster": "a"},
         "typed_per_filter_config": fault(json!({"delay": {"fixed_delay": "3s", "percentage": all}}))},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]);
    let (proxy, mut client) = start(&routes, &[cluster("a", &[backend.address()])]);
    let aborted = client.get("/abort", &[]).unwrap();
    assert_eq!((aborted.status, aborted.text().as_str()), (418, "fault filter abort"));
    assert!(backend.take().is_empty());
    let delayed = std::thread::spawn(move || client.get("/delay", &[]).unwrap().text());
    let injected = || Some(()).filter(|()| proxy.stat("http.main.fault.delays_injected") == 1);
    wait_until(Duration::from_secs(10), injected).unwrap();
    let mut other = Client::new(proxy.listener("main").unwrap());
    assert_eq!(other.get("/overtakes", &[]).unwrap().text(), "real");
    assert!(text(&backend.take()).starts_with("GET /overtakes"), "the delayed request did not wait");
    assert_eq!(delayed.join().unwrap(), "real");
    assert!(text(&backend.take()).starts_with("GET /delay"));
    assert_eq!((proxy.stat("http.main.fault.aborts_injected"), proxy.stat("http.main.fault.delays_injected")), (1, 1));
}

#[test]
fn large_bodies_pass_both_ways_in_both_framings() {
    let body: String = (0..200_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for answer in [ok(&body), chunked, format!("HTTP/1.0 200 OK\r\n\r\n{body}")] {
        let closing = answer.starts_with("HTTP/1.0");
        let backend = Backend::scripted(move |stream, seen| {
            let mut buffer = Vec::new();
            while !buffer.ends_with(b"end of body") {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            if !closing {
                read(stream, &mut buffer, seen);
            }
        })
        .unwrap();
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
        let (_proxy, mut client) = start(&routes, &[cluster("a", &[backend.address()])]);
        let sent = format!("{body}end of body");
        let response = client.request("PUT", "/", &[], sent.as_bytes()).unwrap();
        assert!(response.body == body.as_bytes(), "{} bytes came back", response.body.len());
        assert!(text(&backend.take()).contains(&sent));
    }
}

#[test]
fn websockets_pass_and_nothing_is_sent_ahead_of_the_101() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while head_end(&buffer).is_none() {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        assert_eq!(head_end(&buffer), Some(buffer.len()), "bytes were sent ahead");
        let head = text(&buffer).to_ascii_lowercase();
        if !(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n")) {
            return;
        }
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nhello ");
        let mut echo = [0u8; 64];
        while let Ok(n) = stream.read(&mut echo) {
            if n == 0 || stream.write_all(&echo[..n]).is_err() {
                return;
            }
        }
    })
    .unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let (proxy, _) = start(&routes, &[cluster("a", &[backend.address()])]);
    let mut stream = std::net::TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut got = Vec::new();
    let mut chunk = [0u8; 1024];
    while !got.ends_with(b"hello ") {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "{}", text(&got));
        got.extend_from_slice(&chunk[..n]);
    }
    assert!(text(&got).starts_with("HTTP/1.1 101"), "{}", text(&got));
    stream.write_all(b"ping").unwrap();
    let mut echo = [0u8; 4];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
}
