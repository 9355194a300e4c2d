//! Bytes as they are: clients that send texts and keep what they read, and backends that answer with a text.
//!
//! A text is Latin-1: each character is one byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use serin_testkit::certificates::Certificates;

use super::backends::Try;
use super::tls::Tls;

/// What a client sends, and how it ends.
#[derive(Debug, Clone)]
pub struct Script {
    texts: Vec<Vec<u8>>,
    /// How long nothing comes before the next text.
    quiet: Duration,
    /// Whether it closes only its sending side at the end.
    half: bool,
}

/// What a backend says, when, and what it does then.
#[derive(Debug, Clone)]
pub struct Speech {
    after: Vec<u8>,
    says: Vec<u8>,
    then: String,
}

/// For a connection that nobody ends.
const PATIENCE: Duration = Duration::from_secs(3);

impl Script {
    pub fn read(ask: &Value) -> Option<Self> {
        let texts = ask.get("raw")?.as_array().unwrap().iter().map(|t| bytes(t.as_str().unwrap())).collect();
        let quiet = ask.get("pause").and_then(Value::as_u64).unwrap_or(250);
        Some(Self { texts, quiet: Duration::from_millis(quiet), half: ask.get("half").is_none_or(|v| v == true) })
    }

    /// Runs it on a new connection; what came after each text, and how it ended.
    pub fn run(&self, to: SocketAddr, tls: Option<&Tls>, certificates: &Certificates) -> Result<String, String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        if let Some(tls) = tls {
            let config = tls.client(certificates).map_err(text)?;
            let Ok(mut stream) = tls.connect(to, config) else { return Ok("(no handshake)".to_owned()) };
            let socket = stream.sock.try_clone().unwrap();
            return Ok(self.exchange(&mut stream, &socket, |stream| stream.conn.send_close_notify()));
        }
        let mut stream = TcpStream::connect(to).map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let socket = stream.try_clone().unwrap();
        Ok(self.exchange(&mut stream, &socket, |_| ()))
    }

    fn exchange<S: Read + Write>(&self, stream: &mut S, socket: &TcpStream, finish: impl Fn(&mut S)) -> String {
        let mut seen = String::new();
        for (number, sent) in self.texts.iter().enumerate() {
            if stream.write_all(sent).and_then(|()| stream.flush()).is_err() {
                seen.push_str("(cannot send)");
                return seen;
            }
            let (read, end) = read_on(stream, socket, self.quiet);
            let text = shown(&read);
            if !text.is_empty() {
                seen.push_str(&format!("[{number}] {text}\n"));
            }
            // When exactly an end comes behind the last word does not matter.
            if end.is_some() {
                seen.push_str("(end)");
                return seen;
            }
        }
        if self.half {
            finish(stream);
            let _ = stream.flush();
            let _ = socket.shutdown(Shutdown::Write);
            let (read, end) = read_on(stream, socket, PATIENCE);
            let text = shown(&read);
            // Serin looks whether a client that sends no more still reads (docs/differences.md); then it does not see the end.
            match text.replace("HTTP/1.1 100 Continue\r\n\r\n", "") {
                rest if rest != text || (rest.is_empty() && end.is_some()) => seen.push_str(&format!("{rest}(end)")),
                rest => seen.push_str(&format!("[end] {rest}{}", end.unwrap_or("(open)"))),
            }
        }
        seen
    }
}

/// Reads until nothing comes, and how the connection ended if it did.
fn read_on(stream: &mut impl Read, socket: &TcpStream, quiet: Duration) -> (Vec<u8>, Option<&'static str>) {
    let _ = socket.set_read_timeout(Some(quiet));
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, Some("(end)")),
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return (all, None),
            // Whether an end comes as one or as a reset depends on what was still unread.
            Err(_) => return (all, Some("(end)")),
        }
    }
}

impl Speech {
    pub fn read(endpoint: &Value) -> Option<Self> {
        let text = |field: &str| endpoint.get(field).and_then(Value::as_str);
        Some(Self {
            says: bytes(text("says")?),
            after: bytes(text("after").unwrap_or("\r\n\r\n")),
            then: text("then").unwrap_or("echo").to_owned(),
        })
    }

