//! The request path allocates nothing per request on HTTP/1.1 once connections, buffers and pools exist.
//!
//! Proxy, client and upstream run in this one process under a counting allocator; client and upstream use buffers of
//! their own. What the proxy's background work allocates now and then is why the bound is not zero in all.

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use serin_proxy::{ProxyOptions, XdsMode};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 2_000;
const REQUEST: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_request_allocates_nothing() -> std::io::Result<()> {
    let start = Region::new(ALLOCATOR);
    let upstream = TcpListener::bind("127.0.0.1:0")?;
    let upstream_address = upstream.local_addr()?;
    std::thread::spawn(move || upstream.incoming().flatten().for_each(|s| drop(std::thread::spawn(move || answer(s)))));
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap(address, upstream_address).to_string())?;
    std::thread::spawn(move || serin_proxy::run(&options(file)));

    let mut client = connect(address)?;
    for _ in 0..REQUESTS {
        exchange(&mut client)?;
    }
    assert!(start.change().allocations > 1_000, "the proxy's start was not counted, so its requests would not be");
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        exchange(&mut client)?;
    }
    let change = region.change();
    let all = change.allocations + change.reallocations;
    println!("{all} allocations, {} bytes, in {REQUESTS} requests", change.bytes_allocated);
    assert!(all * 20 < REQUESTS, "{all} allocations in {REQUESTS} requests");
    Ok(())
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                return Ok(stream);
            }
            // The proxy is not there yet; the test runner bounds how long this may go on.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn exchange(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(REQUEST)?;
    let mut buffer = [0u8; 2048];
    let mut filled = 0;
    while !buffer.get(..filled).unwrap_or_default().ends_with(b"\r\n\r\nhello") {
        let n = client.read(buffer.get_mut(filled..).unwrap_or_default())?;
        assert!(n > 0, "the proxy closed: {}", buffer.escape_ascii());
        filled += n;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", buffer.escape_ascii());
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0u8; 4096];
    let mut filled = 0;
    while let Ok(n) = stream.read(buffer.get_mut(filled..).unwrap_or_default()) {
        filled += n;
        if buffer.get(..filled).unwrap_or_default().ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
        if n == 0 {
            return;
        }
    }
}

fn options(bootstrap: std::path::PathBuf) -> ProxyOptions {
    let local = Ipv4Addr::LOCALHOST;
    ProxyOptions {
        xds: Vec::new(),
        workload: None,
        namespace: "default".to_owned(),
        labels: Vec::new(),
        gateway: false,
        ip: local.into(),
        bootstrap: Some(bootstrap),
        concurrency: Some(1),
        admin: Some(SocketAddr::new(local.into(), 0)),
        admin_address_path: None,
        xds_mode: XdsMode::Delta,
        access_log: None,
        max_buffered: 256,
        drain_time: Duration::from_secs(1),
        exit_with_parent: false,
    }
}

/// One listener and one cluster, with a route timeout and a retry policy armed, request ids and statistics on.
fn bootstrap(listener: SocketAddr, upstream: SocketAddr) -> Value {
    let socket = |a: SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let typed = |name: &str, kind: &str, mut config: Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.{kind}"));
        json!({"name": name, "typed_config": config})
    };
    let route = json!({"match": {"prefix": "/"},
        "route": {"cluster": "a", "timeout": "15s", "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2}}});
    let router = typed("envoy.filters.http.router", "http.router.v3.Router", json!({}));
    let manager = typed(
        "envoy.filters.network.http_connection_manager",
        "network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "main",
            "route_config": {"name": "main", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [router],
        }),
    );
    json!({"static_resources": {
        "listeners": [{"name": "main", "address": socket(listener), "filter_chains": [{"filters": [manager]}]}],
        "clusters": [{"name": "a", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
            "cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(upstream)}}]}]}}],
    }})
}
