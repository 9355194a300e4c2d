//! Running one proxy from a case's bootstrap, and what was seen of it at both ends.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serin_testkit::certificates::Certificates;
use serin_testkit::client::{Client, Response, read_response, request_text};
use serin_testkit::proxy::Proxy;

use super::backends::{Backends, Try};
use super::case::{Ask, Case, LOG};
use super::over_h2::{self, Request};
use super::tls::{self, Tls};

/// What one request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of the answer; 0 when there was none.
    pub status: u16,
    /// Lower-case names, sorted; values that are never the same are masked.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub tries: Vec<Try>,
}

impl Seen {
    /// Status and backends, as cases write it.
    pub fn outcome(&self) -> String {
        let backends = self.tries.iter().map(|t| t.backend.clone());
        std::iter::once(self.status.to_string()).chain(backends).collect::<Vec<_>>().join(" ")
    }
}

/// What a case came to under one proxy.
pub struct Observed {
    /// Why the bootstrap was not accepted.
    pub refusal: Option<String>,
    /// By kind of request.
    pub seen: Vec<Vec<Seen>>,
    pub stats: Vec<(String, u64)>,
    /// The same requests over HTTP/2, those that are asked once without TLS.
    pub over_h2: Vec<Seen>,
    /// Lines of the access log.
    pub log: Vec<String>,
}

impl Observed {
    fn refused(why: String) -> Self {
        Self { refusal: Some(why), seen: Vec::new(), stats: Vec::new(), over_h2: Vec::new(), log: Vec::new() }
    }
}

/// What a case has to do with.
pub struct Around<'a> {
    pub backends: &'a Backends,
    pub certificates: &'a Certificates,
}

/// With one worker, as Envoy: how many connections are made is not left to chance.
pub fn serin(case: &Case, around: &Around<'_>) -> Result<Observed, String> {
    observe(case, around, |bootstrap| Proxy::with(env!("CARGO_BIN_EXE_serin"), &["--concurrency", "1"], bootstrap))
}

pub fn envoy(binary: &Path, case: &Case, around: &Around<'_>) -> Result<Observed, String> {
    observe(case, around, |bootstrap| Proxy::envoy_alone(&binary.to_string_lossy(), bootstrap))
}

fn observe(
    case: &Case,
    around: &Around<'_>,
    start: impl Fn(&serde_json::Value) -> anyhow::Result<Proxy>,
) -> Result<Observed, String> {
    let backends = around.backends;
    backends.forget();
    let log = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let mut bootstrap = case.bootstrap(|name| backends.port(name));
    put(&mut bootstrap, LOG, &log.path().to_string_lossy());
    let mut proxy = match start(&bootstrap) {
        Ok(proxy) => proxy,
        Err(error) => {
            let why: String = format!("{error:#}").chars().take(600).collect();
            return Ok(Observed::refused(why));
        }
    };
    let address = match proxy.listener("main") {
        // It may say that it is ready before it has read everything, and the port it has left may be another's by now.
        _ if proxy.process.has_ended() => {
            return Ok(Observed::refused(proxy.process.stderr().join("\n")));
        }
        Ok(address) => address,
        Err(error) => return Err(format!("{error:#}")),
    };
    let mut seen = Vec::new();
    for (number, ask) in case.requests().iter().enumerate() {
        if ask.is_h2_only() {
            seen.push(Vec::new());
            continue;
        }
        if let Some(script) = &ask.raw {
            let mut all = Vec::new();
            for _ in 0..ask.times {
                let body = script.run(address, ask.tls.as_ref(), around.certificates)?;
                let status = body.split_once("HTTP/1.").and_then(|(_, rest)| rest.get(2..5)?.parse().ok());
                std::thread::sleep(Duration::from_millis(50));
                all.push(Seen { status: status.unwrap_or(0), headers: Vec::new(), body, tries: backends.heard() });
            }
            seen.push(all);
            continue;
        }
        let mut client = Over::start(address, ask, around.certificates)?;
        let answers = (0..ask.times).map(|n| send(&mut client, ask, &format!("{number}-{n}"), n, backends));
        seen.push(answers.collect());
    }
    let stats = case.stats().into_iter().map(|(name, _)| (name.clone(), proxy.stat(&name))).collect();
    let mut over_h2 = Vec::new();
    if !case.is("http1_only") {
        for (number, ask) in case.requests().iter().enumerate().filter(|(_, ask)| ask.is_asked_again()) {
            over_h2.push(send(&mut Over::Http2(address), ask, &format!("h2-{number}"), 0, backends));
        }
    }
    let log = if case.has_log() { lines(&log) } else { Vec::new() };
    Ok(Observed { refusal: None, seen, stats, over_h2, log })
}

/// What was logged, when it is written.
fn lines(log: &tempfile::NamedTempFile) -> Vec<String> {
    let read = || std::fs::read(log.path()).unwrap_or_default();
    let mut text = read();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(150));
        let more = read();
        if more == text && !text.is_empty() {
            break;
        }
        text = more;
    }
    let mut lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    lines.iter_mut().for_each(hide_reason);
    // Workers write independently of each other.
    lines.sort();
    lines
}

