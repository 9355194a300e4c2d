//! Hostile upstreams: what they send must never become a whole answer that it is not, nor an answer to somebody else.
//!
//! Every row of the corpus is sent whole and cut in two at every offset, to a client that then asks for something else on
//! the same connection, and must get the answer to that.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use serin_testkit::backend::{Backend, head_end, read};
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::corpus::{Corpus, Row, cuts};
use super::{SERIN, ok};

/// What the upstream answers next: pieces, each in a write of its own, and what it adds a moment later.
#[derive(Clone, Default)]
struct Script {
    pieces: Vec<Vec<u8>>,
    later: Option<Vec<u8>>,
}

#[test]
fn hostile_answers_are_refused_or_break_off() {
    let rows = Corpus::load("d_responses").rows;
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let share = rows.len().div_ceil(4);
        let shares: Vec<_> = rows.chunks(share).map(|rows| scope.spawn(|| replay(rows))).collect();
        wrong.extend(shares.into_iter().flat_map(|s| s.join().unwrap()));
    });
    assert!(wrong.is_empty(), "{} are wrong\n{}", wrong.len(), wrong.join("\n"));
}

fn replay(rows: &[Row]) -> Vec<String> {
    let script = Arc::new(Mutex::new(Script::default()));
    let backend = hostile(script.clone());
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a", "timeout": "5s"}}]);
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &[cluster("a", &[backend.address()])])).unwrap();
    let address = proxy.listener("main").unwrap();
    let mut wrong = Vec::new();
    for row in rows {
        let known = wrong.len();
        let answer = row.bytes("send").unwrap();
        let later = row.bytes("later");
        *script.lock().unwrap() = Script { pieces: vec![answer.clone()], later: later.clone() };
        wrong.extend(judge(row, "whole", &ask(row, address)));
        // What comes after a whole answer may come when the connection already carries the next request; only a pause
        // between them, as in the rows with `later`, lets a proxy see that nobody asked for it.
        let end = row.number("end").and_then(|end| usize::try_from(end).ok());
        for at in cuts(answer.len()).filter(|at| later.is_none() && Some(*at) != end) {
            if wrong.len() > known {
                break;
            }
            let (first, second) = answer.split_at(at);
            *script.lock().unwrap() = Script { pieces: vec![first.to_vec(), second.to_vec()], later: None };
            wrong.extend(judge(row, &format!("cut at {at}"), &ask(row, address)));
        }
    }
    assert_eq!(proxy.page("/ready").unwrap().0, 200);
    wrong
}

/// Answers `/second` as it should, and everything else by the script, after which it closes unless more comes later.
fn hostile(script: Arc<Mutex<Script>>) -> Backend {
    Backend::scripted(move |stream, seen| {
        let mut buffer = Vec::new();
        loop {
            while head_end(&buffer).is_none() {
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
            let second = buffer.starts_with(b"GET /second ");
            buffer.clear();
            if second {
                let _ = stream.write_all(ok("second").as_bytes());
                continue;
            }
            let Script { pieces, later } = script.lock().unwrap().clone();
            for (i, piece) in pieces.iter().enumerate() {
                if i > 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
                let _ = stream.write_all(piece);
            }
            let Some(later) = later else { return };
            std::thread::sleep(Duration::from_millis(20));
            let _ = stream.write_all(&later);
        }
    })
    .unwrap()
}

/// What the client sees on one connection of an answer and of the one after it. The upstream closes after each answer; a
/// request that was written into that end, which nobody may repeat without being told to, is asked again.
fn ask(row: &Row, address: SocketAddr) -> String {
    let lost = |seen: &str| seen.contains("connection termination") && row.number("status") != Some(503);
    let mut seen = ask_once(address, row.text("later").is_some());
    for _ in 0..5 {
        if !lost(&seen) {
            break;
        }
        seen = ask_once(address, row.text("later").is_some());
    }
    seen
}

fn ask_once(address: SocketAddr, pause: bool) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    if pause {
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = stream.write_all(b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is wrong with what the client saw.
fn judge(row: &Row, way: &str, seen: &str) -> Option<String> {
    let fine = if row.number("status") == Some(0) {
        // Broken off: the client can tell, and the connection carries nothing else.
        let chunked = seen.contains("transfer-encoding: chunked");
        let complete = chunked && body_of(seen).is_some();
        !complete && !seen.contains("second")
    } else {
        let mut answers = seen;
        while row.is("interim") && answers.starts_with("HTTP/1.1 100 ") {
            answers = answers.split_once("\r\n\r\n").map_or("", |(_, rest)| rest);
        }
        let status = row.number("status").unwrap();
        let own = answers.starts_with(&format!("HTTP/1.1 {status} "));
        let (first, second) = answers.rsplit_once("HTTP/1.1 ").unwrap_or_default();
        own && first.matches("HTTP/1.1 ").count() == 1
            && second.starts_with("200 ")
            && second.ends_with("\r\n\r\nsecond")
            && row.text("body").is_none_or(|body| body_of(first).as_deref() == Some(body))
    };
    (!fine || seen.contains("evil")).then(|| format!("{}, {way}: the client saw {seen:.600?}", row.name()))
}

/// The body of one answer: what stands behind its head, without the chunks around it.
fn body_of(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.contains("transfer-encoding: chunked") {
        return Some(body.to_owned());
    }
    let mut all = String::new();
    let mut rest = body;
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return (after == "\r\n").then_some(all);
        }
        all.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}
