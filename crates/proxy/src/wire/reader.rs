//! Bodies as a sequence of frames, whatever they come from.
//!
//! `take` yields what is at hand without waiting, `fill` waits for more. Both keep all progress in the object, so a
//! future made from them can be dropped and made anew at any point without losing a byte.

use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use serin_http1::body::BodyDecoder;
use serin_http1::framing::Framing;
use serin_http1::{HeaderBlock, Version};
use serin_http2::{Piece, StreamError, StreamHandle};
use serin_resources::connection_manager::Underscores;
use serin_transport::ReadHalf;
use serin_transport::buffers::{self, READ_SIZE};
use tokio::io::AsyncReadExt as _;

use super::frame::{BodyError, Frame, Take};
use super::writer::{H1Writer, SMALL};
use crate::metric;

/// The reading half of an HTTP/1 connection.
pub(crate) struct H1Reader {
    pub(crate) socket: ReadHalf,
    pub(crate) buffer: BytesMut,
    pub(crate) decoder: BodyDecoder,
    /// The other end will send no more.
    pub(crate) ended: bool,
    /// The connection is broken.
    broken: bool,
    /// The number of bytes that are read at once: more while reads come back full.
    read_size: usize,
    /// True when the last read came back full, so that more is probably there.
    hungry: bool,
    /// Work since others had their turn, in bytes of crumbs.
    turn: usize,
    /// Bytes of the message at hand, and those of its head.
    pub(crate) taken: u64,
    pub(crate) head_bytes: u64,
    /// Trailers so far, and their limits.
    trailers: Option<Box<HeaderBlock>>,
    pub(crate) trailer_limits: TrailerLimits,
}

/// The limits of trailers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TrailerLimits {
    /// Number of fields.
    pub(crate) fields: usize,
    /// Bytes of names and values.
    pub(crate) bytes: usize,
    /// What becomes of names with an underscore.
    pub(crate) underscores: Underscores,
}

/// Bytes of crumbs, and eight times as many of large pieces, after which others have their turn, however much more is there.
const TURN: usize = 256 * 1024;
/// Pieces of a chunked body below this size are joined with the next, up to that size.
const CRUMB: usize = 1024;
const JOINED: usize = 16 * 1024;
/// Bytes that are read at once at most.
const LARGEST_READ: usize = 128 * 1024;

impl H1Reader {
    /// A reader that begins with what was read before.
    pub(crate) fn new(socket: ReadHalf, buffer: BytesMut) -> Self {
        let decoder = BodyDecoder::new(Framing::Empty);
        Self {
            socket,
            buffer,
            decoder,
            ended: false,
            broken: false,
            read_size: READ_SIZE,
            hungry: false,
            turn: 0,
            taken: 0,
            head_bytes: 0,
            trailers: None,
            trailer_limits: TrailerLimits::default(),
        }
    }

