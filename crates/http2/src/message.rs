//! Messages: from field lists to heads, and what makes them malformed (RFC 9113 §8.2 and §8.3).

use serin_http1::{
    HeaderBlock, RequestHead, ResponseHead, Scheme, Version, is_field_name, is_field_value, is_host, is_method,
};

use crate::fields::FieldList;
use crate::hpack::{encode_field, encode_status};

/// Largest field list of a request, counted as RFC 9113 §6.5.2 does (Envoy's default).
pub const REQUEST_LIMIT: usize = 60 * 1024;
/// Largest field list of a response.
pub const RESPONSE_LIMIT: usize = 64 * 1024;
/// Most fields of a message (Envoy's default).
pub(crate) const MOST_FIELDS: usize = 100;

/// The message is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Pseudo-header fields of a request.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
}

/// Makes a request's head of a list. Whether the target is one that is forwarded is not decided here. An extended CONNECT, where
/// it may be, becomes the request with `upgrade` that HTTP/1 has for it.
pub(crate) fn request(list: &FieldList, may_connect: bool, head: &mut RequestHead) -> Result<(), Malformed> {
    let mut pseudo = Pseudo::default();
    let mut rest = list.iter();
    let first = rest.by_ref().find(|(name, value)| !pseudo.take(name, value));
    let regular = first.into_iter().chain(rest);
    let method = pseudo.method.filter(|m| is_method(m)).ok_or(Malformed)?;
    let mut own_host = None;
    for (name, value) in regular.clone() {
        check(name, value)?;
        if name == b"host" && own_host.replace(value).is_some() {
            return Err(Malformed);
        }
    }
    if let (Some(own), Some(authority)) = (own_host, pseudo.authority)
        && !own.eq_ignore_ascii_case(authority)
    {
        return Err(Malformed);
    }
    let authority = pseudo.authority.or(own_host).filter(|a| is_host(a)).ok_or(Malformed)?;
    if pseudo.protocol.is_some_and(|p| !may_connect || method != b"CONNECT" || !is_field_value(p) || p.is_empty()) {
        return Err(Malformed);
    }
    let method = if pseudo.protocol.is_some() { b"GET" } else { method };
    let target = pseudo.target(method, authority)?;
    make_room(list, &mut head.fields);
    head.start(method, target, Version::Http2);
    head.scheme = pseudo.scheme.map_or(Scheme::Unsaid, Scheme::of);
    head.fields.append(b"host", authority);
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in regular {
        match name {
            b"host" => {}
            b"cookie" => cookies.push(value),
            _ => head.fields.append(name, value),
        }
    }
    if let Some(protocol) = pseudo.protocol {
        head.fields.append(b"upgrade", protocol);
        head.fields.append(b"connection", b"upgrade");
    }
    match cookies.as_slice() {
        [] => {}
        [one] => head.fields.append(b"cookie", one),
        crumbs => head.fields.append(b"cookie", &crumbs.join(&b"; "[..])),
    }
    Ok(())
}

/// Reads what is sound of a request that is refused, for a log: its target and its fields.
pub(crate) fn outline(list: &FieldList, head: &mut RequestHead) {
    head.version = Version::Http2;
    let mut pseudo = Pseudo::default();
    let regular: Vec<(&[u8], &[u8])> = list.iter().filter(|(name, value)| !pseudo.take(name, value)).collect();
    let authority = pseudo.authority.filter(|a| is_host(a)).unwrap_or(b"-");
    let Some(method) = pseudo.method.filter(|m| is_method(m)) else { return };
    let Ok(target) = pseudo.target(method, authority) else { return };
    head.start(method, target, Version::Http2);
    head.scheme = pseudo.scheme.map_or(Scheme::Unsaid, Scheme::of);
    head.fields.append(b"host", authority);
    for (name, value) in regular.into_iter().take(MOST_FIELDS).filter(|(name, value)| check(name, value).is_ok()) {
        head.fields.append(name, value);
    }
}

impl<'a> Pseudo<'a> {
    /// Takes a pseudo-header field; false for any other, and for one that may not be.
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> bool {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return false,
        };
        // A second one is left to be found among the regular fields, where it is malformed.
        place.is_none() && {
            *place = Some(value);
            true
        }
    }

    /// The target: of CONNECT the authority, with nothing beside it (§8.5).
    fn target(&self, method: &[u8], authority: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if method == b"CONNECT" {
            let alone = self.scheme.is_none() && self.path.is_none() && self.authority.is_some();
            return if alone && authority.contains(&b':') { Ok(authority) } else { Err(Malformed) };
        }
        let path = self.path.filter(|p| is_field_value(p)).ok_or(Malformed)?;
        let good = path.starts_with(b"/") || (path == b"*" && method == b"OPTIONS");
        match self.scheme {
            Some(b"http" | b"https") if good => Ok(path),
            _ => Err(Malformed),
        }
    }
}

