//! Request and status line, and the header block (RFC 9112 §2 to §5).
//!
//! A head is looked for line by line from where the last look ended, so a head that dribbles in byte by
//! byte costs linear work. Only CRLF ends a line: a bare LF or CR is refused, not repaired.

use memchr::memchr;

use crate::block::Span;
use crate::head::{RequestHead, ResponseHead, Scheme, Version};
use crate::{Error, syntax};

/// Bounds on a message head.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of start line and header lines together.
    pub head_bytes: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Number of header fields.
    pub fields: usize,
    /// Whether a whole URL stays the target instead of being taken apart.
    pub keeps_urls: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 60 * 1024, target_bytes: 16 * 1024, fields: 100, keeps_urls: false }
    }
}

/// The progress of the look at a head, so that the next look starts there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    line_start: usize,
    seen: usize,
    lines: usize,
}

impl Scan {
    /// The index after the empty line that ends the head, when it is there.
    fn end_of_head(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        while let Some(offset) = memchr(b'\n', input.get(self.seen..).unwrap_or_default()) {
            let newline = self.seen + offset;
            if newline == self.line_start || input.get(newline - 1) != Some(&b'\r') {
                return Err(Error::Field);
            }
            let line_length = newline - 1 - self.line_start;
            self.seen = newline + 1;
            self.line_start = self.seen;
            if line_length == 0 {
                return Ok(Some(self.seen));
            }
            if self.lines == 0 && line_length > limits.target_bytes + 64 {
                return Err(Error::TargetTooLong);
            }
            self.lines += 1;
            if self.lines > limits.fields + 1 {
                return Err(Error::TooManyFields);
            }
            if self.seen > limits.head_bytes {
                return Err(Error::HeadTooLarge);
            }
        }
        self.seen = input.len();
        if self.lines == 0 && self.seen > limits.target_bytes + 64 {
            return Err(Error::TargetTooLong);
        }
        if self.seen > limits.head_bytes {
            return Err(Error::HeadTooLarge);
        }
        Ok(None)
    }
}

/// Parses one request head from the start of `input` into `head`.
///
/// `Ok(None)` asks for more bytes; `Ok(Some(n))` says that the head took the first `n`.
/// `scan` must be fresh for each head and kept between calls with a growing `input`.
///
/// # Errors
/// The first violation found; see [`Error::status`] for what to answer. The connection must close after it.
pub fn parse_request(
    input: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Error> {
    if input == b"\r" {
        return Ok(None);
    }
    let skipped = usize::from(input.starts_with(b"\r\n")) * 2;
    let input = input.get(skipped..).unwrap_or_default();
    early_request_checks(input)?;
    let Some(end) = scan.end_of_head(input, limits)? else { return Ok(None) };
    let block = input.get(..end).unwrap_or_default();
    let line_end = first_line(block);
    let line = block.get(..line_end).unwrap_or_default();
    head.fields.receive(block);
    let (method, target, version) = request_line(line, limits)?;
    head.version = version;
    head.method = method;
    head.target = target;
    parse_fields(block, line_end + 2, &mut head.fields)?;
    normalise_target(limits, head)?;
    check_host(head)?;
    Ok(Some(skipped + end))
}

/// The end of the first line of a whole head. Lines end at LF (`Scan` made sure that CR stands before each), so a CR
/// anywhere else is part of the line and fails the checks of its parts.
fn first_line(block: &[u8]) -> usize {
    memchr(b'\n', block).unwrap_or_default().saturating_sub(1)
}

/// Refuses what can be refused before the head is whole, so that garbage does not wait for a timer.
fn early_request_checks(input: &[u8]) -> Result<(), Error> {
    match input.first() {
        Some(b) if !syntax::is_method(&[*b]) => Err(Error::RequestLine),
        _ if input.len() > 33 && !input.iter().take(33).any(|b| matches!(b, b' ' | b'\r')) => Err(Error::RequestLine),
        _ => Ok(()),
    }
}

fn request_line(line: &[u8], limits: &Limits) -> Result<(Span, Span, Version), Error> {
    let first = memchr(b' ', line).ok_or(Error::RequestLine)?;
    let rest = line.get(first + 1..).unwrap_or_default();
    let second = first + 1 + memchr(b' ', rest).ok_or(Error::RequestLine)?;
    let method = line.get(..first).unwrap_or_default();
    let target = line.get(first + 1..second).unwrap_or_default();
    let version = parse_version(line.get(second + 1..).unwrap_or_default())?;
    if !syntax::is_method(method) || target.is_empty() {
        return Err(Error::RequestLine);
    }
    if target.len() > limits.target_bytes {
        return Err(Error::TargetTooLong);
    }
    if !syntax::is_target(target) {
        return Err(Error::Target);
    }
    Ok((Span::new(0, first), Span::new(first + 1, second), version))
}

fn parse_version(bytes: &[u8]) -> Result<Version, Error> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Error::Version)
        }
        _ => Err(Error::RequestLine),
    }
}

