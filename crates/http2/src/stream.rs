//! One stream (RFC 9113 §5).

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use serin_http1::{HeaderBlock, ResponseHead};

use crate::error::StreamError;

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// Fields after the last byte.
    Trailers(HeaderBlock),
}

/// Bytes of a frame that is tiny, and of a piece that takes no more of them.
const TINY: usize = 64;
const JOINED: usize = 4096;

/// A stream's state.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) local_ended: bool,
    pub(crate) remote_ended: bool,
    /// The bytes that may still be sent; negative after the peer lowered it (§6.9.2).
    pub(crate) send_window: i64,
    /// The bytes that the peer may still send, and those it may have sent that nobody has taken out: that grows up to its configured
    /// size with a reader that keeps up.
    pub(crate) receive_window: i64,
    pub(crate) window: u32,
    /// Bytes taken out since the peer's window was last opened.
    pub(crate) released: u32,
    pub(crate) received: VecDeque<Piece>,
    /// The response's head, on a client's stream.
    pub(crate) head: Option<ResponseHead>,
    /// True when a final head has come, on a client's stream, or was sent, on a server's.
    pub(crate) answered: bool,
    /// Interim responses so far.
    pub(crate) interim: u8,
    pub(crate) failure: Option<StreamError>,
    /// Body bytes that the message announced, when that must hold, and those that came.
    pub(crate) announced: Option<u64>,
    pub(crate) body: u64,
    /// True when it is a request whose response has no body, whatever it announces.
    pub(crate) to_head: bool,
    /// True when it is a request for a tunnel.
    pub(crate) is_tunnel: bool,
    waker: Option<Waker>,
    waiting: bool,
}

impl Stream {
    pub(crate) fn new(send_window: i64, window: u32) -> Self {
        Self {
            local_ended: false,
            remote_ended: false,
            send_window,
            receive_window: i64::from(window),
            window,
            released: 0,
            received: VecDeque::new(),
            head: None,
            answered: false,
            interim: 0,
            failure: None,
            announced: None,
            body: 0,
            to_head: false,
            is_tunnel: false,
            waker: None,
            waiting: false,
        }
    }

    /// Keeps bytes that came. Tiny ones join those before, so that they cost no more than their length.
    pub(crate) fn push(&mut self, data: &[u8]) {
        if data.len() < TINY
            && let Some(Piece::Data(last)) = self.received.back_mut()
            && last.len() < JOINED
        {
            let mut joined = match std::mem::take(last).try_into_mut() {
                Ok(own) => own,
                Err(shared) => BytesMut::from(&shared[..]),
            };
            joined.extend_from_slice(data);
            *last = joined.freeze();
            return;
        }
        self.received.push_back(Piece::Data(Bytes::copy_from_slice(data)));
    }

    /// Returns true when both ends are done with it.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || (self.local_ended && self.remote_ended)
    }

    /// All of a stream's waits belong to one task, which is woken by whatever happens next.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waiting = true;
        if self.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    pub(crate) fn wake(&mut self) {
        if std::mem::take(&mut self.waiting)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}
