//! The reasons why a connection or a stream ends.

use std::fmt;

/// An error code (RFC 9113 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something failed here.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// The peer sent more than it may.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that is closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The stream was not processed at all.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is not needed any more.
    pub const CANCEL: Self = Self(8);
    /// A header block cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The peer makes work without doing any.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// The reason why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code that the peer is told.
    pub reason: Reason,
    /// The violation.
    pub why: &'static str,
}

impl ConnectionError {
    pub(crate) const fn new(reason: Reason, why: &'static str) -> Self {
        Self { reason, why }
    }

    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, why)
    }

    pub(crate) const fn size(why: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, why)
    }

    pub(crate) const fn calm(why: &'static str) -> Self {
        Self::new(Reason::ENHANCE_YOUR_CALM, why)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP/2 error {})", self.why, self.reason.0)
    }
}

impl std::error::Error for ConnectionError {}

/// The reason why a stream ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// The peer did not process it at all.
    Refused,
    /// The peer gave it up.
    Reset(Reason),
    /// The connection is gone.
    Gone,
    /// The peer's message is malformed.
    Malformed,
}
