//! What clients can make the proxy hold, do or say: each at its bound. Those that begin with `Proxy::start` run with Envoy too.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::client::{Client, read_response};
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::http2::{echo_server, h2_cluster, request};
use super::{SERIN, ok};

const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that reads a request and says nothing until the other end goes, or until a time has passed.
fn hanging(answers_after: Duration) -> Backend {
    Backend::scripted(move |stream, seen| {
        let mut buffer = Vec::new();
        while head_end(&buffer).is_none() {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        stream.set_read_timeout(Some(answers_after)).unwrap();
        if !matches!(stream.read(&mut [0]), Ok(0)) {
            let _ = stream.write_all(ok("late").as_bytes());
        }
    })
    .unwrap()
}

fn in_front_of(backend: SocketAddr) -> Value {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "0s"}}]);
    bootstrap(&routes, &[cluster("a", &[backend])])
}

fn ask(address: SocketAddr, more: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n", more].concat()).unwrap();
    stream
}

/// F1: a client that closes takes its upstream request with it, through a gateway and a sidecar up to the application, whether
/// or not it had sent more than is read ahead.
#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let backend = hanging(Duration::from_secs(300));
    let sidecar = Proxy::start(SERIN, &in_front_of(backend.address())).unwrap();
    let gateway = Proxy::start(SERIN, &in_front_of(sidecar.listener("main").unwrap())).unwrap();
    let address = gateway.listener("main").unwrap();
    let active = |proxy: &Proxy| proxy.stat("cluster.a.upstream_rq_active");
    let clients: Vec<TcpStream> = (0..40).map(|_| ask(address, b"")).collect();
    wait_until(PATIENCE, || (active(&sidecar) == 40).then_some(())).unwrap();
    drop(clients);
    wait_until(PATIENCE, || (active(&gateway) == 0 && active(&sidecar) == 0).then_some(())).unwrap();
    let ahead = ask(address, &b"GET /more HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3000));
    wait_until(PATIENCE, || (active(&sidecar) == 1).then_some(())).unwrap();
    ahead.shutdown(Shutdown::Both).unwrap();
    drop(ahead);
    wait_until(PATIENCE, || (active(&gateway) == 0 && active(&sidecar) == 0).then_some(())).unwrap();
}

/// F1: a client that closed its half only is still there, and gets its answer. (Envoy takes it for one that is gone.)
#[test]
fn a_client_that_closed_its_half_gets_its_answer() {
    let backend = hanging(Duration::from_millis(1500));
    let proxy = Proxy::serin(SERIN, &in_front_of(backend.address())).unwrap();
    let mut stream = ask(proxy.listener("main").unwrap(), b"");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").expect("it is asked whether it is there");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("late"), "{answer}");
}

/// F3: chunks of a byte each are joined on their way.
#[test]
fn tiny_chunks_are_joined() {
    let backend = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while !buffer.ends_with(b"0\r\n\r\n") {
            if read(stream, &mut buffer, seen) == 0 {
                return;
            }
        }
        let _ = stream.write_all(ok("x").as_bytes());
    })
    .unwrap();
    let proxy = Proxy::start(SERIN, &in_front_of(backend.address())).unwrap();
    let mut stream = TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    stream.write_all(&[&b"1\r\nx\r\n".repeat(50_000)[..], b"0\r\n\r\n"].concat()).unwrap();
    assert_eq!(read_response(&mut stream, false).unwrap().status, 200);
    let seen = backend.take();
    let head = head_end(&seen).unwrap();
    let body = String::from_utf8(seen[head..].to_vec()).unwrap();
    assert_eq!(body.matches('x').count(), 50_000);
    assert!(body.lines().count() < 5000, "{} lines", body.lines().count());
}

