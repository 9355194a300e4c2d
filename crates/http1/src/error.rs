//! The reasons why bytes are not an acceptable HTTP/1 message, with the status for each.

/// A reason to refuse a message. Every variant maps to one response status, see [`Error::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request line is not `method SP target SP HTTP/1.x` (RFC 9112 §3).
    #[error("malformed request line")]
    RequestLine,
    /// The status line is not `HTTP/1.x SP 3DIGIT SP reason` (RFC 9112 §4).
    #[error("malformed status line")]
    StatusLine,
    /// The request target is not one of the four forms (RFC 9112 §3.2).
    #[error("malformed request target")]
    Target,
    /// The protocol version is none that is spoken here (RFC 9112 §2.3).
    #[error("unsupported HTTP version")]
    Version,
    /// A header line is malformed: bad name, bad value, folding, bare CR or LF (RFC 9112 §5).
    #[error("malformed header field")]
    Field,
    /// `Host` is missing, repeated or no valid authority (RFC 9112 §3.2).
    #[error("missing, repeated or malformed host")]
    Host,
    /// `Content-Length` is not one plain decimal number, or appears beside `Transfer-Encoding`.
    #[error("malformed content-length")]
    ContentLength,
    /// A CONNECT says that it has a body (RFC 9110 §9.3.6).
    #[error("a CONNECT with a body")]
    BodyDisallowed,
    /// `Transfer-Encoding` is something other than a single final `chunked`.
    #[error("malformed transfer-encoding")]
    TransferEncoding,
    /// A transfer coding that is legal but not implemented (RFC 9112 §6.1).
    #[error("transfer coding not implemented")]
    UnknownCoding,
    /// A chunk header, chunk terminator or trailer is malformed (RFC 9112 §7.1).
    #[error("malformed chunk")]
    Chunk,
    /// The target is longer than the limit.
    #[error("request target too long")]
    TargetTooLong,
    /// The head is larger than the limit (RFC 6585 §5).
    #[error("header block too large")]
    HeadTooLarge,
    /// The head has more fields than the limit.
    #[error("too many header fields")]
    TooManyFields,
    /// The method is none that this proxy forwards (TRACE, and CONNECT without a tunnel).
    #[error("method not allowed")]
    Method,
    /// `Connection` names more fields than any client has, or one that only proxies write (Envoy: `sanitizeConnectionHeader`).
    #[error("connection header rejected")]
    Connection,
    /// An `Expect` other than `100-continue` (RFC 9110 §10.1.1).
    #[error("unknown expectation")]
    Expectation,
}

impl Error {
    /// The status code that tells a client of this error. An error in an upstream's response is 502 whatever it is.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::UnknownCoding => 501,
            Self::Version => 505,
            Self::Method => 405,
            Self::Expectation => 417,
            _ => 400,
        }
    }
}
