//! Hostile requests: what the client sees, and the exact bytes that reached the upstream.
//!
//! The rows of the corpus are sent alone, with a well-formed request right behind them, byte by byte, and cut in two at
//! every offset. A refusal must close the connection by itself and must reach no upstream as a whole request.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, canonical};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::corpus::{Corpus, Row, cuts};
use super::{SERIN, ok};

const FOLLOW_UP: &[u8] = b"GET /follow-up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const FOLLOW_UP_SEEN: &str = "GET /follow-up HTTP/1.1\r\nhost: x\r\nx-forwarded-proto: http\r\nx-request-id: *\r\n\r\n";

#[test]
fn framing() {
    replay("a_framing");
}

#[test]
fn request_line_and_host() {
    replay("b_request_line");
}

#[test]
fn fields() {
    replay("c_fields");
}

/// What came of one way of sending a row.
struct Outcome {
    answer: String,
    /// Whether the proxy closed the connection.
    closed: bool,
    /// What the upstream received, chunks joined, the request id as `*`.
    seen: String,
    /// How many complete requests the upstream has received so far.
    answered: usize,
}

/// Sends every row alone, with a follow-up, byte by byte, and cut in two at every offset.
fn replay(name: &str) {
    let mut corpus = Corpus::load(name);
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let share = corpus.rows.len().div_ceil(4);
    std::thread::scope(|scope| {
        let shares: Vec<_> =
            corpus.rows.chunks_mut(share).map(|rows| scope.spawn(move || replay_rows(rows, update))).collect();
        wrong.extend(shares.into_iter().flat_map(|s| s.join().unwrap()));
    });
    if update {
        corpus.save();
    }
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n"));
}

fn replay_rows(rows: &mut [Row], update: bool) -> Vec<String> {
    // What a refused body leaves behind may reach its upstream late, so those rows have one of their own.
    let (whole, begun) = (Upstream::start(), Upstream::start());
    let mut wrong = Vec::new();
    for row in rows {
        let upstream = if row.is("begun") { &begun } else { &whole };
        let known = wrong.len();
        let input = row.bytes("send").unwrap();
        let alone = upstream.send(row, &[&input]);
        if update {
            expect(row, &alone);
        }
        wrong.extend(judge(row, "alone", &alone, false));
        if !row.is("ends") && !row.is("alone") {
            let both = upstream.send(row, &[&[&input, FOLLOW_UP].concat()]);
            wrong.extend(judge(row, "with a follow-up", &both, true));
        }
        if wrong.len() > known {
            continue;
        }
        if input.len() <= 512 {
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            wrong.extend(judge(row, "byte by byte", &upstream.send(row, &bytes), false));
        }
        for at in cuts(input.len()) {
            let (first, second) = input.split_at(at);
            wrong.extend(judge(row, &format!("cut at {at}"), &upstream.send(row, &[first, second]), false));
        }
    }
    for upstream in [&whole, &begun] {
        assert_eq!(upstream.proxy.page("/ready").unwrap().0, 200);
    }
    assert_eq!(begun.backend.answered(), 0, "a body that was refused looked complete to the upstream");
    wrong
}

/// The proxy and the recording upstream behind it.
struct Upstream {
    proxy: Proxy,
    backend: Backend,
    address: SocketAddr,
}

impl Upstream {
    fn start() -> Self {
        let backend = Backend::answering(ok("up")).unwrap();
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
        let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
        let address = proxy.listener("main").unwrap();
        Self { proxy, backend, address }
    }

    /// A client that means well says nothing after its request; one that is refused must not have to.
    fn send(&self, row: &Row, pieces: &[&[u8]]) -> Outcome {
        let half_close = row.is("ends") || row.number("status") == Some(200);
        let (answer, closed) = exchange(self.address, pieces, half_close);
        let record = canonical(&self.backend.take());
        let seen = record.iter().map(|b| char::from(*b)).collect::<String>();
        Outcome { answer, closed, seen: without_ids(&seen), answered: self.backend.answered() }
    }
}

/// Fills in what a row expects, where it expects nothing yet.
fn expect(row: &mut Row, outcome: &Outcome) {
    let status: Option<u16> = outcome.answer.get(9..12).and_then(|s| s.parse().ok());
    if row.number("status").is_none() {
        row.set("status", status);
    }
    if row.number("status") == Some(200) && row.text("upstream").is_none() {
        row.set("upstream", outcome.seen.clone());
    }
}

/// The values of `x-request-id` as `*`, and without the time that an upstream has.
fn without_ids(seen: &str) -> String {
    let seen = seen.replace("x-envoy-expected-rq-timeout-ms: 15000\r\n", "");
    let mut parts = seen.split("x-request-id: ");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        all.push_str("x-request-id: *");
        all.push_str(part.find("\r\n").and_then(|end| part.get(end..)).unwrap_or_default());
    }
    all
}

/// Sends the pieces, each in a write of its own; everything that comes back, and whether the proxy closed.
fn exchange(address: SocketAddr, pieces: &[&[u8]], half_close: bool) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    for (i, piece) in pieces.iter().enumerate() {
        if i > 0 && pieces.len() == 2 {
            std::thread::sleep(Duration::from_micros(50));
        }
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let closed = match stream.read_to_end(&mut answer) {
        Ok(_) => true,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    };
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

/// What is wrong with what the client and the upstream saw.
fn judge(row: &Row, way: &str, outcome: &Outcome, follow_up: bool) -> Option<String> {
    let Outcome { answer, closed, seen, .. } = outcome;
    // A client of HTTP/1.0 is answered in its version.
    let answer = &answer.replace("HTTP/1.0 ", "HTTP/1.1 ");
    let status = row.number("status").unwrap_or_default();
    let answers = answer.matches("HTTP/1.1 ").count();
    let fine = if status == 200 {
        let answer =
            answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").filter(|_| row.is("interim")).unwrap_or(answer);
        let answers = answer.matches("HTTP/1.1 200 ").count();
        let expected = row.bytes("upstream").unwrap_or_default().into_iter().map(char::from).collect::<String>();
        let expected = if follow_up { expected + FOLLOW_UP_SEEN } else { expected };
        answer.starts_with("HTTP/1.1 200 ")
            && answers == 1 + usize::from(follow_up)
            && (*seen == expected || row.text("upstream") == Some("*"))
    } else {
        let untouched = if row.is("begun") { outcome.answered == 0 } else { seen.is_empty() };
        let told = answer.starts_with(&format!("HTTP/1.1 {status} ")) && answers == 1;
        (told || (status == 0 && answer.is_empty())) && untouched
    };
    (!fine || !closed)
        .then(|| format!("{}, {way}: closed {closed}, answered {answer:.400?}, upstream saw {seen:.600?}", row.name()))
}

#[test]
fn limits_hold() {
    let backend = Backend::answering(ok("up")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(n));
    let path = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(n));
    for (input, status) in [
        (fields(90), 200),
        (fields(120), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "v".repeat(70_000)), 431),
        (path(8_000), 200),
        (path(70_000), 414),
        (format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "M".repeat(1_000_000)), 400),
    ] {
        let (answer, _) = exchange(address, &[input.as_bytes()], true);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer:.80}", input.len());
    }
}