/// Puts a text where another stands.
fn put(value: &mut serde_json::Value, from: &str, to: &str) {
    match value {
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|v| put(v, from, to)),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|v| put(v, from, to)),
        serde_json::Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        _ => {}
    }
}

/// How a client speaks.
enum Over {
    Http1(Client),
    Http2(SocketAddr),
    /// A new connection for every request.
    Tls(SocketAddr, Tls, Arc<ClientConfig>),
}

impl Over {
    fn start(address: SocketAddr, ask: &Ask, certificates: &Certificates) -> Result<Self, String> {
        let Some(tls) = &ask.tls else { return Ok(Self::Http1(Client::new(address))) };
        let config = tls.client(certificates).map_err(|error| format!("{error:#}"))?;
        Ok(Self::Tls(address, tls.clone(), config))
    }

    fn ask(&mut self, request: &Request<'_>) -> Option<Response> {
        match self {
            Self::Http1(client) => {
                let line = (request.method, request.path);
                client.request_with(line, request.headers, request.body.as_bytes(), request.trailers).ok()
            }
            Self::Http2(address) => over_h2::ask(*address, request),
            Self::Tls(address, tls, config) => {
                let mut stream = tls.connect(*address, config.clone()).ok()?;
                let facts = tls::facts(&stream.conn);
                let mut response = if stream.conn.alpn_protocol() == Some(b"h2") {
                    over_h2::ask_tls(stream.conn.into(), stream.sock, request)?
                } else {
                    let line = (request.method, request.path);
                    let bytes = request_text("test.local", line, request.headers, request.body.as_bytes());
                    stream.write_all(&bytes).ok()?;
                    stream.flush().ok()?;
                    read_response(&mut stream, request.method == "HEAD").ok()?
                };
                response.headers.extend(facts);
                Some(response)
            }
        }
    }
}

fn send(client: &mut Over, ask: &Ask, id: &str, n: usize, backends: &Backends) -> Seen {
    let mut headers: Vec<(String, String)> =
        ask.headers.iter().map(|(name, value)| (name.clone(), value.replace("{n}", &n.to_string()))).collect();
    headers.push(("x-case-id".to_owned(), id.to_owned()));
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        headers.push(("host".to_owned(), "test.local".to_owned()));
    }
    let borrowed: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let path = ask.path.replace("{n}", &n.to_string());
    let answer = client.ask(&Request {
        method: &ask.method,
        path: &path,
        headers: &borrowed,
        body: &ask.body,
        trailers: &ask.trailers,
        protocol: ask.protocol.as_deref(),
    });
    std::thread::sleep(Duration::from_millis(ask.pause));
    let mut tries = backends.tries(id);
    tries.extend(backends.heard());
    tries.iter_mut().for_each(|t| t.headers.iter_mut().for_each(mask));
    if ask.pause > 0 {
        // What goes to several at once has no order.
        tries.sort_by(|a, b| a.backend.cmp(&b.backend));
    }
    let (status, headers, body) = answer.map(|a| (a.status, sorted(&a), plain(&a))).unwrap_or_default();
    Seen { status, headers, body, tries }
}

/// The body, unpacked when it is compressed: the same text can be packed in many ways.
fn plain(answer: &Response) -> String {
    let mut text = String::new();
    match answer.header("content-encoding") {
        Some("gzip") => {
            let mut unpacked = flate2::read::GzDecoder::new(answer.body.as_slice());
            std::io::Read::read_to_string(&mut unpacked, &mut text).unwrap();
        }
        _ => text = answer.text(),
    }
    hide_reason(&mut text);
    text
}

fn sorted(answer: &Response) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> =
        answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    headers.iter_mut().for_each(mask);
    headers.sort();
    headers
}

/// Hides why TLS failed: every library has its own words.
fn hide_reason(text: &mut String) {
    if let Some((before, reason)) = text.split_once("TLS_error") {
        let after = reason.split_once("TLS_error_end").map_or("", |(_, after)| after);
        *text = [before, "TLS_*", after].concat();
    }
}

/// Hides what differs between any two runs.
fn mask(field: &mut (String, String)) {
    let (name, value) = field;
    hide_reason(value);
    match name.as_str() {
        "date" | "x-request-id" | "x-envoy-upstream-service-time" => "*".clone_into(value),
        // What is left of the time differs by milliseconds.
        "x-envoy-expected-rq-timeout-ms" => {
            let left: u64 = value.parse().unwrap_or(0);
            *value = (left.div_ceil(1000) * 1000).to_string();
        }
        // Of a client on the same machine Envoy says some other address of that machine.
        "x-forwarded-for" => {
            let before = value.rsplit_once(',').map_or(String::new(), |(before, _)| format!("{before},"));
            *value = format!("{before}*");
        }
        "set-cookie" => {
            let mut parts: Vec<&str> = value.split('"').collect();
            if let [_, made, _] = parts.as_mut_slice() {
                *made = "*";
            }
            *value = parts.join("\"");
        }
        "server" if value == "envoy" || value == "serin" => "*".clone_into(value),
        _ => {}
    }
}
