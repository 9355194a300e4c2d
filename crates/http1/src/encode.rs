//! Heads and chunks as bytes. Framing is always written from what was understood, never copied.

use std::io::Write as _;

use crate::HeaderBlock;
use crate::framing::{Declared, Framing};
use crate::head::{RequestHead, ResponseHead, reason_of};

/// The sender's statement about the connection after this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Says nothing: HTTP/1.1 keeps the connection.
    Default,
    /// `connection: close`.
    Close,
    /// `connection: keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
}

/// How heads are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// How names of fields are written.
    pub names: Names,
    /// Whether a response keeps the reason phrase that it came with, rather than the registered one.
    pub keeps_reason: bool,
    /// Whether a response says that it is HTTP/1.0.
    pub is_http10: bool,
}

/// How names of fields are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// In lower case.
    #[default]
    Lower,
    /// `Content-Type`
    Proper,
    /// As they came.
    Kept,
    /// As they came; those that came from nobody as `Content-Type`.
    KeptOwnProper,
}

/// Appends a request head, ready to be sent to an HTTP/1.1 upstream.
pub fn request(head: &RequestHead, framing: Framing, connection: Connection, style: Style, out: &mut Vec<u8>) {
    out.reserve(head.fields.wire_size() + head.target().len() + 96);
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(&head.fields, style, out);
    let length_expected = matches!(head.method(), b"POST" | b"PUT" | b"PATCH");
    match framing {
        Framing::Empty if length_expected => write_framing(Framing::Length(0), style, out),
        Framing::Empty | Framing::UntilClose => {}
        other => write_framing(other, style, out),
    }
    end(connection, style, out);
}

/// Appends a response head for an HTTP/1 client; what it declares in `ending` counts when there is no body.
pub fn response(
    head: &ResponseHead,
    ending: (Framing, Declared),
    connection: Connection,
    style: Style,
    out: &mut Vec<u8>,
) {
    let (framing, declared) = ending;
    out.reserve(head.fields.wire_size() + 96);
    out.extend_from_slice(if style.is_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    push_number(u64::from(head.status), out);
    out.push(b' ');
    let own = if style.keeps_reason { head.reason() } else { b"" };
    out.extend_from_slice(if own.is_empty() { said(head.status).as_bytes() } else { own });
    out.extend_from_slice(b"\r\n");
    fields(&head.fields, style, out);
    match (framing, declared) {
        (Framing::Empty, Declared::Length(n)) => write_framing(Framing::Length(n), style, out),
        (Framing::Empty, Declared::AsFramed) if head.status >= 200 && !matches!(head.status, 204 | 304) => {
            write_framing(Framing::Length(0), style, out);
        }
        (Framing::Empty, Declared::Unknown) if head.status >= 200 && head.status != 204 => {
            write_framing(Framing::Chunked, style, out);
        }
        (Framing::Empty | Framing::UntilClose, _) => {}
        (other, _) => write_framing(other, style, out),
    }
    end(connection, style, out);
}

/// The reason phrase of a status; one that is not registered has a word, too.
fn said(status: u16) -> &'static str {
    match reason_of(status) {
        "" => "Unknown",
        reason => reason,
    }
}

/// Appends trailers and the empty line after them.
pub fn trailers(block: &HeaderBlock, style: Style, out: &mut Vec<u8>) {
    fields(block, style, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends `size CRLF` of a chunk; the data and a CRLF must follow.
pub fn chunk_header(size: usize, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// The end of a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn fields(block: &HeaderBlock, style: Style, out: &mut Vec<u8>) {
    match style.names {
        Names::Lower => {
            for (name, value) in block.iter() {
                let start = out.len();
                out.extend_from_slice(name);
                out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
                finish_field(value, out);
            }
        }
        Names::Proper => block.iter().for_each(|(name, value)| {
            proper(name, out);
            finish_field(value, out);
        }),
        Names::Kept => block.iter().for_each(|(name, value)| {
            out.extend_from_slice(name);
            finish_field(value, out);
        }),
        Names::KeptOwnProper => block.iter_with_origin().for_each(|(name, value, is_own)| {
            if is_own {
                proper(name, out);
            } else {
                out.extend_from_slice(name);
            }
            finish_field(value, out);
        }),
    }
}

fn finish_field(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a name with a capital letter after whatever is neither a letter nor a digit (Envoy: `ProperCaseHeaderKeyFormatter`).
fn proper(name: &[u8], out: &mut Vec<u8>) {
    let mut begins = true;
    for byte in name {
        out.push(if begins { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() });
        begins = !byte.is_ascii_alphanumeric();
    }
}

/// Appends a field of our own.
fn own_field(name: &[u8], value: &[u8], style: Style, out: &mut Vec<u8>) {
    match style.names {
        Names::Lower | Names::Kept => out.extend_from_slice(name),
        Names::Proper | Names::KeptOwnProper => proper(name, out),
    }
    finish_field(value, out);
}

fn write_framing(framing: Framing, style: Style, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(n) => own_field(b"content-length", decimal(n, &mut [0; 20]), style, out),
        Framing::Chunked => own_field(b"transfer-encoding", b"chunked", style, out),
        Framing::Empty | Framing::UntilClose => {}
    }
}

fn end(connection: Connection, style: Style, out: &mut Vec<u8>) {
    match connection {
        Connection::Default => {}
        Connection::Close => own_field(b"connection", b"close", style, out),
        Connection::KeepAlive => own_field(b"connection", b"keep-alive", style, out),
    }
    out.extend_from_slice(b"\r\n");
}

fn push_number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(decimal(n, &mut [0; 20]));
}

/// A number's decimal digits, in the caller's buffer.
#[must_use]
pub fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    &digits[at..]
}
