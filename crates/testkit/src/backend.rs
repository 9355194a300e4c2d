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
    /// Answers every request head with `answer`, a complete response, and goes on with the connection.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub fn answering(answer: impl Into<Vec<u8>>) -> std::io::Result<Self> {
        let answer = answer.into();
        Self::scripted(move |stream, seen| {
            let mut buffer = Vec::new();
            loop {
                let Some(end) = head_end(&buffer) else {
                    if read(stream, &mut buffer, seen) == 0 {
                        return;
                    }
                    continue;
                };
                let body = body_length(buffer.get(..end).unwrap_or_default());
                while buffer.len() < end + body {
                    if read(stream, &mut buffer, seen) == 0 {
                        return;
                    }
                }
                buffer.drain(..end + body);
                if stream.write_all(&answer).is_err() {
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

fn body_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = text.lines().find_map(|l| l.strip_prefix("content-length:").map(|v| v.trim().to_owned()));
    value.and_then(|v| v.parse().ok()).unwrap_or(0)
}
