//! HTTP/2 (RFC 9113) and HPACK (RFC 7541) for a proxy: one connection, its streams and their messages.
//!
//! Bytes in, bytes out; no socket, no clock. A [`Session`] belongs to one thread and is shared there by the task that
//! owns the socket and the tasks of the streams, without a lock: what a read brought is decoded in one go, the streams
//! it concerns are woken, and whatever they answer is collected and leaves with one write. Heads are decoded straight
//! into [`RequestHead`](serin_http1::RequestHead) and [`ResponseHead`](serin_http1::ResponseHead).
//!
//! Strict: what RFC 9113 calls malformed ends the stream, what it calls a connection error ends the connection, and a
//! peer that makes work without doing any (floods of resets, pings, settings, empty frames, endless header blocks) is
//! told to calm down. It deliberately knows no server push, no priorities and no extended CONNECT.
//!
//! Invariants: a peer never sends more than the windows it was given; no header list over the limit is ever kept; what
//! a stream sends is bounded by its windows and by the room in the connection's output.

mod connection;
mod error;
mod fields;
mod frame;
mod hpack;
mod huffman;
mod message;
mod session;
mod stream;

pub use connection::{Config, Refused, Role};
pub use error::{ConnectionError, Reason, StreamError};
pub use message::{REQUEST_LIMIT, RESPONSE_LIMIT};
pub use session::{Accepted, Session, StreamHandle};
pub use stream::Piece;
