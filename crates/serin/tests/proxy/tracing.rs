//! Spans over OTLP/gRPC, and traces that go on: what a collector is told by Serin and by Envoy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use serin_telemetry::otlp::{EXPORT, ExportRequest, Span};
use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};
use tokio::net::TcpListener;

use super::http2::h2_cluster;
use super::{SERIN, ok};

type Found = Arc<Mutex<Vec<(String, Span)>>>;

/// A collector: an HTTP/2 server that keeps the spans of every call.
fn collector() -> (SocketAddr, Found) {
    let found = Found::default();
    let kept = found.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(take(request, respond, kept.clone()));
                    }
                });
            }
        });
    });
    (receiver.recv().unwrap(), found)
}

async fn take(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, kept: Found) {
    assert_eq!(request.uri().path(), EXPORT);
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    let message = ExportRequest::decode(bytes.get(5..).unwrap()).unwrap();
    kept.lock().unwrap().extend(message.into_spans());
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut send = respond.send_response(head, false).unwrap();
    send.send_data(Bytes::from_static(&[0, 0, 0, 0, 0]), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

fn start(tracing: &Value, backend: &Backend, collector: SocketAddr) -> (Proxy, Client) {
    start_with(tracing, backend, h2_cluster("spans", collector))
}

fn start_with(tracing: &Value, backend: &Backend, spans: Value) -> (Proxy, Client) {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let mut config = bootstrap(&routes, &[cluster("a", &[backend.address()]), spans]);
    config["node"] = json!({"id": "this-node", "cluster": "these"});
    let chain = &mut config["static_resources"]["listeners"][0]["filter_chains"][0];
    let manager = &mut chain["filters"][0]["typed_config"];
    manager["tracing"] = tracing.clone();
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let client = Client::new(proxy.listener("main").unwrap());
    (proxy, client)
}

fn tracing(random: u32) -> Value {
    json!({
        "random_sampling": {"value": random},
        "custom_tags": [
            {"tag": "team", "literal": {"value": "finches"}},
            {"tag": "user", "request_header": {"name": "end-user", "default_value": "nobody"}},
        ],
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": "spans"}},
            "service_name": "shop",
        }},
    })
}

/// What the backend was told under a name.
fn header(backend: &Backend, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&backend.take()).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn a_collector_is_told_of_every_traced_request() {
    let backend = Backend::answering(ok("up")).unwrap();
    let (address, found) = collector();
    let (_proxy, mut client) = start(&tracing(100), &backend, address);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let headers = [("host", "shop.example"), ("traceparent", parent.as_str()), ("end-user", "jason")];
    assert_eq!(client.get("/cart?item=1", &headers).unwrap().status, 200);
    let passed = header(&backend, "traceparent").unwrap();
    assert!(passed.starts_with(&format!("00-{TRACE}-")) && passed.ends_with("-01") && passed != parent, "{passed}");
    // Envoy sends what it has when there are five.
    for _ in 0..5 {
        assert_eq!(client.get("/other", &[("host", "shop.example")]).unwrap().status, 200);
    }
    wait_until(Duration::from_secs(20), || (found.lock().unwrap().len() >= 6).then_some(())).unwrap();
    let spans = found.lock().unwrap().clone();
    let (service, span) = spans.iter().find(|(_, s)| format!("{:032x}", s.trace) == TRACE).unwrap();
    assert_eq!((service.as_str(), span.parent), ("shop", 0xb7ad_6b71_6920_3331));
    assert_eq!(passed, format!("00-{TRACE}-{:016x}-01", span.id));
    assert_eq!((span.name.as_str(), span.is_server, span.failed), ("ingress", true, false));
    assert!(span.times[0] <= span.times[1]);
    let attributes: BTreeMap<&str, &str> = span.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for (name, value) in [
        ("component", "proxy"),
        ("node_id", "this-node"),
        ("http.url", "http://shop.example/cart?item=1"),
        ("http.method", "GET"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", "200"),
        ("peer.address", "127.0.0.1"),
        ("response_size", "2"),
        ("response_flags", "-"),
        ("upstream_cluster", "a"),
        ("team", "finches"),
        ("user", "jason"),
    ] {
        assert_eq!(attributes.get(name), Some(&value), "{name} in {attributes:?}");
    }
    let traces: std::collections::BTreeSet<u128> = spans.iter().map(|(_, s)| s.trace).collect();
    assert_eq!(traces.len(), 6, "every other request begins a trace of its own");
}

#[test]
fn what_is_not_sampled_is_not_told_and_goes_on_unsampled() {
    let backend = Backend::answering(ok("up")).unwrap();
    let (address, found) = collector();
    let (_proxy, mut client) = start(&tracing(0), &backend, address);
    for _ in 0..20 {
        assert_eq!(client.get("/", &[]).unwrap().status, 200);
    }
    let passed = header(&backend, "traceparent").unwrap();
    assert!(passed.ends_with("-00"), "{passed}");
    // A caller's decision holds; Envoy decides anew (docs/differences.md).
    if std::env::var_os("SERIN_TEST_ENVOY").is_some() {
        return;
    }
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    for _ in 0..5 {
        assert_eq!(client.get("/", &[("traceparent", parent.as_str())]).unwrap().status, 200);
    }
    let passed = header(&backend, "traceparent").unwrap();
    assert!(passed.ends_with("-01"), "{passed}");
    wait_until(Duration::from_secs(20), || (found.lock().unwrap().len() >= 5).then_some(())).unwrap();
    assert!(found.lock().unwrap().iter().all(|(_, s)| format!("{:032x}", s.trace) == TRACE));
}

#[test]
fn spans_never_go_in_plain_text_to_a_cluster_with_tls() {
    let backend = Backend::answering(ok("up")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut spans = h2_cluster("spans", listener.local_addr().unwrap());
    spans["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "spans.local"}});
    let (_proxy, mut client) = start_with(&tracing(100), &backend, spans);
    for _ in 0..6 {
        assert_eq!(client.get("/", &[("host", "shop.example")]).unwrap().status, 200);
    }
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut first = [0];
    std::io::Read::read_exact(&mut stream, &mut first).unwrap();
    assert_eq!(first, [22], "a handshake of TLS begins with a record of that type");
}