/// F3: one frame with thousands of settings, a block that refers to one long entry thousands of times.
#[test]
fn frames_that_cost_much_more_than_they_are_end_the_connection() {
    let backend = Backend::answering(ok("x")).unwrap();
    let proxy = Proxy::serin(SERIN, &in_front_of(backend.address())).unwrap();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let settings = [0, 4, 0, 0, 1, 0, 0, 4, 0, 1, 0, 0].repeat(1300);
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 1, b'a', 0x40, 1, b'b', 0x7f, 0x80 | 0x01, 0x1e];
    block.extend([b'y'; 127 + 1 + (0x1e << 7)]);
    block.extend([0xbe; 8000]);
    for (number, (hostile, name)) in
        [(frame(4, 0, 0, &settings), "settings"), (frame(1, 5, 1, &block), "references")].into_iter().enumerate()
    {
        let mut stream = TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &hostile].concat()).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let calm = [7, 0, 0, 0, 0, 0].as_slice();
        let goaway = said.windows(6).position(|w| w == calm).unwrap_or_else(|| panic!("{name}: no GOAWAY: {said:?}"));
        assert_eq!(said[goaway + 10..goaway + 14], [0, 0, 0, 11], "{name}: ENHANCE_YOUR_CALM");
        assert_eq!(proxy.stat("http.main.downstream_cx_http2_flood"), number as u64 + 1);
    }
}

/// F4: streams that are not read hold little, all together, and beyond what the process may hold requests are refused.
#[tokio::test]
async fn streams_that_nobody_reads_hold_little() {
    let large = Backend::answering(ok(&"z".repeat(4 << 20))).unwrap();
    let config = in_front_of(large.address());
    let connection = async |address: SocketAddr| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0);
        let (send, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..100 {
            send = send.ready().await.unwrap();
            let answer = send.send_request(request("GET", address), true).unwrap().0.await.unwrap();
            answers.push(answer);
        }
        (send, answers)
    };
    let held = |proxy: &Proxy| proxy.stat("http.main.downstream_cx_tx_bytes_buffered");
    let proxy = Proxy::serin(SERIN, &config).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(connection(address).await);
    }
    assert!((100_000..5 * 4_000_000).contains(&held(&proxy)), "{} bytes wait", held(&proxy));
    drop(kept);
    for _ in 0..200 {
        // Connections are closed by tasks of this thread.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if held(&proxy) == 0 {
            break;
        }
    }
    assert_eq!(held(&proxy), 0);
    let proxy = Proxy::with(SERIN, &["--max-buffered", "1"], &config).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(connection(address).await);
    }
    let refused = kept.iter().flat_map(|(_, answers)| answers).filter(|a| a.status() == 503).count();
    assert!(refused > 0 && held(&proxy) < 2 * 4_000_000, "{refused} refused, {} bytes wait", held(&proxy));
    assert_eq!(proxy.stat("http.main.downstream_rq_overload_close"), refused as u64);
}

