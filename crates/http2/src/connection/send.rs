//! Frames that go out.

use std::task::{Context, Poll};

use serin_http1::{HeaderBlock, RequestHead, ResponseHead};

use super::{Connection, ROOM, Role};
use crate::error::{Reason, StreamError};
use crate::frame::{self, LARGEST, frame};
use crate::hpack::encode_status;
use crate::message;
use crate::stream::Stream;

impl Connection {
    /// Opens a stream with a request; `None` when no more can be opened.
    pub(crate) fn open(&mut self, head: &RequestHead, length: Option<u64>, ends: bool) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        let id = self.next;
        self.next += 2;
        let mut stream = Stream::new(self.peer_window, self.first_window());
        stream.local_ended = ends;
        stream.to_head = head.method() == b"HEAD";
        stream.is_tunnel = head.is_connect() || head.fields.contains("upgrade");
        self.streams.insert(id, stream);
        self.live += 1;
        self.header_block_out(id, ends, |block| message::encode_request(head, length, block));
        self.budget.opened();
        self.produced();
        Some(id)
    }

    /// Answers a stream.
    pub(crate) fn respond(
        &mut self,
        id: u32,
        head: &ResponseHead,
        length: Option<u64>,
        ends: bool,
    ) -> Result<(), StreamError> {
        self.finish_block(id, ends, |block| message::encode_response(head, length, block))
    }

    /// Sends an interim response (RFC 9113 §8.1).
    pub(crate) fn inform(&mut self, id: u32, status: u16) -> Result<(), StreamError> {
        self.sendable(id)?;
        self.header_block_out(id, false, |block| encode_status(status, block));
        self.produced();
        Ok(())
    }

    /// Ends a stream with trailers.
    pub(crate) fn send_trailers(&mut self, id: u32, trailers: &HeaderBlock) -> Result<(), StreamError> {
        self.finish_block(id, true, |block| message::encode_trailers(trailers, block))
    }

    fn finish_block(&mut self, id: u32, ends: bool, build: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        let is_server = self.role == Role::Server;
        let stream = self.sendable(id)?;
        let was_over = stream.is_over();
        stream.local_ended = ends;
        // On a client's stream these are trailers, and its response is still to come.
        stream.answered |= is_server;
        self.settle(id, was_over);
        self.header_block_out(id, ends, build);
        self.produced();
        Ok(())
    }

    /// Writes a header block. The first says that the encoder's table is empty, which a peer with a smaller one than the
    /// default waits for (RFC 7541 §4.2).
    pub(super) fn header_block_out(&mut self, id: u32, ends: bool, build: impl FnOnce(&mut Vec<u8>)) {
        let flags = if ends { frame::END_STREAM } else { 0 };
        let first = !std::mem::replace(&mut self.encoded, true);
        frame::header_block(id, flags, &mut self.out, |block| {
            if first {
                block.push(0x20);
            }
            build(block);
        });
    }

    fn sendable(&mut self, id: u32) -> Result<&mut Stream, StreamError> {
        let stream = self.stream(id)?;
        match stream.failure {
            Some(error) => Err(error),
            None if stream.local_ended => Err(StreamError::Gone),
            None => Ok(stream),
        }
    }

    /// Sends as much of `data` as windows and room allow, and says how much; with all of it the stream ends if `last`.
    pub(crate) fn send_data(&mut self, id: u32, data: &[u8], last: bool) -> Result<usize, StreamError> {
        let (window, room) = (self.send_window, ROOM.saturating_sub(self.out.len()));
        let stream = self.sendable(id)?;
        let allowed = window.min(stream.send_window).clamp(0, room as i64) as usize;
        let sent = data.len().min(allowed);
        let whole = sent == data.len();
        let was_over = stream.is_over();
        stream.send_window -= sent as i64;
        stream.local_ended = whole && last;
        self.settle(id, was_over);
        self.send_window -= sent as i64;
        let mut parts = data.get(..sent).unwrap_or_default().chunks(LARGEST).peekable();
        if parts.peek().is_none() && whole && last {
            frame(frame::DATA, frame::END_STREAM, id, &[], &mut self.out);
        }
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() && whole && last { frame::END_STREAM } else { 0 };
            frame(frame::DATA, flags, id, part, &mut self.out);
            self.budget.sent_data();
        }
        self.produced();
        Ok(sent)
    }

    /// Ready when something can be sent on the stream.
    pub(crate) fn poll_writable(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let open = self.send_window > 0 && self.out.len() < ROOM;
        match self.sendable(id) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(stream) if open && stream.send_window > 0 => Poll::Ready(Ok(())),
            Ok(stream) => {
                stream.wait(cx);
                self.starved = true;
                Poll::Pending
            }
        }
    }

    /// Gives a stream up.
    pub(crate) fn reset(&mut self, id: u32, reason: Reason) {
        if self.streams.get(&id).is_some_and(|s| s.failure.is_none() && !s.local_ended) {
            frame(frame::RST_STREAM, 0, id, &reason.0.to_be_bytes(), &mut self.out);
            self.end_stream(id, StreamError::Reset(reason));
            self.produced();
        }
    }
}
