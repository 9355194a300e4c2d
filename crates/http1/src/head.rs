//! Request and response heads, shared by HTTP/1 and HTTP/2.

use crate::block::{HeaderBlock, Span};

/// The protocol a message was received with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes unless it says keep-alive, knows no chunks.
    Http10,
    /// HTTP/1.1, and 1.2 to 1.9, which are read as 1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// The two ways in which a message stands on the wire. (Envoy: codec type.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Codec {
    /// HTTP/1: one exchange at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2: a stream for each exchange.
    Http2,
}

impl Version {
    /// Returns the codec that speaks this version.
    #[must_use]
    pub fn codec(self) -> Codec {
        match self {
            Self::Http10 | Self::Http11 => Codec::Http1,
            Self::Http2 => Codec::Http2,
        }
    }

    /// As access logs print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The scheme of what a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    /// The request does not say.
    #[default]
    Unsaid,
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// Reads a scheme, whatever its case.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match text {
            text if text.eq_ignore_ascii_case(b"http") => Self::Http,
            text if text.eq_ignore_ascii_case(b"https") => Self::Https,
            _ => Self::Unsaid,
        }
    }

    /// Returns the scheme; `http` when it is not said.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http | Self::Unsaid => "http",
        }
    }
}

/// Method, target and header fields of a request.
///
/// The target is in origin form (`/path?query`) or `*`, or `host:port` for CONNECT. The authority, wherever
/// it came from (absolute form, `:authority`), is the value of the `host` field.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The header fields; `host` holds the authority.
    pub fields: HeaderBlock,
    /// The protocol it came with.
    pub version: Version,
    /// The scheme of what is asked for.
    pub scheme: Scheme,
    pub(crate) method: Span,
    pub(crate) target: Span,
}

impl RequestHead {
    /// Makes this an empty head of the given start line, keeping its memory.
    pub fn start(&mut self, method: &[u8], target: &[u8], version: Version) {
        self.fields.clear();
        self.version = version;
        self.scheme = Scheme::Unsaid;
        self.method = self.fields.push_bytes(method);
        self.target = self.fields.push_bytes(target);
    }

    /// The method, case kept.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.fields.slice(self.method)
    }

    /// The whole target: path with query.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.fields.slice(self.target)
    }

    /// The path without query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.split(|b| *b == b'?').next().unwrap_or(target)
    }

    /// The query without its question mark, empty when there is none.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        let target = self.target();
        match memchr::memchr(b'?', target) {
            Some(at) => target.get(at + 1..).unwrap_or_default(),
            None => &[],
        }
    }

    /// The authority: the `host` field, empty when there is none.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        self.fields.get("host").unwrap_or_default()
    }

    /// Replaces the target.
    pub fn set_target(&mut self, target: &[u8]) {
        self.target = self.fields.push_bytes(target);
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.method = self.fields.push_bytes(method);
    }

    /// Returns true when the method is idempotent (RFC 9110 §9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE")
    }

    /// Returns true when the method is `CONNECT`.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.method() == b"CONNECT"
    }
}

/// Status and header fields of a response.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// The header fields.
    pub fields: HeaderBlock,
    /// The protocol it came with.
    pub version: Version,
    /// The status code, 100 to 999.
    pub status: u16,
    pub(crate) reason: Span,
}

impl ResponseHead {
    /// An empty head of that status, reason from the registry.
    #[must_use]
    pub fn new(status: u16) -> Self {
        let mut head = Self::default();
        head.start(status, reason_of(status).as_bytes(), Version::Http11);
        head
    }

    /// Makes this an empty head of the given status line, keeping its memory.
    pub fn start(&mut self, status: u16, reason: &[u8], version: Version) {
        self.fields.clear();
        self.status = status;
        self.version = version;
        self.reason = self.fields.push_bytes(reason);
    }

    /// The reason phrase, often empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.fields.slice(self.reason)
    }
}

/// The registered reason phrase of a status, empty for the unregistered.
#[must_use]
pub fn reason_of(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}
