//! A backend that records the exact bytes of every connection and answers by a script.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A recording backend; it serves until the process ends.
#[derive(Clone)]
pub struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Backend {
    /// Answers every complete request with `answer`, a complete response, and goes on with the connection.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn answering(answer: impl Into<Vec<u8>>) -> std::io::Result<Self> {
        let answer = answer.into();
        Self::scripted(move |stream, seen| {
            let mut buffer = Vec::new();
            loop {
                while let Some(end) = request_end(&buffer) {
                    buffer.drain(..end);
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
                if read(stream, &mut buffer, seen) == 0 {
                    return;
                }
            }
        })
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
        Ok(Self { address, seen })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes what was received so far.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads more into `buffer` and the record; 0 at the end.
pub fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &Mutex<Vec<u8>>) -> usize {
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
fn request_end(buffer: &[u8]) -> Option<usize> {
    let head = head_end(buffer)?;
    let text = String::from_utf8_lossy(buffer.get(..head)?).to_ascii_lowercase();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name).map(str::trim));
    if field("transfer-encoding:") == Some("chunked") {
        return chunks_end(buffer, head);
    }
    let length: usize = field("content-length:").and_then(|v| v.parse().ok()).unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}

/// Index after the chunks and trailers that begin at `at`. A size that is none is never complete.
fn chunks_end(buffer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = buffer.get(at..)?;
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let digits = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            return head_end(rest).map(|end| at + end);
        }
        at += line + 2 + size + 2;
    }
}
