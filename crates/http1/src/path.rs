//! Path normalisation (RFC 3986 §5.2.4 and §6.2.2), done once, before routing, and forwarded in the same form.

use crate::Error;

/// The normalisations of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalise {
    /// Resolve `.` and `..` segments and decode percent-encoded unreserved characters.
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
    let decoded = if how.dots { decode_unreserved(path) } else { path.to_vec() };
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

/// A cheap look: only paths with a suspicious pair of bytes are rebuilt.
fn needs_work(path: &[u8], how: Normalise) -> bool {
    path.windows(2).any(|pair| match pair {
        b"/." => how.dots,
        b"//" => how.merge_slashes,
        [b'%', _] => how.dots,
        _ => false,
    })
}

fn decode_unreserved(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let decoded = path.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            let value = u8::from_str_radix(text, 16).ok()?;
            (value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~')).then_some(value)
        });
        out.push(decoded.unwrap_or(*byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    out
}