/// Makes a response's head of a list.
pub(crate) fn response(list: &FieldList, head: &mut ResponseHead) -> Result<(), Malformed> {
    let mut fields = list.iter();
    let Some((b":status", &[a, b, c])) = fields.next() else { return Err(Malformed) };
    if !(b'1'..=b'9').contains(&a) || !b.is_ascii_digit() || !c.is_ascii_digit() {
        return Err(Malformed);
    }
    let digit = |d: u8| u16::from(d - b'0');
    let status = digit(a) * 100 + digit(b) * 10 + digit(c);
    if status == 101 {
        return Err(Malformed);
    }
    make_room(list, &mut head.fields);
    head.start(status, b"", Version::Http2);
    append(fields, &mut head.fields)
}

/// Room for the list and for what a proxy adds, so that memory is taken once.
fn make_room(list: &FieldList, block: &mut HeaderBlock) {
    block.reserve(list.len() + 8, list.bytes.len() + 256);
}

/// Makes a block of a list of trailers.
pub(crate) fn trailers(list: &FieldList) -> Result<HeaderBlock, Malformed> {
    let mut block = HeaderBlock::default();
    append(list.iter(), &mut block)?;
    Ok(block)
}

fn append<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, block: &mut HeaderBlock) -> Result<(), Malformed> {
    for (name, value) in fields {
        check(name, value)?;
        block.append(name, value);
    }
    Ok(())
}

/// A regular field: a name in lower case, a value without controls or blanks at its ends, nothing that belongs to one
/// connection (§8.2).
fn check(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let sound = is_field_name(name)
        && !name.iter().any(u8::is_ascii_uppercase)
        && is_field_value(value)
        && !blank(value.first())
        && !blank(value.last());
    let of_connection = match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"upgrade" | b"transfer-encoding" => true,
        b"te" => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    };
    if sound && !of_connection { Ok(()) } else { Err(Malformed) }
}

/// The length that a message announces, when it is one that can be compared.
pub(crate) fn announced(fields: &HeaderBlock) -> Option<u64> {
    fields.get_str("content-length").and_then(|v| v.parse().ok())
}

/// Appends a request's header block; `length` is its `content-length`.
/// A request with `upgrade` becomes an extended CONNECT.
pub(crate) fn encode_request(head: &RequestHead, length: Option<u64>, out: &mut Vec<u8>) {
    match head.fields.get("upgrade") {
        None => encode_field(b":method", head.method(), out),
        Some(protocol) => {
            encode_field(b":method", b"CONNECT", out);
            encode_field(b":protocol", protocol, out);
        }
    }
    if !head.is_connect() {
        encode_field(b":scheme", head.scheme.as_str().as_bytes(), out);
        encode_field(b":path", head.target(), out);
    }
    encode_field(b":authority", head.authority(), out);
    encode_rest(&head.fields, length, out);
}

/// Appends a response's header block; `length` is its `content-length`.
pub(crate) fn encode_response(head: &ResponseHead, length: Option<u64>, out: &mut Vec<u8>) {
    encode_status(head.status, out);
    encode_rest(&head.fields, length, out);
}

/// Appends fields, but those that belong to a connection.
fn encode_rest(fields: &HeaderBlock, length: Option<u64>, out: &mut Vec<u8>) {
    for (name, value) in fields.iter() {
        let is_left_out = match name.len() {
            4 => name.eq_ignore_ascii_case(b"host"),
            7 => name.eq_ignore_ascii_case(b"upgrade"),
            10 => name.eq_ignore_ascii_case(b"connection"),
            _ => false,
        };
        if !is_left_out {
            encode_field(name, value, out);
        }
    }
    if let Some(length) = length {
        let mut digits = [0u8; 20];
        encode_field(b"content-length", serin_http1::encode::decimal(length, &mut digits), out);
    }
}

