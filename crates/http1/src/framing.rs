//! The length of a message body (RFC 9112 §6), and the fields that live on one hop only (RFC 9110 §7.6.1).
//!
//! Anything on which two implementations could disagree is an error: two lengths, a list of lengths, a length
//! beside a transfer coding, a coding other than one plain `chunked`.

use std::collections::HashSet;

use crate::head::{RequestHead, ResponseHead, Version};
use crate::{Error, HeaderBlock, syntax};

/// The rule by which a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// The length that a response without a body declares for the body it would have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Declared {
    /// Nothing of its own: its framing says all.
    #[default]
    AsFramed,
    /// So many bytes (a response to HEAD, or 304).
    Length(u64),
    /// It is not known (a response to HEAD whose length was not said): a response that may have a body says `chunked` (RFC 9112 §6.1).
    Unknown,
    /// Nothing is said, to a client that does not know `chunked`.
    Nothing,
}

/// Reads and removes the framing fields of a request.
///
/// # Errors
/// [`Error::ContentLength`], [`Error::TransferEncoding`], [`Error::UnknownCoding`] or [`Error::Field`].
pub fn of_request(head: &mut RequestHead) -> Result<Framing, Error> {
    of_request_with(head, false)
}

/// The same; with `allows_both` a length beside chunks is left out (RFC 9112 §6.3).
///
/// # Errors
/// As [`of_request`].
pub fn of_request_with(head: &mut RequestHead, allows_both: bool) -> Result<Framing, Error> {
    refuse_lookalikes(&head.fields)?;
    check_connection(&head.fields)?;
    let chunked = transfer_encoding(&head.fields)?;
    let length = content_length(&head.fields)?;
    if chunked && ((length.is_some() && !allows_both) || head.version == Version::Http10) {
        return Err(Error::TransferEncoding);
    }
    if head.is_connect() {
        // What follows is no body (RFC 9110 §9.3.6).
        match (chunked, length) {
            (true, _) => return Err(Error::UnknownCoding),
            (_, Some(1..)) => return Err(Error::BodyDisallowed),
            _ => {}
        }
    }
    strip(&mut head.fields);
    Ok(match (chunked, length) {
        (true, _) => Framing::Chunked,
        (false, Some(0) | None) => Framing::Empty,
        (false, Some(n)) => Framing::Length(n),
    })
}

/// Reads and removes the framing fields of a response to a request with method HEAD or not.
///
/// The second value is what the response declares without having it (HEAD, 304).
///
/// # Errors
/// As [`of_request`]; a length beside `chunked` is not one: the coding wins (RFC 9112 §6.3).
pub fn of_response(head: &mut ResponseHead, to_head: bool) -> Result<(Framing, Declared), Error> {
    let chunked = transfer_encoding(&head.fields)?;
    let length = if chunked { None } else { content_length(&head.fields)? };
    strip(&mut head.fields);
    if to_head || head.status == 304 {
        let unsaid = if to_head { Declared::Unknown } else { Declared::Nothing };
        return Ok((Framing::Empty, length.map_or(unsaid, Declared::Length)));
    }
    if head.status < 200 || head.status == 204 {
        return Ok((Framing::Empty, Declared::AsFramed));
    }
    let framing = match (chunked, length) {
        (true, _) => Framing::Chunked,
        (false, Some(n)) => Framing::Length(n),
        (false, None) => Framing::UntilClose,
    };
    Ok((framing, Declared::AsFramed))
}

/// Returns true when a response says two things about where it ends: a length beside a coding, or a body with a 204. It can be
/// understood (RFC 9112 §6.3), but whoever sent it may hold another view, so its connection carries nothing more.
#[must_use]
pub fn is_ambiguous(head: &ResponseHead) -> bool {
    let coded = head.fields.contains("transfer-encoding");
    let long = || head.fields.get_all("content-length").any(|v| v != b"0");
    if head.status == 204 { coded || long() } else { coded && head.fields.contains("content-length") }
}

