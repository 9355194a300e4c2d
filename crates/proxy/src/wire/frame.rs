//! The pieces of a body, whatever it comes from.

use bytes::Bytes;
use serin_http1::HeaderBlock;

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Fields after the last byte.
    Trailers(HeaderBlock),
}

/// The result of `take`.
#[derive(Debug)]
pub(crate) enum Take {
    /// A piece.
    Frame(Frame),
    /// The proper end.
    End,
    /// Nothing yet.
    Wait,
}

/// The reason why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The sender broke the protocol.
    Malformed,
    /// The sender went away before the end.
    Aborted,
    /// The sender said that it was done before the end.
    Truncated,
    /// Its trailers are more than they may be.
    TooLarge,
    /// Its trailers have more fields than they may have.
    TooMany,
    /// Its trailers have a name with an underscore where that is refused.
    Underscore,
}
