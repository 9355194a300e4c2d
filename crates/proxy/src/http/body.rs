//! A request's body: whatever it comes from, past the filters that want to see it, and sent again while it is short.

mod copies;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use serin_http1::HeaderBlock;
use serin_http1::body::BodyDecoder;
use serin_http1::framing::Framing;
use serin_transport::buffers::READ_SIZE;

use super::alter::{BodyFilter, BodyTransform, PacedChunk};
use super::hang_up::{Watch, hung_up};
use crate::timer::Timers;
use crate::wire::{BodyError, BodySource, Frame, Take};
pub(crate) use copies::BodyCopy;
use copies::Copier;

/// The source of a request's body.
pub(crate) enum Source<'a> {
    /// The client's connection or stream.
    Client(BodySource<'a>),
    /// A copy of another request's body.
    Copy(BodyCopy),
}

impl Source<'_> {
    fn take(&mut self) -> Result<Take, BodyError> {
        match self {
            Self::Client(source) => source.take(),
            Self::Copy(copy) => copy.take(),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Client(source) => source.fill().await,
            Self::Copy(copy) => copy.fill().await,
        }
    }
}

#[cfg(test)]
impl Source<'static> {
    /// These parts, and then the end unless more is to come.
    pub(super) fn of(parts: &[&'static str], is_whole: bool) -> Self {
        let parts: Vec<Bytes> = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
        let (copy, copier) = copies::begin(parts.iter(), is_whole);
        // Without its writing end a copy would be broken off.
        std::mem::forget(copier);
        Self::Copy(copy)
    }
}

/// A request's body that can be sent again while it is short.
pub(crate) struct RequestBody<'a> {
    source: Source<'a>,
    /// The filters that it passes behind its source, when a filter wants to see it.
    filtered: Option<Box<Filtered>>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    position: usize,
    /// Trailers that were received, and whether they were taken.
    trailers: Option<Box<HeaderBlock>>,
    trailers_taken: bool,
    /// Bytes that are kept at most; `None` keeps nothing.
    keeping: Option<usize>,
    lost: bool,
    /// True when it is that of a request for another protocol.
    is_tunnel: bool,
    /// True while nothing of it may go on: nobody has agreed yet.
    held: bool,
    /// True when it became longer than what is kept.
    overflowed: bool,
    finished: bool,
    received: u64,
    copies: Vec<Copier>,
    /// True when an interim response may be sent: the client understands it, and the response has not begun.
    pub(crate) interim: bool,
    /// Longest silence of either side before the request is given up; zero is for ever.
    pub(crate) idle: Duration,
    pub(crate) timers: &'a Timers,
}

/// The result of receiving a whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// It is there, with so many bytes.
    Whole(u64),
    /// It is longer than it may be.
    TooLong,
    /// It is not framed as it should be.
    Malformed,
    /// Nothing of it came for too long.
    Silent,
    /// The client is gone.
    Gone,
}

/// Longest body that is kept for another attempt that no policy asks for.
pub(super) const KEEP: usize = 64 * 1024;

impl<'a> RequestBody<'a> {
    pub(crate) fn new(source: Source<'a>, timers: &'a Timers) -> Self {
        let finished = match &source {
            Source::Client(source) => source.is_ended(),
            Source::Copy(copy) => copy.is_empty(),
        };
        timers.set_received(Some(timers.last()));
        Self {
            source,
            filtered: None,
            kept: Vec::new(),
            kept_bytes: 0,
            position: 0,
            trailers: None,
            trailers_taken: false,
            keeping: None,
            lost: false,
            is_tunnel: false,
            held: false,
            overflowed: false,
            finished,
            received: 0,
            copies: Vec::new(),
            interim: false,
            idle: Duration::ZERO,
            timers,
        }
    }

    /// Returns true when there is nothing to send at all.
    pub(crate) fn is_empty(&self) -> bool {
        (self.finished || self.held) && self.kept.is_empty() && self.trailers.is_none()
    }

    /// Holds everything that follows the head until another protocol is agreed on.
    pub(super) fn hold(&mut self) {
        self.is_tunnel = true;
        self.held = true;
    }

    /// Returns true when something was sent before another protocol was agreed on.
    pub(super) fn has_early_data(&self) -> bool {
        match &self.source {
            Source::Client(BodySource::H1(reader)) => !reader.buffer.is_empty(),
            Source::Client(BodySource::H2(reader)) => reader.has_data(),
            Source::Copy(_) => false,
        }
    }

    /// Returns true when another protocol may follow: what belongs to the request has all come.
    pub(super) fn may_open(&self) -> bool {
        self.held || self.finished
    }

