//! The four cells: HTTP/1 and HTTP/2 on either side, and gRPC with its trailers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};
use tokio::net::{TcpListener, TcpStream};

use super::{SERIN, ok};

pub(super) fn h2_cluster(name: &str, address: SocketAddr) -> Value {
    let mut cluster = cluster(name, &[address]);
    cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}});
    cluster
}

/// An HTTP/2 server that echoes bodies, whole at the end when asked to be silent until then, and ends with a trailer.
pub(super) async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(echo(request, respond));
                }
            });
        }
    });
    address
}

async fn echo(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let silent = request.headers().contains_key("x-silent");
    let status = request.headers().get("x-status").cloned();
    let mut body = request.into_body();
    let response = http::Response::builder()
        .header("x-authority", host)
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut send = respond.send_response(response, false).unwrap();
    let mut kept = Vec::new();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        if silent {
            kept.extend_from_slice(&data);
            continue;
        }
        send.reserve_capacity(data.len());
        send.send_data(data, false).unwrap();
    }
    if silent {
        send.send_data(kept.into(), false).unwrap();
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.unwrap_or(http::HeaderValue::from_static("0")));
    send.send_trailers(trailers).unwrap();
}

async fn h2_request(
    address: SocketAddr,
    request: http::Request<()>,
    body: Bytes,
) -> (http::Response<Vec<u8>>, Option<http::HeaderMap>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let (response, mut upload) = send.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        upload.send_data(body, true).unwrap();
    }
    let (parts, mut stream) = response.await.unwrap().into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        let _ = stream.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap();
    (http::Response::from_parts(parts, bytes), trailers)
}

pub(super) fn request(method: &str, address: SocketAddr) -> http::Request<()> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://{address}/path?q=1"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap()
}

/// What outlier detection and load reports are told: unavailable is an error, not found is none.
#[tokio::test]
async fn a_call_counts_by_what_its_trailers_say() {
    let echo = echo_server().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "h2"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[h2_cluster("h2", echo)])).unwrap();
    let address = proxy.listener("main").unwrap();
    for status in ["0", "5", "14"] {
        let mut call = request("POST", address);
        call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        call.headers_mut().insert("x-status", status.parse().unwrap());
        let (response, trailers) = h2_request(address, call, Bytes::from_static(b"call")).await;
        assert_eq!((response.status().as_u16(), &trailers.unwrap()["grpc-status"]), (200, &status.parse().unwrap()));
    }
    let counted = || {
        let (_, page) = proxy.page("/clusters").unwrap();
        let of = |name: &str| page.lines().any(|l| l == format!("h2::{echo}::{name}"));
        (of("rq_success::2") && of("rq_error::1")).then_some(())
    };
    wait_until(Duration::from_secs(10), counted).unwrap();
}

#[tokio::test]
async fn all_four_cells_carry_bodies() {
    let echo = echo_server().await;
    let plain = Backend::answering(ok("from http/1")).unwrap();
    let routes = json!([
        {"match": {"prefix": "/path"}, "route": {"cluster": "h2"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "h1"}},
    ]);
    let config = bootstrap(&routes, &[h2_cluster("h2", echo), cluster("h1", &[plain.address()])]);
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let address = proxy.listener("main").unwrap();

    let body = Bytes::from(vec![b'x'; 200_000]);
    let (response, trailers) = h2_request(address, request("POST", address), body.clone()).await;
    assert_eq!(response.status(), 200);
    assert!(response.body() == &body, "{} bytes came back", response.body().len());
    assert_eq!(trailers.unwrap()["grpc-status"], "0");

    let to_h1 = http::Request::builder()
        .uri(format!("http://{address}/h1"))
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (response, _) = h2_request(address, to_h1, Bytes::new()).await;
    assert_eq!(response.body(), b"from http/1");
    let seen = String::from_utf8(plain.take()).unwrap();
    assert!(seen.starts_with("GET /h1 HTTP/1.1\r\n") && seen.contains("cookie: a=1; b=2\r\n"), "{seen}");

    let sent = body.clone();
    let from_h1 = tokio::task::spawn_blocking(move || {
        Client::new(address).request("POST", "/path", &[("host", "named")], &sent).unwrap()
    });
    let response = from_h1.await.unwrap();
    assert_eq!((response.status, response.header("x-authority")), (200, Some("named")));
    assert!(response.body == body, "{} bytes came back", response.body.len());
}

/// A client that gives a stream up, or goes away, frees what is held upstream for it.
#[tokio::test]
async fn a_cancelled_stream_is_cancelled_upstream() {
    let hanging =
        Backend::scripted(|stream, seen| while serin_testkit::backend::read(stream, &mut Vec::new(), seen) > 0 {})
            .unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "60s"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[cluster("a", &[hanging.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let active = async |n: u64| {
        for _ in 0..500 {
            if proxy.stat("cluster.a.upstream_rq_active") == n {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {n} requests in flight");
    };
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let running = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let (first, mut reset) = send.send_request(request("GET", address), true).unwrap();
    let mut send = send.ready().await.unwrap();
    let (second, _stream) = send.send_request(request("GET", address), true).unwrap();
    active(2).await;
    reset.send_reset(h2::Reason::CANCEL);
    drop(first);
    active(1).await;
    running.abort();
    drop((second, send));
    active(0).await;
}

/// An upstream that says 204 and sends a body all the same: nothing of it reaches an HTTP/1 client.
#[tokio::test]
async fn a_body_where_none_may_be_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = http::Response::builder().status(204).body(()).unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                let _ = send.send_data(Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"), true);
            }
        }
    });
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "h2"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[h2_cluster("h2", upstream)])).unwrap();
    let address = proxy.listener("main").unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::new(address);
        [client.get("/1", &[]).unwrap(), client.get("/2", &[]).unwrap()]
    });
    for response in asked.await.unwrap() {
        assert_eq!((response.status, response.text().as_str()), (204, ""));
    }
}

#[tokio::test]
async fn targets_are_checked_as_on_http1() {
    let plain = Backend::answering(ok("up")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[plain.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    for (method, target, status) in [("GET", "/a\\b", 400), ("TRACE", "/", 405), ("GET", "/fine", 200)] {
        let request = http::Request::builder().method(method).uri(format!("http://{address}{target}")).body(());
        let (response, _) = h2_request(address, request.unwrap(), Bytes::new()).await;
        assert_eq!(response.status(), status, "{method} {target}");
    }
    assert_eq!(String::from_utf8(plain.take()).unwrap().matches("HTTP/1.1\r\n").count(), 1);
}

#[tokio::test]
async fn a_grpc_call_that_cannot_be_served_gets_a_grpc_status() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "gone"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[h2_cluster("gone", gone)])).unwrap();
    let address = proxy.listener("main").unwrap();
    let call = http::Request::builder()
        .method("POST")
        .uri(format!("http://{address}/pkg.Service/Method"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, _) = h2_request(address, call, Bytes::new()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
}
