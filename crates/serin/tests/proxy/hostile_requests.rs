//! Hostile requests: what the client sees, and the exact bytes that reached the upstream.
//!
//! Each input is sent alone, with a well-formed request right behind it, and split into single bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::Backend;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

/// What must become of an input.
#[derive(Clone, Copy)]
enum Expected {
    /// Refused with this status, nothing reaches the upstream, the connection closes.
    Refused(u16),
    /// Answered by the upstream, once.
    Passed,
}
use Expected::{Passed, Refused};

const CASES: &[(&str, &str, Expected)] = &[
    // A: framing
    (
        "A1 length and chunked",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "A2 two lengths",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        Refused(400),
    ),
    ("A2 list of lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello", Refused(400)),
    ("A4 signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", Refused(400)),
    ("A4 hexadecimal length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", Refused(400)),
    ("A5 leading zero", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\n\r\nhello", Refused(400)),
    ("A6 huge length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", Refused(400)),
    ("A7 spaces around length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \t 5 \r\n\r\nhello", Passed),
    (
        "A8 chunked twice",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "A8 two codings fields",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "A9 chunked not last",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "A10 gzip then chunked",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    ("A11 identity", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", Refused(400)),
    (
        "A12 empty list member",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("A13 vertical tab", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "A14 upper case",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Passed,
    ),
    (
        "A16 folded coding",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "A17 space before colon",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("A18 underscore", "POST / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\n\r\n", Refused(400)),
    ("A19 chunked in 1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "A20 nominated length",
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        Passed,
    ),
    (
        "A23 extension",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        Passed,
    ),
    (
        "A27 trailers",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nX-T: 1\r\n\r\n",
        Passed,
    ),
    ("A28 body on GET", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", Passed),
    (
        "A31 unknown expectation",
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\nhello",
        Refused(417),
    ),
    // B: request line, host, target
    ("B1 no host", "GET / HTTP/1.1\r\n\r\n", Refused(400)),
    ("B4 no host in 1.0", "GET / HTTP/1.0\r\n\r\n", Refused(400)),
    ("B1 two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Refused(400)),
    ("B1 empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    ("B2 user in host", "GET / HTTP/1.1\r\nHost: user@x\r\n\r\n", Refused(400)),
    ("B2 path in host", "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", Refused(400)),
    ("B2 port too large", "GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n", Refused(400)),
    ("B2 open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    ("B3 absolute form wins", "GET http://y/z HTTP/1.1\r\nHost: x\r\n\r\n", Passed),
    ("B5 star with GET", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B6 CONNECT without port", "CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B6 CONNECT", "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", Refused(405)),
    ("B7 no slash", "GET admin HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B7 other scheme", "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B8 fragment", "GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B8 backslash", "GET /a\\b HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B9 bad triplet", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B9 encoded NUL", "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B9 encoded CRLF stays", "GET /%0d%0aX:1 HTTP/1.1\r\nHost: x\r\n\r\n", Passed),
    ("B10 above the root", "GET /../x HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B11 two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B11 trailing space", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", Refused(400)),
    ("B11 CR inside the line", "GET /a\rb HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B11 two CR at the end", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", Refused(400)),
    ("B11 CR and more at the end", "GET / HTTP/1.1\rX\nHost: x\r\n\r\n", Refused(400)),
    ("B11 CR hides a field", "GET / HTTP/1.1\rXHost: y\r\nHost: x\r\n\r\n", Refused(400)),
    ("B12 lower-case protocol", "GET / http/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B12 version 2", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", Refused(505)),
    ("B13 version 0.9", "GET /\r\n\r\n", Refused(400)),
    ("B14 TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", Refused(400)),
    ("B15 bad method", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    ("B16 leading empty line", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Passed),
    ("B16 many empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Refused(400)),
    // C: fields
    ("C1 bare LF", "GET / HTTP/1.1\nHost: x\n\n", Refused(400)),
    ("C1 bare LF at the end", "GET / HTTP/1.1\r\nHost: x\r\n\n", Refused(400)),
    ("C1 bare CR", "GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", Refused(400)),
    ("C2 NUL in value", "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", Refused(400)),
    ("C3 no colon", "GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n", Refused(400)),
    ("C3 empty name", "GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n", Refused(400)),
    ("C3 space in name", "GET / HTTP/1.1\r\nHost: x\r\nna me: v\r\n\r\n", Refused(400)),
    ("C4 folding", "GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", Refused(400)),
    (
        "C8 h2c is not honoured",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        Passed,
    ),
    ("C13 TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", Refused(405)),
];

const FOLLOW_UP: &str = "GET /follow-up HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn every_hostile_request_is_refused_or_forwarded_unambiguously() {
    let backend = Backend::answering(ok("up")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut wrong = Vec::new();
    for (name, input, expected) in CASES {
        let alone = exchange(address, &[input.as_bytes()]);
        wrong.extend(judge(&format!("{name}, alone"), *expected, &alone, &backend.take(), 1));
        let both = exchange(address, &[format!("{input}{FOLLOW_UP}").as_bytes()]);
        wrong.extend(judge(&format!("{name}, with a follow-up"), *expected, &both, &backend.take(), 2));
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        let split = exchange(address, &bytes);
        wrong.extend(judge(&format!("{name}, byte by byte"), *expected, &split, &backend.take(), 1));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(proxy.page("/ready").unwrap().0, 200);
}

/// Everything that comes back for these pieces, until the end or a silence after an answer.
fn exchange(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// What is wrong with what the client and the upstream saw of `requests` requests.
fn judge(name: &str, expected: Expected, answer: &str, seen: &[u8], requests: usize) -> Option<String> {
    let seen = String::from_utf8_lossy(seen);
    let arrived = seen.matches(" HTTP/1.1\r\n").count();
    let answers = answer.matches("HTTP/1.1 ").count();
    let fine = match expected {
        Refused(status) => answer.starts_with(&format!("HTTP/1.1 {status} ")) && answers == 1 && arrived == 0,
        Passed => {
            let one_framing = !(seen.contains("content-length") && seen.contains("transfer-encoding"));
            answer.starts_with("HTTP/1.1 200 ")
                && answers == requests
                && arrived == requests
                && one_framing
                && !seen.contains("h2c")
        }
    };
    (!fine).then(|| format!("{name}: answered {answer:?}, upstream saw {seen:?}"))
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
        let answer = exchange(address, &[input.as_bytes()]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer:.80}", input.len());
    }
}

#[test]
fn broken_chunks_never_look_complete_upstream() {
    let backend = Backend::answering(ok("up")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    for chunk in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = exchange(address, &[format!("{head}{chunk}").as_bytes()]);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunk:?} was answered {answer:?}");
        let seen = String::from_utf8_lossy(&backend.take()).into_owned();
        assert!(!seen.ends_with("0\r\n\r\n"), "{chunk:?} reached the upstream as {seen:?}");
    }
}