/// Returns true when the connection may carry another message after this one, by its own words.
#[must_use]
pub fn keeps_alive(fields: &HeaderBlock, version: Version) -> bool {
    let mut alive = version != Version::Http10;
    for value in fields.get_all("connection").chain(fields.get_all("proxy-connection")) {
        for token in value.split(|b| *b == b',').map(syntax::trim) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    alive
}

/// Removes the fields that belong to one hop, and those that `Connection` names, but never one
/// that framing, routing or authorisation depends on: naming such a field must not make it vanish.
pub fn strip_hop_by_hop(fields: &mut HeaderBlock) {
    if let Some(nominated) = nominated(fields) {
        // The fields are counted, what a sender may name is not.
        let mut present: Vec<String> =
            fields.iter().map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
        present.retain(|name| nominated.contains(name));
        for name in present {
            fields.remove(&name);
        }
    }
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        fields.remove(name);
    }
    let trailers = fields
        .get_all("te")
        .any(|v| v.split(|b| *b == b',').any(|t| syntax::trim(t).eq_ignore_ascii_case(b"trailers")));
    if fields.remove("te") && trailers {
        fields.append(b"te", b"trailers");
    }
}

fn nominated(fields: &HeaderBlock) -> Option<HashSet<String>> {
    let names: HashSet<String> = fields
        .get_all("connection")
        .flat_map(|v| v.split(|b| *b == b','))
        .map(syntax::trim)
        .filter(|t| syntax::is_field_name(t))
        .map(|t| String::from_utf8_lossy(t).to_ascii_lowercase())
        .filter(|t| !matches!(t.as_str(), "close" | "keep-alive" | "te" | "upgrade"))
        .filter(|t| !PROTECTED.contains(&t.as_str()))
        .collect();
    (!names.is_empty()).then_some(names)
}

/// Names from which on a request's `Connection` is refused, `close` and `keep-alive` among them (Envoy's bound).
const TOO_MANY_NAMES: usize = 10;

/// Refuses a request that names more fields than any client has, or fields that proxies before this one wrote.
fn check_connection(fields: &HeaderBlock) -> Result<(), Error> {
    let mut count = 0;
    let mut upgrades = false;
    let mut wrong = false;
    for token in fields.get_all("connection").flat_map(|v| v.split(|b| *b == b',')).map(syntax::trim) {
        if token.is_empty() {
            continue;
        }
        count += 1;
        upgrades |= token.eq_ignore_ascii_case(b"upgrade");
        wrong |= token.starts_with(b":")
            || ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
                .iter()
                .any(|name| token.eq_ignore_ascii_case(name.as_bytes()));
    }
    let upgrades = upgrades && fields.contains("upgrade");
    if !upgrades && (wrong || count >= TOO_MANY_NAMES) { Err(Error::Connection) } else { Ok(()) }
}

const PROTECTED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "content-encoding",
    "authorization",
    "cookie",
    "set-cookie",
    "x-forwarded-for",
    "x-request-id",
];

fn strip(fields: &mut HeaderBlock) {
    fields.remove("content-length");
    fields.remove("transfer-encoding");
}

/// `Content_Length` and its like: some servers read them as the real field.
fn refuse_lookalikes(fields: &HeaderBlock) -> Result<(), Error> {
    for (name, _) in fields.iter() {
        let lookalike = matches!(name.len(), 4 | 14 | 17) && name.contains(&b'_') && {
            let dashed: Vec<u8> = name.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect();
            [&b"content-length"[..], b"transfer-encoding"].iter().any(|n| dashed.eq_ignore_ascii_case(n))
        };
        if lookalike {
            return Err(Error::Field);
        }
    }
    Ok(())
}

fn content_length(fields: &HeaderBlock) -> Result<Option<u64>, Error> {
    let mut values = fields.get_all("content-length");
    let Some(value) = values.next() else { return Ok(None) };
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    let canonical = plain && (value.len() == 1 || value.first() != Some(&b'0'));
    if values.next().is_some() || !canonical {
        return Err(Error::ContentLength);
    }
    Ok(Some(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'))))
}

fn transfer_encoding(fields: &HeaderBlock) -> Result<bool, Error> {
    let mut values = fields.get_all("transfer-encoding");
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() {
        return Err(Error::TransferEncoding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let known = [&b"gzip"[..], b"deflate", b"compress", b"x-gzip", b"x-compress"];
    let codings: Vec<&[u8]> = value.split(|b| *b == b',').map(syntax::trim).collect();
    match codings.as_slice() {
        [first @ .., last] if last.eq_ignore_ascii_case(b"chunked") && !first.is_empty() => {
            let legal = first.iter().all(|c| known.iter().any(|k| c.eq_ignore_ascii_case(k)));
            Err(if legal { Error::UnknownCoding } else { Error::TransferEncoding })
        }
        _ => Err(Error::TransferEncoding),
    }
}
