//! Byte streams, whatever carries them: connecting, accepting, both halves, and what every connection needs besides.
//!
//! This is the only crate that names a socket. Others hold a [`ByteStream`], or a [`ReadHalf`] and a [`WriteHalf`], and
//! do not know whether bytes travel over TCP. A kind of stream is a variant of a private enum in each of these three
//! types, so that a call is resolved by a branch and not through a table of functions, and a read of plain TCP goes from
//! the kernel into the caller's buffer without a copy between. [TLS](tls) is such a variant, and its handshakes are done here;
//! Unix sockets will be another.
//!
//! Beside them are what a connection shares with all others of its thread, [`buffers`] and the lazily kept [`Alarm`],
//! and the [driver](h2::Driver) that carries bytes between a stream and an HTTP/2 session. The crate deliberately does
//! not know requests, configuration, statistics or who is let in, and has no pool of connections.

mod alarm;
pub mod buffers;
pub mod h2;
mod halves;
mod listener;
mod options;
mod peer;
#[cfg(feature = "axum")]
mod serve;
mod stream;
pub mod tls;

pub use alarm::Alarm;
pub use halves::{ReadHalf, WriteHalf};
pub use listener::{BoundListener, Listener, canonical};
pub use peer::PeerState;
pub use stream::ByteStream;
