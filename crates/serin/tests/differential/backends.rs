//! Backends that keep what they saw of every request, by its `x-case-id`, and answer as the request tells them to; health
//! checks (of `/healthz`) are answered as the backend's name says.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin_testkit::backend::{Backend, head_end, read, request_end};

/// A try as a backend saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    pub backend: String,
    /// Method and path.
    pub line: String,
    /// Lower-case names, sorted.
    pub headers: Vec<(String, String)>,
    /// As it was framed, chunks and all.
    pub body: String,
}

type Log = Arc<Mutex<HashMap<String, Vec<Try>>>>;

/// All backends of a case.
pub struct Backends {
    ports: HashMap<String, u16>,
    log: Log,
}

impl Backends {
    pub fn start(names: &[String]) -> Self {
        let log = Log::default();
        let mut ports = HashMap::new();
        for name in names {
            let (log, own) = (log.clone(), name.clone());
            let backend = Backend::scripted(move |stream, seen| serve(&own, &log, stream, seen)).unwrap();
            ports.insert(name.clone(), backend.address().port());
        }
        Self { ports, log }
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// Forgets everything that was seen.
    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Every try of a request so far, in order.
    pub fn tries(&self, id: &str) -> Vec<Try> {
        self.log.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

fn serve(name: &str, log: &Log, stream: &mut TcpStream, seen: &Mutex<Vec<u8>>) {
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = request_end(&buffer) {
            let request: Vec<u8> = buffer.drain(..end).collect();
            let seen = parse(name, &request);
            if seen.line.ends_with("/healthz") {
                if !healthz(name, stream) {
                    return;
                }
                continue;
            }
            let header = |wanted: &str| seen.headers.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.clone());
            let id = header("x-case-id").unwrap_or_default();
            let script = header("x-answer").unwrap_or_default();
            let more = header("x-answer-headers").unwrap_or_default();
            let number = {
                let mut log = log.lock().unwrap();
                let tries = log.entry(id).or_default();
                // Mirrors come whenever they come, and follow no script.
                let mirrored = |t: &Try| t.headers.iter().any(|(n, v)| n == "host" && v.contains("-shadow"));
                let number = tries.iter().filter(|t| !mirrored(t)).count();
                let shadow = mirrored(&seen);
                tries.push(seen);
                if shadow { usize::MAX } else { number }
            };
            let steps: Vec<&str> = script.split_whitespace().collect();
            let last = if number == usize::MAX { None } else { steps.last() };
            let step = steps.get(number).or(last).copied().unwrap_or("200");
            if !answer(name, step, &more, request.starts_with(b"HEAD "), stream) {
                return;
            }
        }
        if read(stream, &mut buffer, seen) == 0 {
            return;
        }
    }
}

/// Answers a health check as the backend's name says: `ill`, `dead` (no answer), `teapot` (418), `degraded`.
fn healthz(name: &str, stream: &mut TcpStream) -> bool {
    let (status, more) = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "ill" => (503, ""),
        "dead" => return false,
        "teapot" => (418, ""),
        "degraded" => (200, "x-envoy-degraded: true\r\n"),
        _ => (200, "x-envoy-upstream-healthchecked-cluster: tests\r\n"),
    };
    stream.write_all(format!("HTTP/1.1 {status} Some\r\n{more}content-length: 0\r\n\r\n").as_bytes()).is_ok()
}

/// How often a backend that answers at length says its name.
const LONG: usize = 5000;

/// Answers; false when the connection must end.
fn answer(name: &str, step: &str, more: &str, to_head: bool, stream: &mut TcpStream) -> bool {
    let status = match step {
        "reset" => return false,
        "hang" => {
            std::thread::sleep(Duration::from_secs(3));
            return false;
        }
        "slow" => {
            std::thread::sleep(Duration::from_millis(800));
            "200"
        }
        status => status,
    };
    let more: String = more.split('|').filter(|h| !h.is_empty()).map(|h| format!("{}\r\n", h.trim())).collect();
    let number: String = name.chars().filter(char::is_ascii_digit).collect();
    let more = more.replace("{number}", &number);
    let (status, body) = if status == "long" { ("200", name.repeat(LONG)) } else { (status, name.to_owned()) };
    let length = format!("content-length: {}\r\n", body.len());
    let length = if status == "204" { "" } else { &length };
    let head = format!("HTTP/1.1 {status} Some\r\nx-backend: {name}\r\n{more}{length}\r\n");
    let body = if to_head || status == "204" || status == "304" { "" } else { &body };
    stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
}

fn parse(name: &str, request: &[u8]) -> Try {
    let end = head_end(request).unwrap();
    let text = String::from_utf8_lossy(&request[..end]).into_owned();
    let mut lines = text.lines();
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    headers.sort();
    Try { backend: name.to_owned(), line, headers, body: String::from_utf8_lossy(&request[end..]).into_owned() }
}
