//! Character classes and the small grammars of RFC 9110 §5 and RFC 3986 §3.2.

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        i += 1;
    }
    table
}

/// `tchar` of RFC 9110 §5.6.2.
static TOKEN: [bool; 256] = token_table();

/// A method that is forwarded: a token of at most 32 bytes.
#[must_use]
pub fn is_method(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= 32 && bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// A field name: a token.
#[must_use]
pub fn is_field_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// A field value: no control bytes but HTAB.
#[must_use]
pub fn is_field_value(bytes: &[u8]) -> bool {
    // No way out in the middle: the compiler then looks at many bytes at once.
    !bytes.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// Strips spaces and tabs at both ends (OWS).
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(start, |at| at + 1);
    bytes.get(start..end).unwrap_or_default()
}

/// `uri-host [":" port]`, not empty, no user information, no empty or stray labels.
#[must_use]
pub fn is_host(bytes: &[u8]) -> bool {
    if let Some(rest) = bytes.strip_prefix(b"[") {
        let Some(close) = rest.iter().position(|b| *b == b']') else { return false };
        let (inside, after) = rest.split_at(close);
        let address = std::str::from_utf8(inside).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok());
        return address && is_port_suffix(after.get(1..).unwrap_or_default());
    }
    let (name, port) = match bytes.iter().position(|b| *b == b':') {
        Some(at) => bytes.split_at(at),
        None => (bytes, &b""[..]),
    };
    is_reg_name(name) && is_port_suffix(port)
}

fn is_reg_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    !name.is_empty()
        && name.len() <= 255
        && name.split(|b| *b == b'.').all(|label| {
            !label.is_empty()
                && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'*'))
        })
}

fn is_port_suffix(suffix: &[u8]) -> bool {
    match suffix.split_first() {
        None => true,
        Some((b':', digits)) => {
            digits.iter().all(u8::is_ascii_digit) && std::str::from_utf8(digits).is_ok_and(|s| s.parse::<u16>().is_ok())
        }
        Some(_) => false,
    }
}

/// Target bytes: visible ASCII, but no fragment (`#`) and no `\`, which some servers take for a slash. Others that RFC 3986 excludes
/// (quotes, braces) are sent by clients; [normalisation](crate::path::normalise) encodes them in paths.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| (0x21..0x7f).contains(b) && !matches!(b, b'#' | b'\\'))
}
