//! Heads and chunks as bytes. Framing is always written from what was understood, never copied.

use std::io::Write as _;

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
    /// `connection: upgrade`; the `upgrade` field itself is among the fields.
    Upgrade,
}

/// Appends a request head, ready to be sent to an HTTP/1.1 upstream.
pub fn request(head: &RequestHead, framing: Framing, connection: Connection, out: &mut Vec<u8>) {
    out.reserve(head.fields.wire_size() + head.target().len() + 96);
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(head.fields.iter(), out);
    let length_expected = matches!(head.method(), b"POST" | b"PUT" | b"PATCH");
    match framing {
        Framing::Empty if length_expected => out.extend_from_slice(b"content-length: 0\r\n"),
        Framing::Empty | Framing::UntilClose => {}
        other => write_framing(other, out),
    }
    end(connection, out);
}

/// Appends a response head for an HTTP/1.1 client; `declared` counts when there is no body.
pub fn response(head: &ResponseHead, framing: Framing, declared: Declared, connection: Connection, out: &mut Vec<u8>) {
    out.reserve(head.fields.wire_size() + 96);
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(u64::from(head.status), out);
    out.push(b' ');
    let reason = head.reason();
    out.extend_from_slice(if reason.is_empty() { reason_of(head.status).as_bytes() } else { reason });
    out.extend_from_slice(b"\r\n");
    fields(head.fields.iter(), out);
    match (framing, declared) {
        (Framing::Empty, Declared::Length(n)) => write_framing(Framing::Length(n), out),
        (Framing::Empty, Declared::AsFramed) if head.status >= 200 && !matches!(head.status, 204 | 304) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        (Framing::Empty, Declared::Unknown) if head.status >= 200 && head.status != 204 => {
            write_framing(Framing::Chunked, out);
        }
        (Framing::Empty | Framing::UntilClose, _) => {}
        (other, _) => write_framing(other, out),
    }
    end(connection, out);
}

/// Appends `size CRLF` of a chunk; the data and a CRLF must follow.
pub fn chunk_header(size: usize, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// The end of a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn fields<'a>(iter: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
    for (name, value) in iter {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            push_number(n, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Empty | Framing::UntilClose => {}
    }
}

fn end(connection: Connection, out: &mut Vec<u8>) {
    out.extend_from_slice(match connection {
        Connection::Default => b"\r\n",
        Connection::Close => &b"connection: close\r\n\r\n"[..],
        Connection::KeepAlive => b"connection: keep-alive\r\n\r\n",
        Connection::Upgrade => b"connection: upgrade\r\n\r\n",
    });
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
