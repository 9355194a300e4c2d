//! Frames that come in. Rows E1 to E22 of the hostile corpus: RFC 9113's section is named where it is not the frame's own.

use bytes::{Buf as _, BytesMut};
use serin_http1::{RequestHead, ResponseHead};

use super::{Arrived, Block, Connection, FAREWELL, LARGEST_OUTPUT, LARGEST_WINDOW, Leaving, Refused, Role};
use crate::error::{ConnectionError, Reason, StreamError};
use crate::frame::{self, HEAD, Head, LARGEST, frame, number, unpadded};
use crate::hpack::{Undecodable, encode_status};
use crate::message::{self, MOST_FIELDS, RESPONSE_LIMIT, announced};
use crate::stream::{Piece, Stream};

type Result<T = ()> = std::result::Result<T, ConnectionError>;

/// Frames that one header block may take: more than any sender needs for 60 KiB.
const MOST_CONTINUATIONS: u32 = 16;
/// Bytes of a header block before it is decoded.
const LARGEST_BLOCK: usize = 128 * 1024;
/// Interim answers that are passed over.
const MOST_INTERIM: u8 = 10;
/// Settings that one frame may have (nghttp2's limit); RFC 9113 knows six.
const MOST_SETTINGS: usize = 32;
/// Streams that a frame may touch for the price of one that does nothing.
const STREAMS_PER_NOISE: i64 = 8;
/// The cost of an empty DATA frame that ends nothing.
const EMPTY_DATA: i64 = 100;

impl Connection {
    /// Takes every whole frame out of `input`. After an error, which the peer is told, nothing more is taken.
    pub(crate) fn receive(&mut self, input: &mut BytesMut) -> Result {
        let outcome = self.receive_all(input);
        if let Err(error) = outcome {
            self.fail(error);
        }
        self.produced();
        outcome
    }

