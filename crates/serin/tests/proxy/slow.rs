//! Peers that are slow, silent or half gone: rows C6, C9 and D9 of the hostile corpus, which need time and not bytes.
//! Serin and Envoy alike.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::{Client, read_response};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::http2::{echo_server, h2_cluster, request};
use super::{SERIN, ok};

/// A proxy in front of one cluster whose connection manager has these further fields.
fn start(cluster: Value, route: &Value, manager: &Value) -> (Proxy, SocketAddr) {
    let routes = json!([{"match": {"prefix": "/"}, "route": route}]);
    let mut config = bootstrap(&routes, &[cluster]);
    let typed = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    for (name, value) in manager.as_object().unwrap() {
        typed[name] = value.clone();
    }
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let address = proxy.listener("main").unwrap();
    (proxy, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Writes a byte now and then until the other end has had enough.
fn drip(stream: &TcpStream) {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while stream.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// C6: a byte now and then does not keep a head from being late.
#[test]
fn a_head_that_never_ends_is_given_up() {
    let backend = Backend::answering(ok("x")).unwrap();
    let manager = json!({"request_headers_timeout": "0.5s"});
    let (proxy, address) = start(cluster("a", &[backend.address()]), &json!({"cluster": "a"}), &manager);
    let mut stream = connect(address);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
    drip(&stream);
    assert_eq!(read_response(&mut stream, false).unwrap().status, 408);
    assert_eq!(proxy.stat("http.main.downstream_rq_header_timeout"), 1);
    assert_eq!(backend.take(), b"");
}

/// C6: a body that stops in the middle.
#[test]
fn a_body_that_stops_is_given_up() {
    let backend = Backend::answering(ok("x")).unwrap();
    let manager = json!({"stream_idle_timeout": "0.5s"});
    let (proxy, address) = start(cluster("a", &[backend.address()]), &json!({"cluster": "a"}), &manager);
    let mut stream = connect(address);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc").unwrap();
    assert_eq!(read_response(&mut stream, false).unwrap().status, 408);
    assert_eq!(proxy.stat("cluster.a.upstream_rq_active"), 0);
}

/// The times of the request and of its tries begin when all of it was received, not while it is on its way.
#[test]
fn a_long_upload_does_not_use_up_the_time_for_its_answer() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while !buffer.ends_with(b"the end") {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        let _ = stream.write_all(ok("all of it").as_bytes());
    })
    .unwrap();
    let policy = json!({"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.3s"});
    let route = json!({"cluster": "a", "timeout": "0.4s", "retry_policy": policy});
    let (proxy, address) = start(cluster("a", &[backend.address()]), &route, &json!({}));
    let mut stream = connect(address);
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 13\r\n\r\nslowly").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    stream.write_all(b"the end").unwrap();
    let answer = read_response(&mut stream, false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "all of it"));
    assert_eq!((proxy.stat("cluster.a.upstream_rq_retry"), proxy.stat("cluster.a.upstream_rq_total")), (0, 1));
}

/// D9: an upstream's head that never ends.
#[test]
fn an_answer_that_never_begins_is_given_up() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while head_end(&buffer).is_none() {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ");
        while stream.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    })
    .unwrap();
    let route = json!({"cluster": "a", "timeout": "0.5s"});
    let (proxy, address) = start(cluster("a", &[backend.address()]), &route, &json!({}));
    assert_eq!(Client::new(address).get("/", &[]).unwrap().status, 504);
    assert_eq!(proxy.stat("cluster.a.upstream_rq_timeout"), 1);
}

/// D9: an answer that stops in the middle is not passed off as whole.
#[test]
fn an_answer_that_stops_is_broken_off() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while head_end(&buffer).is_none() {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        while read(stream, &mut buffer, seen) > 0 {}
    })
    .unwrap();
    let manager = json!({"stream_idle_timeout": "0.5s"});
    let route = json!({"cluster": "a", "timeout": "0s"});
    let (proxy, address) = start(cluster("a", &[backend.address()]), &route, &manager);
    let error = Client::new(address).get("/", &[]).unwrap_err().to_string();
    assert!(error.contains("inside a chunk"), "{error}");
    assert_eq!(proxy.stat("cluster.a.upstream_rq_active"), 0);
}

/// A client that still sends is not silent, however long the server says nothing.
#[tokio::test]
async fn a_stream_is_not_idle_while_one_side_sends() {
    let echo = echo_server().await;
    let manager = json!({"stream_idle_timeout": "1s"});
    let (_proxy, address) = start(h2_cluster("a", echo), &json!({"cluster": "a", "timeout": "0s"}), &manager);
    let (send, connection) =
        h2::client::handshake(tokio::net::TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let mut asked = request("POST", address);
    asked.headers_mut().insert("x-silent", http::HeaderValue::from_static("1"));
    let (response, mut upload) = send.send_request(asked, false).unwrap();
    let mut body = response.await.unwrap().into_body();
    for _ in 0..25 {
        upload.send_data(Bytes::from_static(b"x"), false).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    upload.send_data(Bytes::from_static(b"end"), true).unwrap();
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        received.extend_from_slice(&data.unwrap());
    }
    assert_eq!(received.len(), 28);
}

/// A client that asks and says that it has nothing more to say gets every answer. (Envoy closes at once.)
#[test]
fn what_was_asked_before_a_half_close_is_answered() {
    let backend = Backend::answering(ok("x")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut stream = connect(address);
    stream.write_all(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 3, "{all}");
}

/// C9: what follows a request to upgrade is held back, and is HTTP again when the upstream does not want to.
#[test]
fn bytes_after_a_refused_upgrade_are_http_again() {
    let backend = Backend::answering(ok("no")).unwrap();
    let (_proxy, address) = start(cluster("a", &[backend.address()]), &json!({"cluster": "a"}), &json!({}));
    let upgrade = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut stream = connect(address);
    stream
        .write_all(format!("{upgrade}GET /next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.matches("HTTP/1.1 200 OK").count() <= 2, "{all}");
    let mut stream = connect(address);
    stream.write_all(upgrade.as_bytes()).unwrap();
    stream.write_all(b"\x81\x85\x01\x02\x03\x04ibo\x01\x01").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let seen = String::from_utf8_lossy(&backend.take()).into_owned();
    assert!(!seen.contains('\u{81}') && !seen.contains("ibo"), "{seen}");
    assert_eq!(seen.matches("/chat").count(), 2);
}