    /// Takes a head of so many bytes off the buffer: a message begins. Of its fields their lines count, without the first line and
    /// without line feeds (Envoy: `ConnectionImpl::completeCurrentHeader`).
    pub(crate) fn begin(&mut self, head: usize, fields: usize) {
        let line = self.buffer.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.buffer.advance(head);
        self.head_bytes = head.saturating_sub(line + 2 + fields) as u64;
        self.taken = head as u64;
    }

    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        loop {
            let step = self.decoder.step(&self.buffer).map_err(|_| BodyError::Malformed)?;
            self.buffer.advance(step.skip);
            self.taken += (step.skip + step.data + step.trailer) as u64;
            if step.data > 0 {
                let data = if step.data < CRUMB && step.data < self.buffer.len() && !step.done {
                    self.join(step.data)?
                } else {
                    self.buffer.split_to(step.data).freeze()
                };
                return Ok(Take::Frame(Frame::Data(data)));
            }
            if step.trailer > 0 {
                self.keep_trailer(step.trailer)?;
                continue;
            }
            if step.done {
                return Ok(self.last());
            }
            if step.skip == 0 {
                break;
            }
        }
        self.at_pause()
    }

    /// The trailers, or the end.
    fn last(&mut self) -> Take {
        match self.trailers.take() {
            Some(trailers) => Take::Frame(Frame::Trailers(*trailers)),
            None => Take::End,
        }
    }

    /// Keeps the line of a trailer that the buffer begins with.
    fn keep_trailer(&mut self, length: usize) -> Result<(), BodyError> {
        let line = self.buffer.split_to(length);
        let TrailerLimits { fields, bytes, underscores } = self.trailer_limits;
        let colon = line.iter().position(|b| *b == b':').ok_or(BodyError::Malformed)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let trailers = self.trailers.get_or_insert_default();
        if name.contains(&b'_') && underscores != Underscores::Allow {
            if underscores == Underscores::Reject {
                return Err(BodyError::Underscore);
            }
            metric::count_codec(Version::Http11, metric::codec::UNDERSCORES_DROPPED, 1);
            return Ok(());
        }
        trailers.append(name, value);
        match () {
            () if trailers.len() > fields => Err(BodyError::TooMany),
            () if trailers.wire_size() > bytes => Err(BodyError::TooLarge),
            () => Ok(()),
        }
    }

    /// As [`take`](Self::take), but small pieces go to an HTTP/1 writer directly, without a frame made for each.
    pub(crate) fn pour(&mut self, writer: &mut H1Writer, moved: &mut u64) -> Result<Take, BodyError> {
        loop {
            let step = self.decoder.step(&self.buffer).map_err(|_| BodyError::Malformed)?;
            self.buffer.advance(step.skip);
            self.taken += (step.skip + step.data + step.trailer) as u64;
            if step.data > SMALL {
                return Ok(Take::Frame(Frame::Data(self.buffer.split_to(step.data).freeze())));
            }
            if step.data > 0 && step.data < CRUMB && step.data < self.buffer.len() && !step.done {
                let joined = self.join(step.data)?;
                *moved += joined.len() as u64;
                writer.push_small(&joined);
                continue;
            }
            writer.push_small(self.buffer.get(..step.data).unwrap_or_default());
            *moved += step.data as u64;
            self.buffer.advance(step.data);
            if step.trailer > 0 {
                self.keep_trailer(step.trailer)?;
                continue;
            }
            if step.done {
                return Ok(self.last());
            }
            if step.skip == 0 && step.data == 0 {
                return self.at_pause();
            }
        }
    }

    /// The first bytes of the buffer with the pieces that follow: chunks of a byte each cost no frame each.
    fn join(&mut self, first: usize) -> Result<Bytes, BodyError> {
        let mut joined = BytesMut::with_capacity(self.buffer.len().min(JOINED));
        let mut size = first;
        loop {
            joined.extend_from_slice(self.buffer.get(..size).unwrap_or_default());
            self.buffer.advance(size);
            if joined.len() >= JOINED || self.decoder.is_done() {
                return Ok(joined.freeze());
            }
            // What is wrong behind it shows again when it has gone on.
            let Ok(step) = self.decoder.step(&self.buffer) else { return Ok(joined.freeze()) };
            self.buffer.advance(step.skip);
            self.turn += step.skip + step.data;
            self.taken += (step.skip + step.data + step.trailer) as u64;
            if step.trailer > 0 {
                self.keep_trailer(step.trailer)?;
            }
            if step.data == 0 {
                return Ok(joined.freeze());
            }
            size = step.data;
        }
    }

    /// The meaning of a read that found nothing more.
    fn at_pause(&self) -> Result<Take, BodyError> {
        match (self.ended, self.decoder.ends_with_connection()) {
            (false, _) => Ok(Take::Wait),
            (true, true) => Ok(Take::End),
            (true, false) => Err(BodyError::Truncated),
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        if self.turn >= TURN {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
        if self.buffer.is_empty() {
            self.rest();
            let ready = std::future::poll_fn(|cx| self.socket.poll_read_ready(cx)).await;
            ready.map_err(|_| BodyError::Aborted)?;
            if self.read_size == READ_SIZE {
                self.buffer = buffers::take();
            }
        }
        let room = self.make_room();
        match self.socket.read_buf(&mut self.buffer).await {
            Ok(0) => self.ended = true,
            Ok(n) => self.note(n, room),
            Err(_) => {
                self.broken = true;
                return Err(BodyError::Aborted);
            }
        }
        Ok(())
    }

    /// Returns true when the other end has closed the connection, or broken it off.
    pub(crate) fn is_gone(&self) -> bool {
        self.ended || self.broken
    }

    /// Gives an empty buffer back: what waits needs none.
    pub(crate) fn rest(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            buffers::give(std::mem::take(&mut self.buffer));
        }
    }

    /// Reads without waiting when the last read says that more is there; true when something came.
    pub(crate) fn fill_more(&mut self) -> bool {
        if !self.hungry || self.ended || self.turn >= TURN {
            return false;
        }
        let room = self.make_room();
        match self.socket.try_read_buf(&mut self.buffer) {
            Ok(n) if n > 0 => {
                self.note(n, room);
                true
            }
            // The end, or an error, shows again in the read that waits.
            _ => {
                self.hungry = false;
                false
            }
        }
    }

    fn make_room(&mut self) -> usize {
        self.buffer.reserve(self.read_size);
        self.buffer.capacity() - self.buffer.len()
    }

    fn note(&mut self, read: usize, room: usize) {
        // Large pieces cost little a byte.
        self.turn += read / 8;
        self.hungry = read >= room;
        if self.hungry {
            self.read_size = (self.read_size * 4).min(LARGEST_READ);
        } else if read < self.read_size / 8 {
            self.read_size = READ_SIZE;
        }
    }
}