    fn receive_all(&mut self, input: &mut BytesMut) -> Result {
        if !self.greeted {
            let known = input.len().min(frame::PREFACE.len());
            if input.get(..known) != frame::PREFACE.get(..known) {
                return Err(ConnectionError::protocol("no HTTP/2 preface"));
            }
            if known < frame::PREFACE.len() {
                return Ok(());
            }
            input.advance(known);
            self.greeted = true;
        }
        let mut at = 0;
        let outcome = loop {
            let Some(head) = input.get(at..).and_then(Head::read) else { break Ok(()) };
            if head.length > LARGEST {
                break Err(ConnectionError::size("a frame is larger than was agreed"));
            }
            let Some(payload) = input.get(at + HEAD..at + HEAD + head.length) else { break Ok(()) };
            if let Err(error) = self.frame(head, payload) {
                break Err(error);
            }
            at += HEAD + head.length;
            if self.out.len() > LARGEST_OUTPUT {
                break Err(ConnectionError::calm("answers are not read"));
            }
        };
        input.advance(at);
        outcome
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result {
        if !self.settled && head.kind != frame::SETTINGS {
            return Err(ConnectionError::protocol("SETTINGS must come first"));
        }
        if self.block.is_some() && head.kind != frame::CONTINUATION {
            return Err(ConnectionError::protocol("a frame inside a header block"));
        }
        let of_stream = matches!(head.kind, frame::DATA | frame::HEADERS | frame::PRIORITY | frame::RST_STREAM);
        let of_connection = matches!(head.kind, frame::SETTINGS | frame::PING | frame::GOAWAY);
        if (of_stream && head.stream == 0) || (of_connection && head.stream != 0) {
            return Err(ConnectionError::protocol("a frame on a stream where it may not be"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload),
            frame::HEADERS => self.headers(head, payload),
            frame::PRIORITY => self.priority(head),
            frame::RST_STREAM => self.rst_stream(head, payload),
            frame::SETTINGS => self.settings(head, payload),
            frame::PUSH_PROMISE => Err(ConnectionError::protocol("nothing may be pushed here")),
            frame::PING => self.ping(head, payload),
            frame::GOAWAY => self.goaway(payload),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            frame::CONTINUATION => self.continuation(head, payload),
            // Unknown frames are passed over (§5.5).
            _ => self.budget.noise(1),
        }
    }

    /// Returns true when nobody has used that stream yet (§5.1).
    fn is_idle(&self, stream: u32) -> bool {
        match self.role {
            Role::Server => stream.is_multiple_of(2) || stream > self.highest,
            Role::Client => stream.is_multiple_of(2) || stream >= self.next,
        }
    }

    fn data(&mut self, head: Head, payload: &[u8]) -> Result {
        let data = unpadded(head, payload).ok_or(ConnectionError::protocol("more padding than payload"))?;
        self.receive_window -= head.length as i64;
        if self.receive_window < 0 {
            let reason = Reason::FLOW_CONTROL_ERROR;
            return Err(ConnectionError::new(reason, "more than the connection's window"));
        }
        let ends = head.has(frame::END_STREAM);
        if data.is_empty() && !ends {
            self.budget.noise(EMPTY_DATA)?;
        }
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|s| s.failure.is_none()) else {
            return self.data_on_closed(head);
        };
        if stream.remote_ended {
            self.release(head.length as u32);
            return self.fail_stream(head.stream, Reason::STREAM_CLOSED, StreamError::Malformed);
        }
        stream.receive_window -= head.length as i64;
        stream.body += data.len() as u64;
        let flooded = stream.receive_window < 0;
        let wrong = stream.announced.is_some_and(|n| if ends { n != stream.body } else { n < stream.body });
        let unasked = self.role == Role::Client && !stream.answered;
        if flooded || wrong || unasked {
            self.release(head.length as u32);
            let reason = if flooded { Reason::FLOW_CONTROL_ERROR } else { Reason::PROTOCOL_ERROR };
            return self.fail_stream(head.stream, reason, StreamError::Malformed);
        }
        let was_over = stream.is_over();
        if !data.is_empty() {
            stream.push(data);
        }
        stream.remote_ended |= ends;
        stream.wake();
        self.settle(head.stream, was_over);
        if self.role == Role::Client {
            self.release(head.length as u32);
        }
        // Padding is taken out at once.
        if head.length > data.len() {
            self.release_from(head.stream, (head.length - data.len()) as u32);
        }
        Ok(())
    }

    /// Counts data for a stream that was given up here, for the connection only.
    fn data_on_closed(&mut self, head: Head) -> Result {
        if self.is_idle(head.stream) {
            return Err(ConnectionError::protocol("DATA on a stream that is not open"));
        }
        self.release(head.length as u32);
        if self.is_forgotten(head.stream) {
            return self.budget.noise(1);
        }
        self.fail_stream(head.stream, Reason::STREAM_CLOSED, StreamError::Malformed)
    }

    fn is_forgotten(&self, stream: u32) -> bool {
        self.forgotten.contains(&stream) || self.streams.get(&stream).is_some_and(|s| s.failure.is_some())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result {
        let block = unpadded(head, payload).ok_or(ConnectionError::protocol("more padding than payload"))?;
        let skipped = if head.has(frame::PRIORITISED) { 5 } else { 0 };
        let block = block.get(skipped..).ok_or(ConnectionError::size("HEADERS without room for its priority"))?;
        let ends_stream = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.header_block(head.stream, ends_stream, block);
        }
        self.block = Some(Block { stream: head.stream, ends_stream, bytes: block.to_vec(), frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result {
        let Some(block) = self.block.as_mut().filter(|b| b.stream == head.stream) else {
            return Err(ConnectionError::protocol("CONTINUATION of nothing"));
        };
        block.frames += 1;
        if block.frames > MOST_CONTINUATIONS || block.bytes.len() + payload.len() > LARGEST_BLOCK {
            return Err(ConnectionError::calm("a header block without end"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(frame::END_HEADERS)
            && let Some(block) = self.block.take()
        {
            return self.header_block(block.stream, block.ends_stream, &block.bytes);
        }
        Ok(())
    }

    fn header_block(&mut self, id: u32, ends: bool, block: &[u8]) -> Result {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        let (most, fields) = match self.role {
            Role::Server => (self.config.request_head, self.config.request_fields),
            Role::Client => (RESPONSE_LIMIT, MOST_FIELDS),
        };
        let decoded = self.decoder.decode(block, most, &mut list);
        let outcome = match decoded {
            Err(Undecodable::Wrong) => {
                Err(ConnectionError::new(Reason::COMPRESSION_ERROR, "a header block is no HPACK"))
            }
            Err(Undecodable::Endless) => Err(ConnectionError::calm("a header block that grows without end")),
            Ok(within) => {
                let fits = within && list.len() <= fields;
                let known = self.streams.get(&id).is_some_and(|s| s.failure.is_none());
                match (self.role, known) {
                    (Role::Server, true) => self.trailers(id, ends, fits, &list),
                    (Role::Server, false) => self.request(id, ends, fits, &list),
                    (Role::Client, true) => self.response(id, ends, fits, &list),
                    (Role::Client, false) if self.is_idle(id) => {
                        Err(ConnectionError::protocol("HEADERS on a stream that is not open"))
                    }
                    (Role::Client, false) => self.budget.noise(10),
                }
            }
        };
        self.list = list;
        outcome
    }

    fn request(&mut self, id: u32, ends: bool, fits: bool, list: &crate::fields::FieldList) -> Result {
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a client's streams have odd numbers"));
        }
        if id <= self.highest {
            if self.is_forgotten(id) {
                return self.budget.noise(10);
            }
            return Err(ConnectionError::new(Reason::STREAM_CLOSED, "HEADERS on a stream that is closed"));
        }
        self.highest = id;
        self.budget.opened();
        if self.leaving == Leaving::Final {
            return Ok(());
        }
        if self.live >= self.config.streams {
            return self.fail_stream(id, Reason::REFUSED_STREAM, StreamError::Refused);
        }
        if !fits {
            self.refuse(list, Some(431));
            return self.too_large(id, ends);
        }
        let mut head = RequestHead::default();
        if message::request(list, self.config.connect, &mut head).is_err() {
            self.refuse(list, None);
            return self.fail_stream(id, Reason::PROTOCOL_ERROR, StreamError::Malformed);
        }
        let mut stream = Stream::new(self.peer_window, self.first_window());
        stream.announced = announced(&head.fields);
        stream.remote_ended = ends;
        if ends && stream.announced.is_some_and(|n| n > 0) {
            self.refuse(list, None);
            return self.fail_stream(id, Reason::PROTOCOL_ERROR, StreamError::Malformed);
        }
        self.streams.insert(id, stream);
        self.live += 1;
        self.arrived.push_back(Arrived { stream: id, head, ended: ends });
        Ok(())
    }

    /// Remembers a request that is refused, for whoever keeps a log. (A peer may cause few of them before its connection ends.)
    fn refuse(&mut self, list: &crate::fields::FieldList, status: Option<u16>) {
        let mut head = RequestHead::default();
        message::outline(list, &mut head);
        self.refused.push_back(Refused { head, status });
    }

    /// Answers a request whose fields are too many or too large with 431.
    fn too_large(&mut self, id: u32, ends: bool) -> Result {
        self.header_block_out(id, true, |block| encode_status(431, block));
        if !ends {
            frame(frame::RST_STREAM, 0, id, &Reason::NO_ERROR.0.to_be_bytes(), &mut self.out);
            self.forget(id);
        }
        self.budget.caused_reset()
    }

    /// A second block on a client's stream: its end (§8.1).
    fn trailers(&mut self, id: u32, ends: bool, fits: bool, list: &crate::fields::FieldList) -> Result {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.remote_ended {
            return self.fail_stream(id, Reason::STREAM_CLOSED, StreamError::Malformed);
        }
        let short = stream.announced.is_some_and(|n| n != stream.body);
        match message::trailers(list) {
            Ok(block) if ends && fits && !short => {
                let was_over = stream.is_over();
                stream.received.push_back(Piece::Trailers(block));
                stream.remote_ended = true;
                stream.wake();
                self.settle(id, was_over);
                Ok(())
            }
            _ => self.fail_stream(id, Reason::PROTOCOL_ERROR, StreamError::Malformed),
        }
    }

    fn response(&mut self, id: u32, ends: bool, fits: bool, list: &crate::fields::FieldList) -> Result {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.answered || stream.remote_ended {
            return self.trailers(id, ends, fits, list);
        }
        let mut head = ResponseHead::default();
        let mut good = fits && message::response(list, &mut head).is_ok();
        if good && head.status < 200 {
            stream.interim += 1;
            if !ends && stream.interim <= MOST_INTERIM {
                return Ok(());
            }
            good = false;
        }
        // What a successful answer to CONNECT says of a length means nothing (RFC 9110 §9.3.6).
        let bodiless = stream.to_head || stream.is_tunnel || matches!(head.status, 204 | 304);
        stream.announced = announced(&head.fields).filter(|_| !bodiless);
        if !good || (ends && stream.announced.is_some_and(|n| n > 0)) {
            return self.fail_stream(id, Reason::PROTOCOL_ERROR, StreamError::Malformed);
        }
        let was_over = stream.is_over();
        stream.head = Some(head);
        stream.answered = true;
        stream.remote_ended = ends;
        stream.wake();
        self.settle(id, was_over);
        Ok(())
    }

    fn priority(&mut self, head: Head) -> Result {
        if head.length != 5 {
            if self.is_idle(head.stream) {
                return Err(ConnectionError::size("PRIORITY of a wrong size"));
            }
            return self.fail_stream(head.stream, Reason::FRAME_SIZE_ERROR, StreamError::Malformed);
        }
        // What it says is deprecated and passed over (§5.3.2).
        self.budget.noise(1)
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result {
        let reason = Reason(number(payload).ok_or(ConnectionError::size("RST_STREAM of a wrong size"))?);
        if self.is_idle(head.stream) {
            return Err(ConnectionError::protocol("RST_STREAM on a stream that is not open"));
        }
        let Some(stream) = self.streams.get(&head.stream).filter(|s| s.failure.is_none()) else {
            return self.budget.noise(1);
        };
        let premature = self.role == Role::Server && !stream.answered;
        let refused = reason == Reason::REFUSED_STREAM;
        // A server that has answered may ask for no more of the request (§8.1): that is no failure.
        if self.role == Role::Client && reason == Reason::NO_ERROR && stream.remote_ended {
            if let Some(stream) = self.streams.get_mut(&head.stream) {
                let was_over = stream.is_over();
                stream.local_ended = true;
                stream.wake();
                self.settle(head.stream, was_over);
            }
            return Ok(());
        }
        let error = if refused { StreamError::Refused } else { StreamError::Reset(reason) };
        self.end_stream(head.stream, error);
        if premature { self.budget.premature_reset() } else { Ok(()) }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result {
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(ConnectionError::size("SETTINGS ACK with a payload")) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(ConnectionError::size("SETTINGS of a wrong size"));
        }
        if payload.len() > 6 * MOST_SETTINGS {
            return Err(ConnectionError::calm("too many settings in one frame"));
        }
        self.settled = true;
        // What windows were on the way to their last size, and the largest of it.
        let (before, mut largest) = (self.peer_window, self.peer_window);
        for setting in payload.chunks_exact(6) {
            if let [a, b, value @ ..] = setting {
                self.setting(u16::from_be_bytes([*a, *b]), number(value).unwrap_or_default())?;
                largest = largest.max(self.peer_window);
            }
        }
        if self.peer_window != before || largest != before {
            self.budget.noise(self.streams.len() as i64 / STREAMS_PER_NOISE)?;
            self.resize_windows(self.peer_window - before, largest - before)?;
        }
        self.budget.reply()?;
        frame(frame::SETTINGS, frame::ACK, 0, &[], &mut self.out);
        Ok(())
    }

    /// One setting (§6.5.2); the size of the header table does not matter to an encoder without one.
    fn setting(&mut self, id: u16, value: u32) -> Result {
        match id {
            2 if value > 1 || (value == 1 && self.role == Role::Client) => {
                Err(ConnectionError::protocol("ENABLE_PUSH is neither 0 nor 1"))
            }
            3 => {
                self.peer_streams = value;
                Ok(())
            }
            4 if i64::from(value) > LARGEST_WINDOW => {
                Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large"))
            }
            4 => {
                self.peer_window = i64::from(value);
                Ok(())
            }
            5 if !(LARGEST as u32..1 << 24).contains(&value) => {
                Err(ConnectionError::protocol("MAX_FRAME_SIZE is out of its range"))
            }
            _ => Ok(()),
        }
    }

    /// All streams' windows change with INITIAL_WINDOW_SIZE (§6.9.2), once for all its values in one frame; `largest` is the
    /// greatest change on the way.
    fn resize_windows(&mut self, change: i64, largest: i64) -> Result {
        for stream in self.streams.values_mut() {
            if stream.send_window + largest > LARGEST_WINDOW {
                return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "a window is too large"));
            }
            let blocked = stream.send_window <= 0;
            stream.send_window += change;
            if blocked && stream.send_window > 0 {
                stream.wake();
            }
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result {
        if payload.len() != 8 {
            return Err(ConnectionError::size("PING of a wrong size"));
        }
        if !head.has(frame::ACK) {
            self.budget.reply()?;
            frame(frame::PING, frame::ACK, 0, payload, &mut self.out);
        } else if payload == FAREWELL && self.leaving == Leaving::Announced {
            self.leave();
        }
        Ok(())
    }

    fn goaway(&mut self, payload: &[u8]) -> Result {
        let last = payload.get(..4).and_then(number).filter(|_| payload.len() >= 8);
        let last = last.ok_or(ConnectionError::size("GOAWAY of a wrong size"))? & 0x7fff_ffff;
        if self.last_served.is_some_and(|before| last > before) {
            return Err(ConnectionError::protocol("GOAWAY with a higher stream than before"));
        }
        self.last_served = Some(last);
        if self.role == Role::Client {
            let unserved: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
            unserved.into_iter().for_each(|id| self.end_stream(id, StreamError::Refused));
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result {
        let increment = number(payload).ok_or(ConnectionError::size("WINDOW_UPDATE of a wrong size"))? & 0x7fff_ffff;
        self.budget.noise(1)?;
        if head.stream == 0 {
            self.send_window += i64::from(increment);
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of nothing"));
            }
            if self.send_window > LARGEST_WINDOW {
                return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, "the window is too large"));
            }
            if std::mem::take(&mut self.starved) {
                self.budget.noise(self.streams.len() as i64 / STREAMS_PER_NOISE)?;
                self.streams.values_mut().for_each(Stream::wake);
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE on a stream that is not open"));
        }
        let Some(stream) = self.streams.get_mut(&head.stream).filter(|s| s.failure.is_none()) else { return Ok(()) };
        stream.send_window += i64::from(increment);
        let too_large = stream.send_window > LARGEST_WINDOW;
        stream.wake();
        if increment == 0 || too_large {
            let reason = if too_large { Reason::FLOW_CONTROL_ERROR } else { Reason::PROTOCOL_ERROR };
            return self.fail_stream(head.stream, reason, StreamError::Malformed);
        }
        Ok(())
    }
}