    /// Serves one connection; `heard` gets what comes.
    pub fn serve(&self, stream: &mut TcpStream, heard: &Mutex<Vec<u8>>) {
        let mut chunk = [0; 4096];
        let mut before = Vec::new();
        while !self.after.is_empty() && !before.windows(self.after.len()).any(|w| w == self.after) {
            let Some(read) = hear(stream, &mut chunk, heard) else { return };
            before.extend_from_slice(read);
        }
        if stream.write_all(&self.says).is_err() {
            return;
        }
        match self.then.as_str() {
            "close" => return,
            "reset" => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                return;
            }
            _ => {}
        }
        while let Some(read) = hear(stream, &mut chunk, heard) {
            if self.then == "echo" && stream.write_all(read).is_err() {
                return;
            }
        }
    }
}

/// Reads once; none at the end.
fn hear<'a>(stream: &mut TcpStream, chunk: &'a mut [u8], heard: &Mutex<Vec<u8>>) -> Option<&'a [u8]> {
    let n = match stream.read(chunk) {
        Ok(n) if n > 0 => n,
        ended => {
            heard.lock().unwrap().extend_from_slice(if ended.is_ok() { b"(end)" } else { b"(reset)" });
            return None;
        }
    };
    heard.lock().unwrap().extend_from_slice(&chunk[..n]);
    Some(&chunk[..n])
}

/// What backends of this kind heard, by connection.
#[derive(Default, Clone)]
pub struct Heard(Arc<Mutex<Vec<Connection>>>);

struct Connection {
    backend: String,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Heard {
    /// Where a new connection of a backend keeps what it hears.
    pub fn connection(&self, backend: &str) -> Arc<Mutex<Vec<u8>>> {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        self.0.lock().unwrap().push(Connection { backend: backend.to_owned(), bytes: bytes.clone() });
        bytes
    }

    /// What was heard since the last time.
    pub fn take(&self) -> Vec<Try> {
        let connections = self.0.lock().unwrap();
        let take = |c: &Connection| {
            let bytes = std::mem::take(&mut *c.bytes.lock().unwrap());
            let body = shown(&bytes);
            Try { backend: c.backend.clone(), line: String::new(), headers: Vec::new(), body }
        };
        let mut all: Vec<Try> = connections.iter().map(take).filter(|t| !t.body.is_empty()).collect();
        all.sort_by(|a, b| (&a.backend, &a.body).cmp(&(&b.backend, &b.body)));
        all
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or_else(|_| panic!("not Latin-1: {c}"))).collect()
}

/// As a text, where the fields of heads are sorted and what is never the same is hidden.
fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = head_start(rest) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some((head, after)) = from.split_once("\r\n\r\n") else {
            rest = from;
            break;
        };
        let mut lines = head.split("\r\n");
        out.push_str(lines.next().unwrap_or_default());
        let mut fields: Vec<String> = lines.map(masked).collect();
        fields.sort_by_key(|f| f.to_ascii_lowercase());
        for field in fields {
            out.push_str("\r\n");
            out.push_str(&field);
        }
        out.push_str("\r\n\r\n");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where the first line of a head begins.
fn head_start(text: &str) -> Option<usize> {
    let line = text.find(" HTTP/1.").map(|at| text[..at].rfind('\n').map_or(0, |n| n + 1));
    let status = text.find("HTTP/1.").filter(|at| *at == 0 || !text[..*at].ends_with(' '));
    line.into_iter().chain(status).min()
}

fn masked(field: &str) -> String {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    let hidden = match name.to_ascii_lowercase().as_str() {
        "date" | "x-request-id" | "x-envoy-upstream-service-time" | "x-forwarded-for" => true,
        "x-envoy-expected-rq-timeout-ms" => true,
        "server" => matches!(value.trim(), "envoy" | "serin"),
        _ => false,
    };
    if hidden { format!("{name}: *") } else { field.to_owned() }
}
