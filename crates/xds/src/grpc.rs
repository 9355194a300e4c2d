//! The serving end of gRPC over our own HTTP/2: messages in, messages out, a status at the end.
//!
//! A call is served by a task on the thread of its connection, so nothing is locked and nobody else is woken for it. Source: gRPC over
//! HTTP/2 (`PROTOCOL-HTTP2.md` of gRPC). Compressed messages are refused, as that page allows.

mod connection;

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;
use serin_http2::{Piece, StreamHandle};
use tokio::sync::Semaphore;

pub use connection::serve;

/// Bytes that a message of a client may have. A client that comes back names all that it has, which may be megabytes.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Bytes of an input buffer that a quiet call keeps.
const KEPT_INPUT: usize = 4096;
/// The flag and the length before each message.
const PREFIX: usize = 5;

/// Why a call ends; the numbers are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A client whose request cannot be understood.
    InvalidArgument = 3,
    /// A message that is larger than may be.
    ResourceExhausted = 8,
    /// A method or an encoding that is not supported.
    Unimplemented = 12,
    /// A message that breaks the protocol, or a defect of this server.
    Internal = 13,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind of the failure.
    pub code: Code,
    /// A sentence for the client's operator.
    pub message: String,
}

impl Failure {
    /// Creates a failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The work of a call, which ends with its status.
pub type Served = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// A service: some methods under one name.
pub trait Service {
    /// Returns the full name, such as `package.Service`.
    fn name(&self) -> &'static str;
    /// Begins to serve a call; `None` when there is no such method.
    fn call(&self, method: &str, call: Call) -> Option<Served>;
}

/// A call: the messages of its client, and the way back.
pub struct Call {
    stream: Rc<StreamHandle>,
    peer: SocketAddr,
    /// One place, which the calls of a connection share.
    turn: Arc<Semaphore>,
    /// The begin of the next message.
    input: BytesMut,
}

impl Call {
    /// Returns the address of the client.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the one place that the calls of its connection share, for what they may do only one after the other.
    #[must_use]
    pub fn turn(&self) -> Arc<Semaphore> {
        self.turn.clone()
    }

    /// Yields the next message; `None` when the client has ended or is gone.
    ///
    /// # Errors
    /// When the client breaks the protocol.
    pub fn poll_message<M: Message + Default>(&mut self, context: &Context<'_>) -> Poll<Result<Option<M>, Failure>> {
        loop {
            if let Some(message) = self.decode()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match self.stream.take() {
                Ok(Some(Piece::Data(data))) => self.input.extend_from_slice(&data),
                Ok(Some(Piece::Trailers(_))) => {}
                Ok(None) if self.stream.is_ended() && !self.input.is_empty() => {
                    return Poll::Ready(Err(Failure::new(Code::Internal, "the request ends within a message")));
                }
                Ok(None) if self.stream.is_ended() => return Poll::Ready(Ok(None)),
                Ok(None) => ready!(self.stream.poll_readable(context)),
                Err(_) => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Takes a whole message out of the input.
    fn decode<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        let Some((&[flag, a, b, c, d], rest)) = self.input.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 {
            return Err(Failure::new(Code::Unimplemented, "compressed messages are not supported"));
        }
        if length > LARGEST_MESSAGE {
            let reason = format!("a message of {length} bytes is larger than {LARGEST_MESSAGE}, which is the most");
            return Err(Failure::new(Code::ResourceExhausted, reason));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(bytes)
            .map_err(|error| Failure::new(Code::Internal, format!("a message cannot be decoded: {error}")))?;
        self.input.advance(PREFIX + length);
        if self.input.is_empty() && self.input.capacity() > KEPT_INPUT {
            self.input = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// Sends what is left of `bytes`, which are whole messages or parts of one; false when the client is gone.
    pub fn poll_send(&self, bytes: &mut Bytes, context: &Context<'_>) -> Poll<bool> {
        loop {
            let Ok(sent) = self.stream.send(bytes, false) else { return Poll::Ready(false) };
            bytes.advance(sent);
            if bytes.is_empty() {
                return Poll::Ready(true);
            }
            if ready!(self.stream.poll_writable(context)).is_err() {
                return Poll::Ready(false);
            }
        }
    }

    /// Waits for the next message, as [`poll_message`](Self::poll_message) does.
    ///
    /// # Errors
    /// When the client breaks the protocol.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Failure> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    /// Sends a message; false when the client is gone.
    pub async fn send(&self, message: &impl Message) -> bool {
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX + length);
        bytes.extend_from_slice(&[0; PREFIX]);
        // A buffer that grows has room for every message.
        let _ = message.encode(&mut bytes);
        if let Some(prefix) = bytes.get_mut(1..PREFIX) {
            prefix.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
        let mut bytes = bytes.freeze();
        std::future::poll_fn(|context| self.poll_send(&mut bytes, context)).await
    }
}
