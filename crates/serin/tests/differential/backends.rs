//! Backends that keep what they saw of every request, by its `x-case-id`, and answer as the request tells them to; health
//! checks (of `/healthz`) are answered as the backend's name says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serin_testkit::backend::{Backend, canonical, head_end, read, request_end};
use serin_testkit::certificates::Certificates;

use super::over_h2;
use super::raw::{Heard, Speech};
use super::tls::{Facts, Tls};

/// A try as a backend saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    pub backend: String,
    /// Method and path.
    pub line: String,
    /// Lower-case names, sorted; facts about TLS are among them.
    pub headers: Vec<(String, String)>,
    /// Chunks as one: how they were cut does not count.
    pub body: String,
}

type Log = Arc<Mutex<HashMap<String, Vec<Try>>>>;

/// All backends of a case.
pub struct Backends {
    ports: HashMap<String, u16>,
    log: Log,
    heard: Heard,
}

/// A backend's name, and how it speaks.
pub struct Plan {
    pub name: String,
    pub tls: Option<Tls>,
    /// What it says, if it does not speak HTTP.
    pub speech: Option<Speech>,
    /// Whether it speaks HTTP/2 without TLS.
    pub h2: bool,
}

/// One connection of a backend.
pub struct Serving {
    name: String,
    log: Log,
    facts: Facts,
}

/// What a backend does about a request.
pub struct Answer {
    pub after: Duration,
    /// Whether there is none and the connection ends.
    pub ends: bool,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Backends {
    pub fn start(plans: Vec<Plan>, certificates: &Arc<Certificates>) -> Self {
        let log = Log::default();
        let mut ports = HashMap::new();
        let heard = Heard::default();
        for Plan { name, tls, speech, h2 } in plans {
            let (log, own, certificates, heard) = (log.clone(), name.clone(), certificates.clone(), heard.clone());
            let backend = Backend::scripted(move |stream, seen| {
                if let Some(speech) = &speech {
                    return speech.serve(stream, &heard.connection(&own));
                }
                let mut serving = Serving { name: own.clone(), log: log.clone(), facts: Facts::new() };
                match &tls {
                    None if h2 => over_h2::serve_plain(&Arc::new(serving), stream.try_clone().unwrap()),
                    None => serve(&serving, stream, seen),
                    Some(tls) => {
                        let accepted = tls.accept(stream.try_clone().unwrap(), &certificates);
                        let Ok((mut stream, facts)) = accepted else { return };
                        serving.facts = facts;
                        if stream.conn.alpn_protocol() == Some(b"h2") {
                            over_h2::serve(&Arc::new(serving), stream.conn.into(), stream.sock);
                        } else {
                            serve(&serving, &mut stream, seen);
                            stream.conn.send_close_notify();
                            let _ = stream.conn.complete_io(&mut stream.sock);
                        }
                    }
                }
            });
            ports.insert(name, backend.unwrap().address().port());
        }
        Self { ports, log, heard }
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// Forgets everything that was seen.
    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
        self.heard.take();
    }

    /// What backends that do not speak HTTP heard since the last time.
    pub fn heard(&self) -> Vec<Try> {
        self.heard.take()
    }

    /// Every try of a request so far, in order.
    pub fn tries(&self, id: &str) -> Vec<Try> {
        self.log.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

fn serve(serving: &Serving, stream: &mut (impl Read + Write), seen: &Mutex<Vec<u8>>) {
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = request_end(&buffer) {
            let request = canonical(&buffer.drain(..end).collect::<Vec<u8>>());
            let Some(answer) = serving.answer(parse(&request)) else { return };
            std::thread::sleep(answer.after);
            if answer.ends || !send(&answer, request.starts_with(b"HEAD "), stream) {
                return;
            }
        }
        if read(stream, &mut buffer, seen) == 0 {
            return;
        }
    }
}

/// How often a backend that answers at length says its name.
const LONG: usize = 5000;

impl Serving {
    /// Keeps what was seen; none when the connection must end.
    pub fn answer(&self, mut seen: Try) -> Option<Answer> {
        if seen.line.ends_with("/healthz") {
            return self.healthz();
        }
        seen.backend.clone_from(&self.name);
        seen.headers.extend(self.facts.iter().cloned());
        seen.headers.sort();
        let header = |wanted: &str| seen.headers.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.clone());
        let id = header("x-case-id").unwrap_or_default();
        let script = header("x-answer").unwrap_or_default();
        let more = header("x-answer-headers").unwrap_or_default();
        let trailers = header("x-answer-trailers").unwrap_or_default();
        let number = {
            let mut log = self.log.lock().unwrap();
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
        let answer = self.step(steps.get(number).or(last).copied().unwrap_or("200"), &more)?;
        Some(Answer { trailers: fields(&trailers), ..answer })
    }

    fn step(&self, step: &str, more: &str) -> Option<Answer> {
        let (after, status) = match step {
            "reset" => return None,
            "hang" => (3000, "0"),
            "slow" => (800, "200"),
            status => (0, status),
        };
        let number: String = self.name.chars().filter(char::is_ascii_digit).collect();
        let more = more.replace("{number}", &number);
        let (status, body) =
            if status == "long" { ("200", self.name.repeat(LONG)) } else { (status, self.name.clone()) };
        let status: u16 = status.parse().unwrap();
        let mut headers = vec![("x-backend".to_owned(), self.name.clone())];
        headers.extend(fields(&more));
        if status != 204 {
            headers.push(("content-length".to_owned(), body.len().to_string()));
        }
        let body = if matches!(status, 204 | 304) { String::new() } else { body };
        Some(Answer {
            after: Duration::from_millis(after),
            ends: step == "hang",
            status,
            headers,
            body,
            trailers: Vec::new(),
        })
    }

    /// Answers a health check as the backend's name says: `ill`, `dead` (no answer), `teapot` (418), `degraded`.
    fn healthz(&self) -> Option<Answer> {
        let (status, more) = match self.name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "ill" => (503, None),
            "dead" => return None,
            "teapot" => (418, None),
            "degraded" => (200, Some(("x-envoy-degraded", "true"))),
            _ => (200, Some(("x-envoy-upstream-healthchecked-cluster", "tests"))),
        };
        let fields = more.into_iter().chain([("content-length", "0")]);
        let headers = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Answer { after: Duration::ZERO, ends: false, status, headers, body: String::new(), trailers: Vec::new() })
    }
}

/// `NAME: VALUE|NAME: VALUE`.
fn fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('|').filter_map(|h| h.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// Sends an answer; false when that is not possible.
fn send(answer: &Answer, to_head: bool, stream: &mut impl Write) -> bool {
    let lines = |fields: &[(String, String)]| -> String {
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    };
    let mut headers = answer.headers.clone();
    let mut body = answer.body.clone();
    if !answer.trailers.is_empty() {
        headers.retain(|(name, _)| name != "content-length");
        headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
        body = format!("{:x}\r\n{body}\r\n0\r\n{}\r\n", body.len(), lines(&answer.trailers));
    }
    if to_head {
        body.clear();
    }
    let text = format!("HTTP/1.1 {} Some\r\n{}\r\n{body}", answer.status, lines(&headers));
    stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).is_ok()
}

fn parse(request: &[u8]) -> Try {
    let end = head_end(request).unwrap();
    let text = String::from_utf8_lossy(&request[..end]).into_owned();
    let mut lines = text.lines();
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let headers =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    Try { backend: String::new(), line, headers, body: String::from_utf8_lossy(&request[end..]).into_owned() }
}