/// The receiving half of an HTTP/2 stream.
pub(crate) struct H2Reader {
    stream: Rc<StreamHandle>,
    /// Whatever comes is of no use.
    discarding: bool,
}

impl H2Reader {
    pub(crate) fn new(stream: Rc<StreamHandle>) -> Self {
        Self { stream, discarding: false }
    }

    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        if self.discarding {
            return Ok(Take::End);
        }
        match self.stream.take() {
            Ok(Some(Piece::Data(data))) => Ok(Take::Frame(Frame::Data(data))),
            Ok(Some(Piece::Trailers(trailers))) => Ok(Take::Frame(Frame::Trailers(trailers))),
            Ok(None) if self.stream.is_ended() => Ok(Take::End),
            Ok(None) => Ok(Take::Wait),
            Err(StreamError::Malformed) => Err(BodyError::Malformed),
            Err(_) => Err(BodyError::Aborted),
        }
    }

    pub(crate) async fn fill(&mut self) {
        std::future::poll_fn(|cx| self.stream.poll_readable(cx)).await;
    }

    /// Returns true when something of the body is there.
    pub(crate) fn has_data(&self) -> bool {
        self.stream.has_data()
    }

    /// Takes whatever else may come for nothing.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
    }

    /// Returns true when nothing follows what was taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.discarding || self.stream.is_ended()
    }
}

/// The source of a message's body: an HTTP/1 connection or an HTTP/2 stream, from a client or an upstream.
pub(crate) enum BodySource<'a> {
    /// An HTTP/1 connection.
    H1(&'a mut H1Reader),
    /// An HTTP/2 stream.
    H2(&'a mut H2Reader),
}

impl BodySource<'_> {
    /// Yields what is at hand.
    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        match self {
            Self::H1(reader) => reader.take(),
            Self::H2(reader) => reader.take(),
        }
    }

    /// Waits for more.
    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        match self {
            Self::H1(reader) => reader.fill().await,
            Self::H2(reader) => {
                reader.fill().await;
                Ok(())
            }
        }
    }

    /// Reads on without waiting when more is probably there; true when something came.
    pub(crate) fn fill_more(&mut self) -> bool {
        match self {
            Self::H1(reader) => reader.fill_more(),
            Self::H2(_) => false,
        }
    }

    /// Returns true when the message has no more body.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::H1(reader) => reader.decoder.is_done(),
            Self::H2(reader) => reader.is_ended(),
        }
    }
}