/// Appends the block of trailers.
pub(crate) fn encode_trailers(block: &HeaderBlock, out: &mut Vec<u8>) {
    encode_rest(block, None, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let mut list = FieldList::default();
        for (name, value) in fields {
            let start = list.bytes.len();
            list.bytes.extend_from_slice(name.as_bytes());
            let middle = list.bytes.len();
            list.bytes.extend_from_slice(value.as_bytes());
            list.close(start, middle);
        }
        list
    }

    const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a.b")];

    fn asked(fields: &[(&str, &str)]) -> Result<RequestHead, Malformed> {
        let mut head = RequestHead::default();
        request(&list(fields), false, &mut head).map(|()| head)
    }

    #[test]
    fn a_request_is_read() {
        let fields = [&GOOD[..], &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")]].concat();
        let head = asked(&fields).unwrap();
        assert_eq!((head.method(), head.target(), head.authority()), (&b"GET"[..], &b"/a"[..], &b"a.b"[..]));
        assert_eq!(head.fields.get("cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.fields.get("x"), Some(&b"y"[..]));
        let own = asked(&[GOOD[0], GOOD[1], GOOD[2], ("host", "c.d")]).unwrap();
        assert_eq!(own.authority(), b"c.d");
        let connect = asked(&[(":method", "CONNECT"), (":authority", "a.b:443")]).unwrap();
        assert_eq!(connect.target(), b"a.b:443");
    }

    /// Rows F1 to F7 and F10 of the hostile corpus.
    #[test]
    fn malformed_requests_are_refused() {
        let with = |extra: &[(&'static str, &'static str)]| [&GOOD[..], extra].concat();
        let mut rows: Vec<Vec<(&str, &str)>> = Vec::new();
        for name in ["X", "a b", "a\u{1}", "a\u{7f}", "a:b", "", ":unknown", ":status", "ä"] {
            rows.push(with(&[(name, "v")]));
        }
        for value in ["a\rb", "a\nb", "a\0b", " a", "a ", "\ta", "a\t", "\u{7f}"] {
            rows.push(with(&[("x", value)]));
            rows.push(vec![GOOD[0], GOOD[1], GOOD[2], (":authority", value)]);
            rows.push(vec![GOOD[0], GOOD[1], (":path", value), GOOD[3]]);
        }
        for field in [
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "a"),
            ("upgrade", "a"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("host", "other"),
            (":path", "/again"),
        ] {
            rows.push(with(&[field]));
        }
        for missing in 0..4 {
            rows.push(GOOD.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, f)| *f).collect());
        }
        rows.push(vec![("x", "y"), GOOD[0], GOOD[1], GOOD[2], GOOD[3]]);
        for path in ["", "a", "http://x/", "*"] {
            rows.push(vec![GOOD[0], GOOD[1], (":path", path), GOOD[3]]);
        }
        for method in ["GET /admin HTTP/1.1\r\nX:", "GET?", ""] {
            rows.push(vec![(":method", method), GOOD[1], GOOD[2], GOOD[3]]);
        }
        for scheme in ["http://localhost/?", "ftp", ""] {
            rows.push(vec![GOOD[0], (":scheme", scheme), GOOD[2], GOOD[3]]);
        }
        for authority in ["user@a.b", "a b", "", "a.b:x"] {
            rows.push(vec![GOOD[0], GOOD[1], GOOD[2], (":authority", authority)]);
        }
        rows.push(vec![GOOD[0], GOOD[1], GOOD[2], ("host", "a"), ("host", "a")]);
        rows.push(vec![(":method", "CONNECT"), GOOD[1], GOOD[2], GOOD[3]]);
        rows.push(vec![(":method", "CONNECT"), (":authority", "a.b")]);
        for row in rows {
            assert_eq!(asked(&row).err(), Some(Malformed), "{row:?}");
        }
    }

    #[test]
    fn responses_begin_with_a_status() {
        let answered = |fields: &[(&str, &str)]| {
            let mut head = ResponseHead::default();
            response(&list(fields), &mut head).map(|()| head.status)
        };
        assert_eq!(answered(&[(":status", "200"), ("a", "b")]), Ok(200));
        for row in [
            &[][..],
            &[("a", "b"), (":status", "200")],
            &[(":status", "099")],
            &[(":status", "abc")],
            &[(":status", "101")],
            &[(":status", "2000")],
            &[(":status", "200"), (":status", "200")],
            &[(":status", "200"), ("A", "b")],
            &[(":status", "200"), (":path", "/")],
        ] {
            assert_eq!(answered(row), Err(Malformed), "{row:?}");
        }
        assert_eq!(trailers(&list(&[(":status", "200")])).err(), Some(Malformed));
    }
}