    /// Lets what follows pass: it is another protocol from now on.
    pub(super) fn open(&mut self) {
        self.is_tunnel = true;
        self.held = false;
        self.finished = false;
        self.timers.set_received(None);
        self.lost = true;
        if let Source::Client(BodySource::H1(reader)) = &mut self.source {
            reader.decoder = BodyDecoder::new(Framing::UntilClose);
        }
    }

    /// Bytes that came on the wire, and those of the head.
    pub(crate) fn wire(&self) -> (u64, u64) {
        match &self.source {
            Source::Client(BodySource::H1(reader)) => (reader.taken, reader.head_bytes),
            Source::Client(BodySource::H2(_)) | Source::Copy(_) => (0, 0),
        }
    }

    /// Bytes read from the client.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Keeps what is read from now on, as long as it is not more than that.
    pub(crate) fn keep(&mut self, most: usize) {
        self.keeping = Some(most);
    }

    /// Keeps no more: there will be no other try, and the response begins.
    pub(crate) fn forget(&mut self) {
        self.interim = false;
        self.keeping = None;
        self.lost = true;
        self.kept.drain(..self.position.min(self.kept.len()));
        self.position = 0;
    }

    /// Returns true when all of it can be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        !self.lost
    }

    /// Returns true when it became longer than what is kept for another attempt.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Starts over for another attempt; only for a body that [is repeatable](Self::is_repeatable).
    pub(crate) fn rewind(&mut self) {
        if !self.lost {
            self.position = 0;
            self.trailers_taken = false;
        }
    }

    /// The number of kept pieces that were taken.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Goes on after so many of the kept pieces; only for a body that was received whole.
    pub(crate) fn resume(&mut self, position: usize) {
        self.position = position.min(self.kept.len());
        self.trailers_taken = false;
    }

    /// Sends nothing of it any more; only for a body that was received whole.
    pub(crate) fn drop_all(&mut self) {
        self.kept.clear();
        self.trailers = None;
        self.position = 0;
    }

    pub(crate) fn take(&mut self) -> Result<Take, BodyError> {
        if let Some(bytes) = self.kept.get(self.position) {
            let bytes = bytes.clone();
            self.position += 1;
            return Ok(Take::Frame(Frame::Data(bytes)));
        }
        if let Some(trailers) = self.trailers.as_ref().filter(|_| !self.trailers_taken) {
            self.trailers_taken = true;
            return Ok(Take::Frame(Frame::Trailers((**trailers).clone())));
        }
        let taken = self.take_next()?;
        match &taken {
            Take::Frame(Frame::Data(bytes)) => {
                self.remember(bytes);
                self.copies.retain(|copy| copy.put(bytes));
            }
            Take::Frame(Frame::Trailers(trailers)) => {
                self.trailers = (!self.lost).then(|| Box::new(trailers.clone()));
                self.trailers_taken = true;
            }
            Take::End => self.end(),
            Take::Wait => {}
        }
        Ok(taken)
    }

    /// Takes what comes next from the source, past the filters.
    fn take_next(&mut self) -> Result<Take, BodyError> {
        loop {
            if let Some(filtered) = &mut self.filtered
                && let Some(taken) = filtered.take()
            {
                return Ok(taken);
            }
            let taken = self.source.take()?;
            if let Take::Frame(Frame::Data(bytes)) = &taken {
                self.received += bytes.len() as u64;
            }
            match (&mut self.filtered, taken) {
                (None, taken) | (Some(_), taken @ Take::Wait) => return Ok(taken),
                (Some(filtered), Take::Frame(frame)) => filtered.put(Some(frame)),
                (Some(filtered), Take::End) => filtered.put(None),
            }
        }
    }

    /// Lets what is kept of it and what follows pass a filter, behind those that it passes already. Yields its length, when all of
    /// it is there.
    pub(super) fn pass_through(&mut self, mut filter: Box<dyn BodyFilter>) -> Option<u64> {
        let mut out = Vec::new();
        self.kept.drain(..).for_each(|bytes| filter.data(bytes, &mut out));
        if self.finished {
            filter.end(&mut out);
        }
        self.kept = out.into_iter().filter_map(PacedChunk::into_data).collect();
        self.kept_bytes = self.kept.iter().map(Bytes::len).sum();
        self.position = 0;
        if self.finished {
            return Some(self.kept_bytes as u64);
        }
        self.filtered.get_or_insert_default().transform.push(filter);
        None
    }

    /// Ends the filters that it passes: it goes another way now.
    pub(super) fn leave_filters(&mut self) {
        self.filtered = None;
    }

    /// All of it has come.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.timers.set_received(Some(self.timers.tick()));
        }
        self.copies.drain(..).for_each(Copier::end);
    }

    fn remember(&mut self, bytes: &Bytes) {
        let Some(most) = self.keeping.filter(|_| !self.lost) else {
            self.lost = true;
            return;
        };
        self.kept_bytes += bytes.len();
        if self.kept_bytes > most {
            self.overflowed = true;
            self.kept.clear();
            self.position = 0;
            self.lost = true;
        } else {
            self.kept.push(bytes.clone());
            self.position += 1;
        }
    }

    /// A copy of all of it: what is kept, and what is received from now on; it never holds this body up.
    pub(crate) fn copy(&mut self) -> BodyCopy {
        let (copy, copier) = copies::begin(self.kept.iter(), self.finished);
        self.copies.extend(copier);
        copy
    }

    /// Receives the whole body, if it is not longer than that, and keeps it.
    pub(crate) async fn gather(&mut self, most: u64) -> Gathered {
        loop {
            if let Some(gathered) = self.gather_ready(most) {
                return gathered;
            }
            let (timers, idle) = (self.timers, self.idle);
            match timers.within(idle, pin!(self.fill())).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Gathered::Gone,
                None => return Gathered::Silent,
            }
        }
    }

    /// Keeps what is there of a body, without waiting; `None` when more is to come.
    pub(crate) fn gather_ready(&mut self, most: u64) -> Option<Gathered> {
        self.keeping.get_or_insert(KEEP);
        if self.held {
            return Some(Gathered::Whole(0));
        }
        loop {
            match self.take_next() {
                Ok(Take::Frame(Frame::Data(bytes))) => {
                    self.kept_bytes += bytes.len();
                    self.copies.retain(|copy| copy.put(&bytes));
                    self.kept.push(bytes);
                    if self.kept_bytes as u64 > most {
                        return Some(Gathered::TooLong);
                    }
                }
                Ok(Take::Frame(Frame::Trailers(trailers))) => self.trailers = Some(Box::new(trailers)),
                Ok(Take::End) => {
                    self.end();
                    self.position = 0;
                    return Some(Gathered::Whole(self.kept_bytes as u64));
                }
                Ok(Take::Wait) => return None,
                Err(BodyError::Malformed | BodyError::TooLarge | BodyError::TooMany | BodyError::Underscore) => {
                    return Some(Gathered::Malformed);
                }
                Err(BodyError::Aborted | BodyError::Truncated) => return Some(Gathered::Gone),
            }
        }
    }

    /// Reads on without waiting when more is probably there; true when something came.
    pub(crate) fn fill_more(&mut self) -> bool {
        let came = match &mut self.source {
            Source::Client(source) => source.fill_more(),
            Source::Copy(_) => false,
        };
        if came {
            self.timers.set_received(Some(self.timers.tick()));
        }
        came
    }

    pub(crate) async fn fill(&mut self) -> Result<(), BodyError> {
        let _waiting = Waiting::new(self.timers);
        self.source.fill().await
    }

    /// Waits until the client is gone; bytes it sends ahead are kept. Never returns while it stays.
    pub(crate) async fn abandoned(&mut self) {
        let is_tunnel = self.is_tunnel && !self.held;
        let Source::Client(BodySource::H1(reader)) = &mut self.source else { return std::future::pending().await };
        if is_tunnel {
            // Its end was passed on; the other side may go on.
            return std::future::pending().await;
        }
        while reader.buffer.len() < READ_SIZE && !reader.ended {
            if reader.fill().await.is_err() {
                return;
            }
        }
        hung_up(&reader.socket, self.interim).await;
    }

    /// The first look at the client, for a wait in which no more of the request can be taken in.
    pub(super) fn watch(&self) -> Watch {
        Watch::new(self.interim)
    }

    /// Returns true when the client is certainly gone, at one of the looks that such a wait has now and then.
    pub(super) async fn is_gone(&self, watch: &mut Watch) -> bool {
        match &self.source {
            Source::Client(BodySource::H1(reader)) => watch.is_gone(&reader.socket).await,
            Source::Client(BodySource::H2(_)) | Source::Copy(_) => false,
        }
    }
}

/// The way of a body past filters, and what came out of them.
#[derive(Default)]
struct Filtered {
    transform: BodyTransform,
    ready: VecDeque<Frame>,
    ended: bool,
}

impl Filtered {
    fn take(&mut self) -> Option<Take> {
        let frame = self.ready.pop_front().map(Take::Frame);
        frame.or_else(|| self.ended.then_some(Take::End))
    }

    /// Puts a frame in, or the end.
    fn put(&mut self, frame: Option<Frame>) {
        self.ended = frame.is_none();
        let chunks = match frame {
            Some(frame) => self.transform.frame(frame),
            None => self.transform.end(),
        };
        self.ready.extend(chunks.into_iter().map(|chunk| chunk.frame));
    }
}

/// Says as long as it lives that more of the request is waited for.
struct Waiting<'a>(&'a Timers);

impl<'a> Waiting<'a> {
    fn new(timers: &'a Timers) -> Self {
        timers.set_received(None);
        Self(timers)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set_received(Some(self.0.tick()));
    }
}