/// F5: who waits for 100 Continue gets it, over HTTP/2 too; any other expectation fails.
#[tokio::test]
async fn expectations_are_answered_over_http2() {
    let echo = echo_server().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "h2"}}]);
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &[h2_cluster("h2", echo)])).unwrap();
    let address = proxy.listener("main").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let mut waiting = request("POST", address);
    waiting.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut upload) = send.send_request(waiting, false).unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
    let interim = tokio::time::timeout(PATIENCE, interim).await.unwrap().unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    upload.send_data(Bytes::from_static(b"now"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    if std::env::var_os("SERIN_TEST_ENVOY").is_some() {
        // Envoy passes others on.
        return;
    }
    let mut other = request("POST", address);
    other.headers_mut().insert("expect", "miracles".parse().unwrap());
    let mut send = send.ready().await.unwrap();
    let (response, _upload) = send.send_request(other, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 417);
}

/// E2: what `Connection` may name, at the bound and beyond.
#[test]
fn a_connection_field_names_nine_others_at_most() {
    let backend = Backend::answering(ok("x")).unwrap();
    let proxy = Proxy::start(SERIN, &in_front_of(backend.address())).unwrap();
    let address = proxy.listener("main").unwrap();
    for (names, status) in [(9, 200), (10, 400), (17, 400), (5000, 400)] {
        let list: Vec<String> = (0..names).map(|n| format!("x-{n}")).collect();
        let mut client = Client::new(address);
        let connection = list.join(",");
        let answer = client.get("/", &[("connection", &connection), ("x-0", "a"), ("x-8", "b"), ("x-stays", "c")]);
        assert_eq!(answer.unwrap().status, status, "{names}");
        let seen = String::from_utf8(backend.take()).unwrap().to_ascii_lowercase();
        assert_eq!(seen.contains("x-stays"), status == 200);
        assert!(!seen.contains("x-0") && !seen.contains("x-8"), "{seen}");
    }
    for name in ["x-forwarded-for", "X-Forwarded-Proto", "x-forwarded-host"] {
        assert_eq!(Client::new(address).get("/", &[("connection", name)]).unwrap().status, 400, "{name}");
    }
}

/// E3: heads that are refused are logged, and nothing that a client says ends a quotation.
#[test]
fn the_log_knows_refused_heads_and_quotes() {
    let backend = Backend::answering(ok("x")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let mut config = in_front_of(backend.address());
    config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["access_log"] = json!([
        {"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": file,
            "log_format": {"text_format_source": {"inline_string":
                "\"%REQ(:METHOD)%\" \"%REQ(USER-AGENT)%\" %RESPONSE_CODE% %RESPONSE_FLAGS%\n"}}}}
    ]);
    let proxy = Proxy::serin(SERIN, &config).unwrap();
    let address = proxy.listener("main").unwrap();
    let agent = [("user-agent", "a\" 200 \\ -")];
    assert_eq!(Client::new(address).get("/", &agent).unwrap().status, 200);
    for head in ["GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", "nonsense\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream, false).unwrap().status, 400);
    }
    let line = |text: &str| std::fs::read_to_string(&file).ok().filter(|log| log.contains(text));
    wait_until(PATIENCE, || line("\"GET\" \"a\\\" 200 \\\\ -\" 200 -\n")).unwrap();
    let log = wait_until(PATIENCE, || line("400 DPE\n").filter(|log| log.matches("400 DPE").count() == 2)).unwrap();
    assert!(log.contains("\"-\" \"-\" 400 DPE"), "{log}");
    // What HTTP/2 itself refuses is logged too: a name with a capital, and more fields than there may be.
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // GET, http, /, and an authority.
    let request = |more: &[u8]| [&[0x82, 0x86, 0x84, 0x01, 1, b'a'], more].concat();
    let many = (0..200).flat_map(|_| [0x00, 1, b'x', 1, b'y']).collect::<Vec<u8>>();
    let mut stream = TcpStream::connect(address).unwrap();
    let parts = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 5, 1, &request(&[0x00, 3, b'B', b'a', b'd', 1, b'x'])),
        frame(1, 5, 3, &request(&many)),
    ];
    stream.write_all(&parts.concat()).unwrap();
    wait_until(PATIENCE, || line("\"GET\" \"-\" 0 DPE\n")).unwrap();
    wait_until(PATIENCE, || line("\"GET\" \"-\" 431 DPE\n")).unwrap();
}

/// E3: a page of another site ends no proxy.
#[test]
fn commands_from_other_sites_are_refused() {
    let backend = Backend::answering(ok("x")).unwrap();
    let proxy = Proxy::serin(SERIN, &in_front_of(backend.address())).unwrap();
    let own = format!("http://{}", proxy.admin);
    for path in ["/quitquitquit", "/drain_listeners", "/healthcheck/fail"] {
        for headers in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "null")],
            &[("host", "evil.example"), ("origin", "http://evil.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            let answer = Client::new(proxy.admin).request("POST", path, headers, b"").unwrap();
            assert_eq!(answer.status, 403, "{path} {headers:?}");
        }
    }
    assert_eq!(proxy.page("/ready").unwrap().0, 200);
    let answer = Client::new(proxy.admin).request("POST", "/healthcheck/ok", &[("origin", &own)], b"").unwrap();
    assert_eq!(answer.status, 200);
}
