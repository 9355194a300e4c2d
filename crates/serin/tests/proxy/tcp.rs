//! The TCP proxy: bytes both ways, whatever they are. Serin and Envoy alike.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::SERIN;

/// A bootstrap whose listener passes bytes to these clusters.
fn tcp(to: &Value, clusters: &[Value]) -> Value {
    let mut config = bootstrap(&json!([]), clusters);
    let mut filter = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "main", "idle_timeout": "1s", "max_connect_attempts": 3});
    for (name, value) in to.as_object().unwrap() {
        filter[name] = value.clone();
    }
    config["static_resources"]["listeners"][0]["filter_chains"] =
        json!([{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": filter}]}]);
    config
}

/// A server that says its name, then sends back whatever it gets until the client ends.
fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = stream.write_all(name.as_bytes());
                let _ = std::io::copy(&mut stream, &mut copy);
                let _ = copy.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn bytes_pass_and_so_do_their_ends() {
    let config = tcp(&json!({"cluster": "a"}), &[cluster("a", &[echo("a")])]);
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let mut stream = connect(&proxy);
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut half, body) = (stream.try_clone().unwrap(), sent.clone());
    let writing = std::thread::spawn(move || {
        half.write_all(&body).unwrap();
        half.shutdown(Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    writing.join().unwrap();
    assert_eq!(came.first(), Some(&b'a'));
    assert!(came.get(1..) == Some(&sent[..]), "{} bytes came back", came.len());
    let counted = || (proxy.stat("tcp.main.downstream_cx_rx_bytes_total") == 3_000_000).then_some(());
    wait_until(Duration::from_secs(5), counted).unwrap();
    let gone = || (proxy.stat("cluster.a.upstream_cx_active") == 0).then_some(());
    wait_until(Duration::from_secs(5), gone).unwrap();
    assert_eq!(proxy.stat("tcp.main.downstream_cx_total"), 1);
}

#[test]
fn connections_are_shared_by_weight_and_idle_ones_end() {
    let to = json!({"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]}});
    let config = tcp(&to, &[cluster("a", &[echo("a")]), cluster("b", &[echo("b")])]);
    let proxy = Proxy::start(SERIN, &config).unwrap();
    let mut hits = 0;
    for _ in 0..200 {
        let mut name = [0u8; 1];
        connect(&proxy).read_exact(&mut name).unwrap();
        hits += usize::from(name == *b"b");
    }
    assert!(hits.abs_diff(150) <= 31, "{hits} of 200 went to b, expected 150 \u{b1} 5 \u{d7} 6.1");
    let mut waiting = connect(&proxy);
    let mut all = Vec::new();
    waiting.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 1, "after a second without a byte it was closed");
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = tcp(&json!({"cluster": "a"}), &[cluster("a", &[gone, echo("a")])]);
    let proxy = Proxy::start(SERIN, &config).unwrap();
    for _ in 0..4 {
        let mut name = [0u8; 1];
        connect(&proxy).read_exact(&mut name).unwrap();
        assert_eq!(name, *b"a");
    }
    let config = tcp(&json!({"cluster": "missing"}), &[cluster("a", &[gone])]);
    let proxy = Proxy::serin(SERIN, &config).unwrap();
    assert_eq!(connect(&proxy).read(&mut [0u8; 1]).unwrap(), 0);
    assert_eq!(proxy.stat("tcp.main.downstream_cx_no_route"), 1);
}
