//! Cookies of a request (RFC 6265 §4.2.1).

use serin_http1::HeaderBlock;

/// The first value of a cookie of that name; quotes around a value do not belong to it.
#[must_use]
pub fn value<'a>(fields: &'a HeaderBlock, name: &[u8]) -> Option<&'a [u8]> {
    fields.get_all("cookie").find_map(|line| {
        line.split(|b| *b == b';').find_map(|pair| {
            let at = pair.iter().position(|b| *b == b'=')?;
            let value = pair.get(at + 1..)?.trim_ascii();
            let unquoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
            (pair.get(..at)?.trim_ascii() == name).then_some(unquoted.unwrap_or(value))
        })
    })
}
