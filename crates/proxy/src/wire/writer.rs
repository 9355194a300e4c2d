//! The sinks of frames: an HTTP/1 connection or an HTTP/2 stream, towards a client or an upstream.
//!
//! `push` never waits; `flush` does, and can be dropped and made anew without losing or repeating a byte.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::{Buf as _, Bytes};
use serin_http1::HeaderBlock;
use serin_http1::encode::{self, LAST_CHUNK, Style, chunk_header};
use serin_http2::{Reason, StreamHandle};
use serin_transport::WriteHalf;
use tokio::io::AsyncWriteExt as _;

use super::frame::Frame;

/// The peer takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// The writing half of an HTTP/1 connection.
pub(crate) struct H1Writer {
    pub(crate) socket: WriteHalf,
    /// Bytes to be written before `bodies`.
    pub(crate) out: Vec<u8>,
    written: usize,
    large: VecDeque<Bytes>,
    /// Bytes in `large`.
    large_bytes: usize,
    /// Bytes of the message at hand that have left, and those of its head.
    pub(crate) left: u64,
    pub(crate) head_bytes: u64,
    /// True when data goes out in chunks.
    pub(crate) chunked: bool,
    /// How trailers are written; `None` drops them.
    pub(crate) trailers: Option<Style>,
    /// True when its end is that of the connection's half.
    pub(crate) is_tunnel: bool,
    /// True when the half ends once everything has left.
    closes: bool,
}

/// Data up to this size is copied behind the head, so that both leave in one segment.
pub(crate) const SMALL: usize = 4 * 1024;
/// Unwritten bytes from which on a writer should be flushed.
const FULL: usize = 64 * 1024;

impl H1Writer {
    pub(crate) fn new(socket: WriteHalf) -> Self {
        Self {
            socket,
            out: Vec::new(),
            written: 0,
            large: VecDeque::new(),
            large_bytes: 0,
            left: 0,
            head_bytes: 0,
            chunked: false,
            trailers: None,
            is_tunnel: false,
            closes: false,
        }
    }

    /// Frees the memory of a connection that waits.
    pub(crate) fn rest(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }

    fn push(&mut self, data: Bytes) {
        if data.len() <= SMALL {
            return self.push_small(&data);
        }
        if self.chunked {
            self.append(|out| chunk_header(data.len(), out));
        }
        self.large_bytes += data.len();
        self.large.push_back(data);
        if self.chunked {
            self.append(|out| out.extend_from_slice(b"\r\n"));
        }
    }

    /// Queues a copy of `data`.
    pub(crate) fn push_small(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let chunked = self.chunked;
        self.append(|out| {
            if chunked {
                chunk_header(data.len(), out);
            }
            out.extend_from_slice(data);
            if chunked {
                out.extend_from_slice(b"\r\n");
            }
        });
    }

    /// Adds bytes behind everything that is queued.
    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.large.is_empty() {
            write(&mut self.out);
        } else {
            let mut tail = Vec::new();
            write(&mut tail);
            self.large_bytes += tail.len();
            self.large.push_back(tail.into());
        }
    }

    /// Ends a chunked body with trailers, where they may pass: RFC 9112 §7.1.2 lets them be dropped, and merging them is not safe.
    fn push_trailers(&mut self, trailers: &HeaderBlock) {
        let Some(style) = self.trailers.filter(|_| self.chunked) else { return };
        self.chunked = false;
        self.append(|out| {
            out.extend_from_slice(b"0\r\n");
            encode::trailers(trailers, style, out);
        });
    }

    fn finish(&mut self) {
        self.closes |= self.is_tunnel;
        if std::mem::take(&mut self.chunked) {
            self.append(|out| out.extend_from_slice(LAST_CHUNK));
        }
    }

    /// Returns true when everything that was queued has left.
    pub(crate) fn is_flushed(&self) -> bool {
        self.pending() == 0
    }

    fn pending(&self) -> usize {
        self.out.len() - self.written + self.large_bytes
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Closed> {
        while self.pending() > 0 {
            let written = {
                let head = self.out.get(self.written..).unwrap_or_default();
                if self.large.is_empty() {
                    self.socket.write(head).await
                } else {
                    let mut slices: Vec<IoSlice<'_>> = vec![IoSlice::new(head)];
                    slices.extend(self.large.iter().take(15).map(|b| IoSlice::new(b)));
                    self.socket.write_vectored(&slices).await
                }
            };
            match written {
                Ok(n) if n > 0 => self.advance(n),
                _ => return Err(Closed),
            }
        }
        if self.closes {
            self.socket.shutdown().await.map_err(|_| Closed)?;
            self.closes = false;
        }
        Ok(())
    }

    /// Begins a message whose head is written by `write`. Of its bytes those between the first line and the empty one count.
    pub(crate) fn begin(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.out.len();
        write(&mut self.out);
        let head = self.out.get(before..).unwrap_or_default();
        let line = head.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.head_bytes = head.len().saturating_sub(line + 2) as u64;
        self.left = 0;
    }

    fn advance(&mut self, mut n: usize) {
        self.left += n as u64;
        let head = (self.out.len() - self.written).min(n);
        self.written += head;
        n -= head;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        while let Some(front) = self.large.front_mut().filter(|_| n > 0) {
            let part = front.len().min(n);
            front.advance(part);
            self.large_bytes -= part;
            n -= part;
            if front.is_empty() {
                self.large.pop_front();
            }
        }
        while self.large.front().is_some_and(Bytes::is_empty) {
            self.large.pop_front();
        }
    }
}