fn parse_fields(block: &[u8], mut at: usize, fields: &mut crate::HeaderBlock) -> Result<(), Error> {
    loop {
        let rest = block.get(at..).unwrap_or_default();
        let length = memchr(b'\n', rest).ok_or(Error::Field)?.saturating_sub(1);
        if length == 0 {
            return Ok(());
        }
        let line = rest.get(..length).unwrap_or_default();
        let colon = memchr(b':', line).ok_or(Error::Field)?;
        let (name, value) = line.split_at(colon);
        let value = syntax::trim(value.get(1..).unwrap_or_default());
        if !syntax::is_field_name(name) || !syntax::is_field_value(value) {
            return Err(Error::Field);
        }
        let start = at + line.len() - trailing(line, value);
        fields.push_field(Span::new(at, at + colon), Span::new(start, start + value.len()));
        at += length + 2;
    }
}

/// Distance from the start of `value`, a sub-slice of `line`, to the end of `line`.
fn trailing(line: &[u8], value: &[u8]) -> usize {
    (line.as_ptr() as usize + line.len()) - value.as_ptr() as usize
}

/// Checks method and target together: authority form goes with CONNECT, `*` with OPTIONS, and everything else
/// starts with a slash (RFC 9112 §3.2, RFC 9113 §8.3.1). TRACE is not forwarded.
///
/// # Errors
/// [`Error::Method`] or [`Error::Target`].
pub fn check_target(head: &RequestHead) -> Result<(), Error> {
    let target = head.target();
    let sound = match head.method() {
        b"TRACE" => return Err(Error::Method),
        _ if head.is_connect() => {
            let has_port = target.iter().rposition(|b| *b == b':').is_some_and(|at| at + 1 < target.len());
            syntax::is_host(target) && has_port && !target.ends_with(b":0")
        }
        method => target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS"),
    };
    if sound && syntax::is_target(target) { Ok(()) } else { Err(Error::Target) }
}

/// Turns absolute form into origin form with `host` from the target (RFC 9112 §3.2.2).
fn normalise_target(limits: &Limits, head: &mut RequestHead) -> Result<(), Error> {
    let checked = check_target(head);
    if limits.keeps_urls && checked == Err(Error::Target) && strip_scheme(head.target()).is_some() {
        return Ok(());
    }
    if head.is_connect() && checked.is_ok() {
        // The target says where, whatever `host` says (RFC 9112 §3.2.3).
        let authority = head.target().to_vec();
        head.fields.set("host", &authority);
    }
    if checked != Err(Error::Target) || head.is_connect() {
        return checked;
    }
    let target = head.target();
    let rest = strip_scheme(target).ok_or(Error::Target)?;
    let split = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    if !syntax::is_host(authority) {
        return Err(Error::Target);
    }
    let scheme = Scheme::of(target.get(..target.len() - rest.len() - 3).unwrap_or_default());
    let authority = authority.to_vec();
    let mut origin = Vec::with_capacity(path.len() + 1);
    if !path.starts_with(b"/") {
        origin.push(b'/');
    }
    origin.extend_from_slice(path);
    if head.fields.get_all("host").count() > 1 {
        return Err(Error::Host);
    }
    head.fields.set("host", &authority);
    head.scheme = scheme;
    head.set_target(&origin);
    Ok(())
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let prefix = target.get(..scheme.len())?;
        prefix.eq_ignore_ascii_case(scheme).then(|| target.get(scheme.len()..).unwrap_or_default())
    })
}

fn check_host(head: &RequestHead) -> Result<(), Error> {
    let mut hosts = head.fields.get_all("host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if syntax::is_host(host) => Ok(()),
        // Where none is there, somebody may know one, or answers as it should be answered.
        (None, None) => Ok(()),
        _ => Err(Error::Host),
    }
}

/// Parses one response head; as [`parse_request`], for what an upstream sent.
///
/// # Errors
/// The first violation found; the upstream connection must not be used again.
pub fn parse_response(
    input: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<Option<usize>, Error> {
    let probe = input.get(..input.len().min(5)).unwrap_or_default();
    if !b"HTTP/".starts_with(probe) {
        return Err(Error::StatusLine);
    }
    let Some(end) = scan.end_of_head(input, limits)? else { return Ok(None) };
    let block = input.get(..end).unwrap_or_default();
    let line_end = first_line(block);
    let line = block.get(..line_end).unwrap_or_default();
    let version = parse_version(line.get(..8).unwrap_or_default()).map_err(|_| Error::StatusLine)?;
    let status = match line.get(8..12) {
        Some([b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            [a, b, c].iter().fold(0u16, |n, d| n * 10 + u16::from(**d - b'0'))
        }
        _ => return Err(Error::StatusLine),
    };
    let reason = match line.get(12) {
        None => Span::default(),
        Some(b' ') => Span::new(13, line_end),
        Some(_) => return Err(Error::StatusLine),
    };
    head.fields.receive(block);
    head.version = version;
    head.status = status;
    head.reason = reason;
    if !syntax::is_field_value(head.reason()) {
        return Err(Error::StatusLine);
    }
    parse_fields(block, line_end + 2, &mut head.fields)?;
    Ok(Some(end))
}
