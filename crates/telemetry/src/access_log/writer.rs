//! Log lines leave the request path over a bounded queue to one thread; when it is full, lines are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The output of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Appended to a file.
    File(String),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The sending end of a log.
#[derive(Debug)]
pub struct Writer {
    lines: SyncSender<String>,
    dropped: AtomicU64,
}

const QUEUE: usize = 8192;

impl Writer {
    /// Opens the destination and starts its thread.
    ///
    /// # Errors
    /// When the file cannot be opened or no thread can be started.
    pub fn open(destination: &Destination) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let out: Box<dyn Write + Send> = match destination {
            Destination::File(path) if path == "/dev/stdout" => Box::new(io::stdout()),
            Destination::File(path) if path == "/dev/stderr" => Box::new(io::stderr()),
            Destination::File(path) => Box::new(append(path)?),
            Destination::Stdout => Box::new(io::stdout()),
            Destination::Stderr => Box::new(io::stderr()),
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || drain(&queue, out))?;
        Ok(Self { lines, dropped: AtomicU64::new(0) })
    }

    /// Queues a line.
    pub fn write(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines lost because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn append(path: &str) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes until every sender is gone; flushes whenever the queue is empty.
fn drain(queue: &Receiver<String>, out: Box<dyn Write + Send>) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    while let Ok(line) = queue.recv() {
        let mut failed = out.write_all(line.as_bytes()).is_err();
        while let Ok(line) = queue.try_recv() {
            failed |= out.write_all(line.as_bytes()).is_err();
        }
        failed |= out.flush().is_err();
        if failed {
            return;
        }
    }
}
