//! A connection as its driver and its streams' tasks share it, on one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use serin_http1::{HeaderBlock, RequestHead, ResponseHead};

use crate::connection::{Config, Connection, Refused, Role};
use crate::error::{ConnectionError, Reason, StreamError};
use crate::stream::Piece;

/// One end of a connection. Whoever owns the socket feeds it with [`receive`](Self::receive) and writes what
/// [`take_output`](Self::take_output) yields.
#[derive(Clone)]
pub struct Session(Rc<RefCell<Connection>>);

/// A request that came.
pub struct Accepted {
    /// Its head.
    pub head: RequestHead,
    /// True when no body follows.
    pub ended: bool,
    /// The source of the rest of the message, and the way of the response.
    pub stream: StreamHandle,
}

impl Session {
    /// A new connection.
    #[must_use]
    pub fn new(role: Role, config: Config) -> Self {
        Self(Rc::new(RefCell::new(Connection::new(role, config))))
    }

    /// Takes every whole frame out of `input` and wakes the streams concerned.
    ///
    /// # Errors
    /// When the connection must end; write what is left, then close.
    pub fn receive(&self, input: &mut BytesMut) -> Result<(), ConnectionError> {
        self.0.borrow_mut().receive(input)
    }

    /// The next request that came.
    #[must_use]
    pub fn accept(&self) -> Option<Accepted> {
        let arrived = self.0.borrow_mut().accept()?;
        let stream = StreamHandle { session: self.clone(), id: arrived.stream };
        Some(Accepted { head: arrived.head, ended: arrived.ended, stream })
    }

    /// The next request that was refused before anybody saw it.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.0.borrow_mut().refused()
    }

    /// Makes a request; `length` is its `content-length`. `None` when no more streams can be opened.
    #[must_use]
    pub fn open(&self, head: &RequestHead, length: Option<u64>, ended: bool) -> Option<StreamHandle> {
        let id = self.0.borrow_mut().open(head, length, ended)?;
        Some(StreamHandle { session: self.clone(), id })
    }

    /// Returns true when another stream can be opened.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.0.borrow().can_open()
    }

    /// Returns true when neither end has given the connection up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.borrow().is_open()
    }

    /// Returns true when the peer has begun with what it must say first.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.borrow().is_settled()
    }

    /// Streams that are not over.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.0.borrow().live()
    }

    /// Returns true when there is something to write.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.0.borrow().out.is_empty()
    }

    /// Exchanges what is to be written for `empty`; true when there is something.
    pub fn take_output(&self, empty: &mut Vec<u8>) -> bool {
        let mut connection = self.0.borrow_mut();
        let some = !connection.out.is_empty();
        if some {
            connection.take_output(empty);
        }
        some
    }

    /// Wakes the task of `cx` when there is something to write.
    pub fn wait_for_output(&self, cx: &Context<'_>) {
        self.0.borrow_mut().wait_for_output(cx.waker());
    }

    /// Tells the session that about a second has passed: what a peer may do without effect grows with time.
    pub fn refill(&self) {
        self.0.borrow_mut().refill();
    }

    /// Asks the peer for a sign of life: it must answer, with which something is received.
    pub fn ping(&self) {
        self.0.borrow_mut().ask_for_life();
    }

    /// Asks the peer to make no more requests; streams that are open end in peace. A server that asks again serves
    /// nothing that was not there by then, whether or not the client has said that it knows.
    pub fn shut_down(&self) {
        self.0.borrow_mut().shut_down();
    }

    /// Returns true when the end was announced, no stream is left and everything was taken to be written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.borrow().is_finished()
    }

    /// Ends all streams: the socket is gone.
    pub fn close(&self) {
        self.0.borrow_mut().close();
    }
}

/// A stream. Dropped before its end, it is given up.
pub struct StreamHandle {
    session: Session,
    id: u32,
}

impl StreamHandle {
    fn with<T>(&self, act: impl FnOnce(&mut Connection, u32) -> T) -> T {
        act(&mut self.session.0.borrow_mut(), self.id)
    }

    /// The final response's head, on a client's stream; it comes once.
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<ResponseHead, StreamError>> {
        self.with(|connection, id| match connection.stream(id) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(stream) => match (stream.head.take(), stream.failure) {
                (Some(head), _) => Poll::Ready(Ok(head)),
                (None, Some(error)) => Poll::Ready(Err(error)),
                (None, None) => {
                    stream.wait(cx);
                    Poll::Pending
                }
            },
        })
    }

    /// The next piece of the body that is at hand; its room is given back to the peer.
    ///
    /// # Errors
    /// When the stream ended before its end, and all that came before was taken.
    pub fn take(&self) -> Result<Option<Piece>, StreamError> {
        self.with(|connection, id| {
            let stream = connection.stream(id)?;
            let Some(piece) = stream.received.pop_front() else {
                // What is whole stays whole, whatever became of the connection since.
                return stream.failure.filter(|_| !stream.remote_ended).map_or(Ok(None), Err);
            };
            if let Piece::Data(data) = &piece {
                connection.release_from(id, data.len() as u32);
            }
            Ok(Some(piece))
        })
    }

    /// Returns true when everything was received and taken.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.with(|connection, id| connection.stream(id).is_ok_and(|s| s.remote_ended && s.received.is_empty()))
    }

    /// Returns true when something was received that nobody has taken.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.with(|connection, id| connection.stream(id).is_ok_and(|s| !s.received.is_empty()))
    }

    /// Ready when [`take`](Self::take) or [`is_ended`](Self::is_ended) has something new to say.
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|connection, id| match connection.stream(id) {
            Ok(stream) if stream.received.is_empty() && !stream.remote_ended && stream.failure.is_none() => {
                stream.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    /// Answers; `length` is the `content-length`, `ended` says that no body follows.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn respond(&self, head: &ResponseHead, length: Option<u64>, ended: bool) -> Result<(), StreamError> {
        self.with(|connection, id| connection.respond(id, head, length, ended))
    }

    /// Sends an interim response of that status (1xx), before the final one.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn inform(&self, status: u16) -> Result<(), StreamError> {
        self.with(|connection, id| connection.inform(id, status))
    }

    /// Sends as much of `data` as can be, and says how much; with all of it the stream ends if `last`.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn send(&self, data: &[u8], last: bool) -> Result<usize, StreamError> {
        self.with(|connection, id| connection.send_data(id, data, last))
    }

    /// Ends the stream with trailers.
    ///
    /// # Errors
    /// When the stream is over.
    pub fn send_trailers(&self, trailers: &HeaderBlock) -> Result<(), StreamError> {
        self.with(|connection, id| connection.send_trailers(id, trailers))
    }

    /// Ready when [`send`](Self::send) can send something.
    pub fn poll_writable(&self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        self.with(|connection, id| connection.poll_writable(id, cx))
    }

    /// Ready when the peer gave the stream up, or is gone.
    pub fn poll_given_up(&self, cx: &Context<'_>) -> Poll<StreamError> {
        self.with(|connection, id| match connection.stream(id) {
            Err(error) => Poll::Ready(error),
            Ok(stream) => match stream.failure {
                Some(error) => Poll::Ready(error),
                None => {
                    stream.wait(cx);
                    Poll::Pending
                }
            },
        })
    }

    /// Gives the stream up, unless all was sent.
    pub fn reset(&self, reason: Reason) {
        self.with(|connection, id| connection.reset(id, reason));
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.with(Connection::release_stream);
    }
}
