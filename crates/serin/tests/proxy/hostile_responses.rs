//! Hostile upstreams: what they send must never become a whole answer that it is not, nor an answer to somebody else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::SERIN;

/// Input, then what the client must see: a status, or `0` for an answer that breaks off.
const CASES: &[(&str, &[u8], u16)] = &[
    (
        "D1 length and chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
    ),
    ("D1 two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", 502),
    ("D1 gzip only", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", 502),
    ("D2 body with 204", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", 204),
    (
        "D3 bytes after the answer",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        200,
    ),
    ("D5 101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502),
    ("D5 100 first", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    ("D6 bad status", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", 502),
    ("D6 status with letters", b"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n", 502),
    ("D6 two CR in the status line", b"HTTP/1.1 200 OK\r\r\nContent-Length: 0\r\n\r\n", 502),
    ("D6 CR in the status line", b"HTTP/1.1 200\rX: y\r\nContent-Length: 0\r\n\r\n", 502),
    ("D6 version 0.9", b"hello\r\n\r\n", 502),
    ("D7 bare CR", b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", 502),
    ("D7 folding", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", 502),
    ("D8 close in the head", b"HTTP/1.1 200 OK\r\nContent-Le", 502),
    ("D8 close in the body", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", 0),
    ("D8 close in a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n32\r\nshort", 0),
];

#[test]
fn hostile_answers_are_refused_or_break_off() {
    let mut wrong = Vec::new();
    for (name, answer, status) in CASES {
        let answer = answer.to_vec();
        let backend = Backend::scripted(move |stream, seen| {
            let mut buffer = Vec::new();
            while head_end(&buffer).is_none() {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            let _ = stream.write_all(&answer);
        })
        .unwrap();
        let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "3s"}}]);
        let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
        let mut stream = TcpStream::connect(proxy.listener("main").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let fine = match status {
            0 => text.contains("short") && !text.ends_with("0\r\n\r\n"),
            status => text.starts_with(&format!("HTTP/1.1 {status} ")) && !text.contains("evil"),
        };
        if !fine {
            wrong.push(format!("{name}: the client saw {text:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
