//! Path normalisation (RFC 3986 §5.2.4 and §6.2.2), done once, before routing, and forwarded in the same form.

use std::borrow::Cow;
use std::io::Write as _;

use crate::Error;

/// The normalisations of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalise {
    /// Resolve `.` and `..` segments, decode percent-encoded unreserved characters, encode what a path may not have, and take `\\` for `/`.
    pub dots: bool,
    /// Make one slash of several.
    pub merge_slashes: bool,
}

/// The normal form of an origin-form target, or `None` when it already is in it.
///
/// # Errors
/// [`Error::Target`] for a bad percent triplet, an encoded NUL, or a `..` that leaves the root.
pub fn normalise(target: &[u8], how: Normalise) -> Result<Option<Vec<u8>>, Error> {
    let split = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(split);
    check_triplets(path)?;
    if !needs_work(path, how) {
        return Ok(None);
    }
    let decoded = if how.dots { canonical_bytes(&without_parameters_of_dots(path)) } else { path.to_vec() };
    let mut out: Vec<&[u8]> = Vec::new();
    let mut trailing_slash = false;
    for (index, segment) in decoded.split(|b| *b == b'/').enumerate() {
        if index == 0 {
            continue;
        }
        trailing_slash = false;
        match segment {
            b"." if how.dots => trailing_slash = true,
            b".." if how.dots => {
                out.pop().ok_or(Error::Target)?;
                trailing_slash = true;
            }
            b"" if how.merge_slashes => trailing_slash = true,
            other => out.push(other),
        }
    }
    let mut normal = Vec::with_capacity(target.len());
    for segment in &out {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if (trailing_slash && normal.last() != Some(&b'/')) || normal.is_empty() {
        normal.push(b'/');
    }
    normal.extend_from_slice(query);
    Ok((normal != target).then_some(normal))
}

/// The target with the encoded slashes and backslashes of its path decoded, or `None` when it has none (Envoy:
/// `PathUtil::unescapeSlashes`).
#[must_use]
pub fn unescape_slashes(target: &[u8]) -> Option<Vec<u8>> {
    let split = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (mut path, query) = target.split_at(split);
    let mut out = Vec::with_capacity(target.len());
    while let Some(at) = memchr::memchr(b'%', path) {
        let (before, rest) = path.split_at(at);
        out.extend_from_slice(before);
        let decoded = match rest.get(1..3) {
            Some(b"2F" | b"2f") => Some(b'/'),
            Some(b"5C" | b"5c") => Some(b'\\'),
            _ => None,
        };
        let taken = if decoded.is_some() { 3 } else { 1 };
        match decoded {
            Some(slash) => out.push(slash),
            None => out.push(b'%'),
        }
        path = rest.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(path);
    out.extend_from_slice(query);
    (out != target).then_some(out)
}

fn check_triplets(path: &[u8]) -> Result<(), Error> {
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some(b"00") => return Err(Error::Target),
            Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {}
            _ => return Err(Error::Target),
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    Ok(())
}

/// A cheap look: only paths with a suspicious byte or pair of bytes are rebuilt.
fn needs_work(path: &[u8], how: Normalise) -> bool {
    let is_special = |byte: u8| how.dots && (byte == b'%' || byte == b'\\' || is_encoded(byte));
    path.last().is_some_and(|byte| is_special(*byte))
        || path.windows(2).any(|pair| match pair {
            b"/." => how.dots,
            b"//" => how.merge_slashes,
            [byte, _] => is_special(*byte),
            _ => false,
        })
}

/// Returns true for what RFC 3986 does not allow in a path and the URL standard encodes there ("path percent-encode set").
fn is_encoded(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// The path with its dot segments without parameters: some servers take `..;x` for `..` (Envoy does so, before it decodes).
fn without_parameters_of_dots(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b';', path).is_none() {
        return Cow::Borrowed(path);
    }
    let segments = path.split(|b| *b == b'/').map(|segment| match segment {
        [b'.', b'.', b';', ..] => &b".."[..],
        [b'.', b';', ..] => b".",
        other => other,
    });
    Cow::Owned(segments.collect::<Vec<_>>().join(&b'/'))
}

/// Decodes unreserved characters, encodes those that a path may not have, and turns backslashes round, as the URL standard does.
fn canonical_bytes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let decoded = path.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            let value = u8::from_str_radix(text, 16).ok()?;
            (value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~')).then_some(value)
        });
        match (decoded, *byte) {
            (Some(decoded), _) => out.push(decoded),
            (None, b'\\') => out.push(b'/'),
            (None, byte) if is_encoded(byte) => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            (None, byte) => out.push(byte),
        }
        at += if decoded.is_some() { 3 } else { 1 };
    }
    out
}
