//! HTTP/1 messages on the wire: header block, request and status line, HTTP/1.1 framing.
//!
//! Bytes in, bytes out; no socket, no clock, no async. Strict by default: wherever RFC 9112 lets a
//! recipient choose between repairing and rejecting, this crate rejects, because a proxy that repairs
//! is a proxy that disagrees with its upstream about where a message ends.
//!
//! It deliberately does not know about connections, pools or routes. HTTP/2 messages use the same
//! [`RequestHead`] and [`ResponseHead`]; the HTTP/2 framing itself is another crate's work.
//!
//! Invariants: a parsed head holds no CR, LF or NUL in any name or value; framing fields
//! (`content-length`, `transfer-encoding`) are taken out of the block by [`framing`] and put back
//! canonically by [`encode`], so what is forwarded can never disagree with what was understood.

mod block;
pub mod body;
pub mod encode;
mod error;
pub mod framing;
mod head;
mod parse;
pub mod path;
mod syntax;

pub use block::{HeaderBlock, NameSet};
pub use error::Error;
pub use head::{Codec, RequestHead, ResponseHead, Scheme, Version, reason_of};
pub use parse::{Limits, Scan, check_target, parse_request, parse_response};
pub use syntax::{is_field_name, is_field_value, is_host, is_method};
