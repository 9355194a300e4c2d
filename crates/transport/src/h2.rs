//! Carries bytes between a stream and an HTTP/2 session: reads what there is, writes what was collected.
//!
//! It does not look at requests; whoever calls it gets each as the session decodes it. What the tasks of all streams have
//! to say leaves with one write, after each had its turn.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use serin_http2::{Accepted, ConnectionError, Refused, Session};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep};

use crate::buffers::{self, READ_SIZE};
use crate::stream::ByteStream;

/// The interval at which a peer's budget is renewed.
const REFILL: Duration = Duration::from_secs(1);
/// Reads for which the clock is looked at once: what they can hold of frames without effect is within one budget.
const READS_PER_LOOK: u8 = 4;
/// The time that a peer that broke the protocol may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Reads in a row before others get their turn.
const READS: usize = 4;

/// The event that a session's stream of bytes brought.
pub enum Driven {
    /// A request.
    Request(Accepted),
    /// A request that the session has refused.
    Refused(Refused),
    /// The end: everything is done, or the connection is broken.
    Ended,
}

/// The owner of a session's stream of bytes.
pub struct Driver {
    stream: ByteStream,
    session: Session,
    input: BytesMut,
    /// Bytes on their way out, and how many have left.
    output: Vec<u8>,
    written: usize,
    refilled: Instant,
    /// Counts reads, to look at the clock now and then only.
    reads: u8,
    /// True when bytes came that nobody was told of.
    was_heard: bool,
    /// True when others had their turn since there is something to write.
    rested: bool,
    /// The peer broke the protocol; it is told, then the connection ends, at the latest when this time has passed.
    failed: Option<Pin<Box<Sleep>>>,
    error: Option<ConnectionError>,
    /// Is told how many bytes were received and sent.
    moved: Option<Box<dyn Fn(u64, u64)>>,
}

impl Driver {
    /// Creates a driver that begins with what was read before.
    #[must_use]
    pub fn new(stream: ByteStream, session: Session, input: BytesMut) -> Self {
        Self {
            stream,
            session,
            input,
            output: Vec::new(),
            written: 0,
            refilled: Instant::now(),
            reads: 0,
            was_heard: false,
            rested: false,
            failed: None,
            error: None,
            moved: None,
        }
    }

    /// The same, which tells how many bytes were received and sent.
    #[must_use]
    pub fn telling(self, moved: Box<dyn Fn(u64, u64)>) -> Self {
        Self { moved: Some(moved), ..self }
    }

    /// Returns the peer's violation for which the connection ends, if there is one.
    #[must_use]
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// Moves bytes until the peer has begun as it must; false when it never does.
    pub async fn settled(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            let ended = self.poll_io(cx).is_ready();
            match self.session.is_settled() {
                true => Poll::Ready(!ended),
                false if ended => Poll::Ready(false),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Moves bytes until there is a request or the end. It can be dropped and made anew.
    pub async fn next(&mut self) -> Driven {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Does what [`next`](Self::next) does, and calls `heard` whenever bytes came.
    pub async fn next_noticing(&mut self, mut heard: impl FnMut()) -> Driven {
        std::future::poll_fn(|cx| {
            let driven = self.poll_next(cx);
            if std::mem::take(&mut self.was_heard) {
                heard();
            }
            driven
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Driven> {
        if let Some(accepted) = self.session.accept() {
            return Poll::Ready(Driven::Request(accepted));
        }
        let ended = self.poll_io(cx).is_ready();
        match self.session.accept() {
            Some(accepted) => Poll::Ready(Driven::Request(accepted)),
            None => match self.session.refused() {
                Some(refused) => Poll::Ready(Driven::Refused(refused)),
                None if ended => Poll::Ready(Driven::Ended),
                None => Poll::Pending,
            },
        }
    }

    /// Reads and writes what can be; ready when the connection is over.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() && self.failed.is_none() {
            self.received();
        }
        let ended = self.failed.is_none() && self.poll_read(cx).is_ready();
        if !ended && self.failed.is_none() && !self.rested && self.session.has_output() {
            // Others that are ready may have something to say on this connection too: it all leaves with one write, once
            // every task had its turn.
            self.rested = true;
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        self.rested = false;
        let broken = matches!(self.poll_write(cx), Poll::Ready(Err(_)));
        let done = self.output.is_empty() && (self.failed.is_some() || self.session.is_finished());
        let late = self.failed.as_mut().is_some_and(|time| time.as_mut().poll(cx).is_ready());
        if ended || broken || done || late {
            self.session.close();
            return Poll::Ready(());
        }
        self.session.wait_for_output(cx);
        Poll::Pending
    }

    /// Ready when the peer has ended or broken off.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS {
            if self.input.is_empty() && self.input.capacity() > 0 {
                buffers::give(std::mem::take(&mut self.input));
            }
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            if self.input.capacity() == 0 {
                self.input = buffers::take();
            }
            self.input.reserve(READ_SIZE);
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(n)) if n > 0 => self.moved.iter().for_each(|moved| moved(n as u64, 0)),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => continue,
            }
            self.received();
            if self.failed.is_some() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn received(&mut self) {
        if let Err(error) = self.session.receive(&mut self.input) {
            tracing::debug!(%error, "HTTP/2 connection given up");
            self.error = Some(error);
            self.failed = Some(Box::pin(tokio::time::sleep(LAST_WORDS)));
        }
        self.was_heard = true;
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(READS_PER_LOOK) {
            let now = Instant::now();
            if now - self.refilled > REFILL {
                self.refilled = now;
                self.session.refill();
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.written == self.output.len() {
                self.written = 0;
                self.output.clear();
                if !self.session.take_output(&mut self.output) {
                    // What is idle keeps no large buffer.
                    self.output.shrink_to(KEPT_OUTPUT);
                    return Poll::Ready(Ok(()));
                }
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            match ready!(pin!(self.stream.write(rest)).poll(cx))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                n => {
                    self.written += n;
                    self.moved.iter().for_each(|moved| moved(0, n as u64));
                }
            }
        }
    }
}

/// Bytes of an output buffer that a quiet connection keeps.
const KEPT_OUTPUT: usize = 8 * 1024;

#[cfg(test)]
mod tests;
