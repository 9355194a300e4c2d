//! Bodies as a sequence of frames, whatever they come from.
//!
//! `take` yields what is at hand without waiting, `fill` waits for more. Both keep all progress in the object, so a
//! future made from them can be dropped and made anew at any point without losing a byte.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serin_http1::HeaderBlock;
use serin_http1::body::BodyDecoder;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedReadHalf;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Fields after the last byte.
    Trailers(HeaderBlock),
}

/// What is at hand.
#[derive(Debug)]
pub(crate) enum Take {
    /// A piece.
    Frame(Frame),
    /// The proper end.
    End,
    /// Nothing yet.
    Wait,
}

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The sender broke the protocol.
    Malformed,
    /// The sender went away before the end.
    Aborted,
}

/// The reading half of an HTTP/1 connection.
pub(crate) struct H1Reader {
    pub(crate) socket: OwnedReadHalf,
    pub(crate) buffer: BytesMut,
    pub(crate) decoder: BodyDecoder,
    /// The other end will send no more.
    pub(crate) ended: bool,
}

const READ_SIZE: usize = 16 * 1024;

impl H1Reader {
    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        loop {
            let step = self.decoder.step(&self.buffer).map_err(|_| BodyError::Malformed)?;
            let _ = self.buffer.split_to(step.skip);
            if step.data > 0 {
                return Ok(Take::Frame(Frame::Data(self.buffer.split_to(step.data).freeze())));
            }
            if step.done {
                return Ok(Take::End);
            }
            if step.skip == 0 {
                break;
            }
        }
        match (self.ended, self.decoder.ends_with_connection()) {
            (false, _) => Ok(Take::Wait),
            (true, true) => Ok(Take::End),
            (true, false) => Err(BodyError::Aborted),
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        self.buffer.reserve(READ_SIZE);
        match self.socket.read_buf(&mut self.buffer).await {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(_) => return Err(BodyError::Aborted),
        }
        Ok(())
    }
}

/// The receiving half of an HTTP/2 stream.
pub(crate) struct H2Reader {
    stream: h2::RecvStream,
    pending: VecDeque<Frame>,
    ended: bool,
}

impl H2Reader {
    pub(crate) fn new(stream: h2::RecvStream) -> Self {
        Self { ended: stream.is_end_stream(), stream, pending: VecDeque::new() }
    }

    pub(crate) fn take(&mut self) -> Take {
        match self.pending.pop_front() {
            Some(frame) => Take::Frame(frame),
            None if self.ended => Take::End,
            None => Take::Wait,
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        match self.stream.data().await {
            Some(Ok(data)) => {
                let _ = self.stream.flow_control().release_capacity(data.len());
                if !data.is_empty() {
                    self.pending.push_back(Frame::Data(data));
                }
                self.ended = self.stream.is_end_stream();
            }
            Some(Err(error)) => return Err(if error.is_io() { BodyError::Aborted } else { BodyError::Malformed }),
            None => {
                let trailers = self.stream.trailers().await.map_err(|_| BodyError::Aborted)?;
                self.pending.extend(trailers.map(|t| Frame::Trailers(super::trailers_from_h2(&t))));
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Whether the peer gave the stream up.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }
}

/// Where a request's body comes from.
pub(crate) enum Source<'a> {
    /// An HTTP/1 connection.
    H1(&'a mut H1Reader),
    /// An HTTP/2 stream.
    H2(H2Reader),
}

impl Source<'_> {
    fn take(&mut self) -> Result<Take, BodyError> {
        match self {
            Self::H1(reader) => reader.take(),
            Self::H2(reader) => Ok(reader.take()),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match self {
            Self::H1(reader) => reader.fill().await,
            Self::H2(reader) => reader.fill().await,
        }
    }
}

/// A request's body that can be sent again while it is short.
pub(crate) struct RequestBody<'a> {
    source: Source<'a>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    position: usize,
    keeping: bool,
    lost: bool,
    finished: bool,
}

/// Longest body that is kept for another try (Envoy's default buffer is 1 MiB; its edge advice 32 KiB).
const KEEP: usize = 64 * 1024;

impl<'a> RequestBody<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        let finished = match &source {
            Source::H1(reader) => reader.decoder.is_done(),
            Source::H2(reader) => reader.is_ended(),
        };
        Self { source, kept: Vec::new(), kept_bytes: 0, position: 0, keeping: false, lost: false, finished }
    }

    /// Whether there is nothing to send at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.finished && self.kept.is_empty()
    }

    /// Keeps what is read from now on.
    pub(crate) fn keep(&mut self) {
        self.keeping = true;
    }

    /// Keeps no more: there will be no other try.
    pub(crate) fn forget(&mut self) {
        self.keeping = false;
        self.lost = true;
        self.kept.drain(..self.position.min(self.kept.len()));
        self.position = 0;
    }

    /// Starts over for another try; false when that is not possible any more.
    pub(crate) fn rewind(&mut self) -> bool {
        self.position = 0;
        !self.lost
    }

    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        if let Some(bytes) = self.kept.get(self.position) {
            let bytes = bytes.clone();
            self.position += 1;
            return Ok(Take::Frame(Frame::Data(bytes)));
        }
        let taken = self.source.take()?;
        match &taken {
            Take::Frame(Frame::Data(bytes)) => self.remember(bytes),
            Take::Frame(Frame::Trailers(_)) => self.lost = true,
            Take::End => self.finished = true,
            Take::Wait => {}
        }
        Ok(taken)
    }

    fn remember(&mut self, bytes: &Bytes) {
        if !self.keeping || self.lost {
            self.lost = true;
            return;
        }
        self.kept_bytes += bytes.len();
        if self.kept_bytes > KEEP {
            self.kept.clear();
            self.position = 0;
            self.lost = true;
        } else {
            self.kept.push(bytes.clone());
            self.position += 1;
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        self.source.fill().await
    }

    /// Waits until the client is certainly gone; bytes it sends ahead are kept. Never returns while it stays.
    pub(crate) async fn abandoned(&mut self) {
        match &mut self.source {
            Source::H1(reader) if reader.buffer.len() < READ_SIZE && !reader.ended => loop {
                if reader.fill().await.is_err() {
                    return;
                }
                if reader.ended || reader.buffer.len() >= READ_SIZE {
                    return std::future::pending().await;
                }
            },
            _ => std::future::pending().await,
        }
    }
}
