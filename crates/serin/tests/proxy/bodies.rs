//! Which bodies there are, which are sent again, and which there must not be.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::{Client, read_response};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

#[test]
fn answers_without_a_body_have_none() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nx-from: upstream\r\n\r\n").unwrap();
    let routes = json!([
        {"match": {"prefix": "/204"}, "direct_response": {"status": 204, "body": {"inline_string": "hidden"}}},
        {"match": {"prefix": "/304"}, "direct_response": {"status": 304, "body": {"inline_string": "hidden"}}},
        {"match": {"prefix": "/text"}, "direct_response": {"status": 200, "body": {"inline_bytes": "/wD+"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
    ]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    for path in ["/204", "/304"] {
        let response = client.get(path, &[]).unwrap();
        assert_eq!((response.status.to_string().as_str(), response.header("content-length")), (&path[1..], None));
    }
    assert_eq!(client.get("/text", &[]).unwrap().body, [0xff, 0x00, 0xfe], "bytes that are no text");
    let local = client.request("HEAD", "/text", &[], b"").unwrap();
    assert_eq!(local.header("content-length"), Some("3"));
    let unknown = client.request("HEAD", "/", &[], b"").unwrap();
    assert_eq!((unknown.header("x-from"), unknown.header("content-length")), (Some("upstream"), None));
}

/// A backend that answers 503 to all but every third request, each with its whole body.
fn every_third_works(body: usize) -> Backend {
    let count = AtomicUsize::new(0);
    Backend::scripted(move |stream, seen| {
        let mut buffer = Vec::new();
        while read(stream, &mut buffer, seen) > 0 {
            if head_end(&buffer).is_none_or(|end| buffer.len() < end + body) {
                continue;
            }
            buffer.clear();
            let works = count.fetch_add(1, Relaxed) % 3 == 2;
            let answer = if works { ok("third") } else { ok("no").replace("200 OK", "503 No") };
            let _ = stream.write_all(answer.as_bytes());
        }
    })
    .unwrap()
}

/// A proxy that tries every 5xx up to three more times.
fn retrying(backend: &Backend) -> (Proxy, Client) {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a",
        "retry_policy": {"retry_on": "5xx", "num_retries": 3}}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let client = Client::new(proxy.listener("main").unwrap());
    (proxy, client)
}

#[test]
fn a_short_body_is_sent_again_whole() {
    let body: String = (0..20_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    let backend = every_third_works(body.len());
    let (proxy, mut client) = retrying(&backend);
    let response = client.request("POST", "/", &[], body.as_bytes()).unwrap();
    assert_eq!(response.text(), "third");
    let seen = String::from_utf8(backend.take()).unwrap();
    assert_eq!((seen.matches("POST / ").count(), seen.matches(&body).count()), (3, 3));
    assert_eq!(proxy.stat("cluster.a.upstream_rq_retry"), 2);
    assert_eq!(proxy.stat("cluster.a.upstream_rq_active"), 0);
}

/// A body longer than what is kept goes out once: the answer to it is final, and none of it is sent twice.
#[test]
fn a_long_body_is_not_sent_again() {
    let body = "x".repeat(3_000_000);
    let backend = every_third_works(body.len());
    let (proxy, mut client) = retrying(&backend);
    let response = client.request("POST", "/", &[], body.as_bytes()).unwrap();
    assert_eq!(response.status, 503);
    let seen = backend.take();
    let (head, sent) = seen.split_at(head_end(&seen).unwrap());
    assert!(head.starts_with(b"POST / "));
    assert!(sent.len() >= body.len() && sent.iter().filter(|b| **b == b'x').count() == body.len());
    assert_eq!(proxy.stat("cluster.a.upstream_rq_retry"), 0);
}

/// Envoy goes on reading until its buffer is full, so it has the whole of a small body; a larger one waits there as here.
#[test]
fn an_upstream_that_takes_nothing_of_a_body_is_given_up() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while head_end(&buffer).is_none() {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(60));
    })
    .unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "0.5s"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let mut stream = TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
    let length = 64 << 20;
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").unwrap();
    let mut writing = stream.try_clone().unwrap();
    std::thread::spawn(move || while writing.write_all(&[b'a'; 65536]).is_ok() {});
    let answer = read_response(&mut stream, false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (504, "upstream request timeout"));
    assert_eq!(proxy.stat("cluster.a.upstream_rq_timeout"), 1);
}