/// The sending half of an HTTP/2 stream.
pub(crate) struct H2Writer {
    stream: Rc<StreamHandle>,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    trailers: Option<HeaderBlock>,
    ending: bool,
    ended: bool,
}

impl H2Writer {
    pub(crate) fn new(stream: Rc<StreamHandle>, ended: bool) -> Self {
        Self { stream, queue: VecDeque::new(), queued: 0, trailers: None, ending: ended, ended }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        while !self.queue.is_empty() {
            let last = self.queue.len() == 1 && self.ending && self.trailers.is_none();
            let Some(front) = self.queue.front_mut() else { break };
            let sent = self.stream.send(front, last).map_err(|_| Closed)?;
            front.advance(sent);
            self.queued -= sent;
            if front.is_empty() {
                self.ended |= last;
                self.queue.pop_front();
            } else {
                std::future::poll_fn(|cx| self.stream.poll_writable(cx)).await.map_err(|_| Closed)?;
            }
        }
        if self.ending && !self.ended {
            self.ended = true;
            let sent = match self.trailers.take() {
                Some(trailers) => self.stream.send_trailers(&trailers),
                None => self.stream.send(&[], true).map(|_| ()),
            };
            sent.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// Waits until the other end gives the stream up or is gone.
    async fn given_up(&mut self) {
        std::future::poll_fn(|cx| self.stream.poll_given_up(cx)).await;
    }

    /// Gives the stream up.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.reset(reason);
    }
}

/// The sink of a message's body: an HTTP/1 connection or an HTTP/2 stream, towards a client or an upstream.
pub(crate) enum BodySink<'a> {
    /// An HTTP/1 connection.
    H1(&'a mut H1Writer),
    /// An HTTP/2 stream.
    H2(&'a mut H2Writer),
}

impl BodySink<'_> {
    pub(crate) fn push(&mut self, frame: Frame) {
        match (self, frame) {
            (Self::H1(writer), Frame::Data(data)) => writer.push(data),
            (Self::H1(writer), Frame::Trailers(trailers)) => writer.push_trailers(&trailers),
            (Self::H2(writer), Frame::Data(data)) => {
                writer.queued += data.len();
                writer.queue.push_back(data);
            }
            (Self::H2(writer), Frame::Trailers(trailers)) => writer.trailers = Some(trailers),
        }
    }

    /// Says that nothing follows.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::H1(writer) => writer.finish(),
            Self::H2(writer) => writer.ending = true,
        }
    }

    /// Returns true when so much is queued that it should be flushed before more is pushed.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::H1(writer) => writer.pending() >= FULL,
            Self::H2(writer) => writer.queued >= FULL,
        }
    }

    /// Bytes of the message that have left, and those of its head; those of HTTP/2 are not told apart by streams.
    pub(crate) fn wire(&self) -> (u64, u64) {
        match self {
            Self::H1(writer) => (writer.left, writer.head_bytes),
            Self::H2(_) => (0, 0),
        }
    }

    /// Bytes that are queued.
    pub(crate) fn pending(&self) -> usize {
        match self {
            Self::H1(writer) => writer.pending(),
            Self::H2(writer) => writer.queued,
        }
    }

    /// Waits until the receiver of an HTTP/2 stream gives it up; what an HTTP/1 connection's end means, its reader
    /// knows.
    pub(crate) async fn given_up(&mut self) {
        match self {
            Self::H2(writer) => writer.given_up().await,
            Self::H1(_) => std::future::pending().await,
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Closed> {
        match self {
            Self::H1(writer) => writer.flush().await,
            Self::H2(writer) => writer.flush().await,
        }
    }
}
