//! A backend that records the exact bytes of every connection and answers by a script.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A recording backend; it serves until the process ends.
#[derive(Clone)]
pub struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    answered: Arc<AtomicUsize>,
}

impl Backend {
    /// Answers every complete request with `answer`, a complete response, and goes on with the connection.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn answering(answer: impl Into<Vec<u8>>) -> std::io::Result<Self> {
        let answer = answer.into();
        let answered = Arc::<AtomicUsize>::default();
        let count = answered.clone();
        let backend = Self::scripted(move |stream, seen| {
            let mut buffer = Vec::new();
            loop {
                while let Some(end) = request_end(&buffer) {
                    let head_only = buffer.starts_with(b"HEAD ");
                    buffer.drain(..end);
                    count.fetch_add(1, Ordering::SeqCst);
                    let length = head_end(&answer).filter(|_| head_only).unwrap_or(answer.len());
                    if stream.write_all(answer.get(..length).unwrap_or_default()).is_err() {
                        return;
                    }
                }
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
        })?;
        Ok(Self { answered, ..backend })
    }

    /// Runs `script` on every connection; it gets the stream and where to record.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn scripted(script: impl Fn(&mut TcpStream, &Mutex<Vec<u8>>) + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let record = seen.clone();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (script, record) = (script.clone(), record.clone());
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let _ = stream.set_nodelay(true);
                std::thread::spawn(move || script(&mut stream, &record));
            }
        });
        Ok(Self { address, seen, answered: Arc::default() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many complete requests [`Backend::answering`] has seen.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Takes what was received so far.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads more into `buffer` and the record; 0 at the end.
pub fn read(stream: &mut impl Read, buffer: &mut Vec<u8>, seen: &Mutex<Vec<u8>>) -> usize {
    let mut chunk = [0u8; 16 * 1024];
    let n = stream.read(&mut chunk).unwrap_or(0);
    let bytes = chunk.get(..n).unwrap_or_default();
    buffer.extend_from_slice(bytes);
    seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    n
}

/// Index after the empty line.
#[must_use]
pub fn head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Index after the whole of the first request, by its length or its chunks; `None` while more must come.
#[must_use]
pub fn request_end(buffer: &[u8]) -> Option<usize> {
    let head = head_end(buffer)?;
    let text = String::from_utf8_lossy(buffer.get(..head)?).to_ascii_lowercase();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name).map(str::trim));
    if field("transfer-encoding:") == Some("chunked") {
        return chunks(buffer, head).map(|(_, end)| end);
    }
    let length: usize = field("content-length:").and_then(|v| v.parse().ok()).unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}

/// The requests of a record, each with its chunks as one, so that how bytes were cut does not show; what is not a
/// complete request stays as it is.
#[must_use]
pub fn canonical(record: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = record;
    while let Some(end) = request_end(rest) {
        let (request, after) = rest.split_at(end);
        rest = after;
        let head = head_end(request).unwrap_or_default();
        all.extend_from_slice(request.get(..head).unwrap_or_default());
        match chunks(request, head).filter(|(_, chunked_end)| *chunked_end == end) {
            Some((body, _)) => {
                let last = request.windows(3).rposition(|w| w == b"0\r\n").unwrap_or_default();
                all.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                all.extend_from_slice(&body);
                all.extend_from_slice(b"\r\n");
                all.extend_from_slice(request.get(last..).unwrap_or_default());
            }
            None => all.extend_from_slice(request.get(head..).unwrap_or_default()),
        }
    }
    all.extend_from_slice(rest);
    all
}

/// The data of the chunks that begin at `at`, and the index after them and their trailers. A size that is none is never
/// complete.
fn chunks(buffer: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    loop {
        let rest = buffer.get(at..)?;
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?, 16).ok()?;
        if size == 0 {
            return head_end(rest).map(|end| (data, at + end));
        }
        data.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        at += line + 2 + size + 2;
    }
}
