//! Headers that routes add, set and remove, and names of headers and cookies.

use serin_model::{HeaderOperations, Headers};

use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

pub(super) fn headers(cursor: &Cursor<'_>) -> Headers {
    let Some(object) = cursor.object() else { return Headers::default() };
    let part = |name: &str| object.get(name).map(|c| operations(&c)).unwrap_or_default();
    Headers { request: part("request"), response: part("response") }
}

fn operations(cursor: &Cursor<'_>) -> HeaderOperations {
    let Some(object) = cursor.object() else { return HeaderOperations::default() };
    let pairs = |name: &str| -> Vec<(String, String)> {
        let Some(map) = object.get(name) else { return Vec::new() };
        if map.entries().len() > MOST_HEADERS {
            map.invalid(format!("there are more than {MOST_HEADERS} headers"), "proxies refuse that many");
            return Vec::new();
        }
        let mut list: Vec<_> = map.entries().into_iter().filter_map(|(k, v)| header_edit(&k, &v)).collect();
        list.sort();
        list
    };
    HeaderOperations {
        set: pairs("set"),
        add: pairs("add"),
        remove: object.get("remove").map(|r| r.list().iter().filter_map(removed).collect()).unwrap_or_default(),
    }
}

/// A header to be taken out. Those that routing rests on stay, as in Istio (`isInternalHeader`).
fn removed(item: &Cursor<'_>) -> Option<String> {
    let name = item.text()?;
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        let message = format!("'{name}' is not taken out: requests are routed by it");
        item.report(Code::NoEffectYet, Severity::Warning, message, "change it with rewrite.authority or rewrite.uri");
        return None;
    }
    header_name(&name, item)
}

/// Bytes of a header's value at most, and headers of one kind of edit (Envoy, `HeaderValue` and `RouteAction`).
const LONGEST_VALUE: usize = 16_384;

const MOST_HEADERS: usize = 1000;

/// A header to be set or added, checked as proxies will check it.
fn header_edit(name: &str, value: &Cursor<'_>) -> Option<(String, String)> {
    let name = header_name(name, value)?;
    let text = value.text()?;
    if text.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        value.invalid(format!("the value of header '{name}' has a control character"), "");
        return None;
    }
    if text.len() > LONGEST_VALUE {
        value.invalid(format!("the value of header '{name}' has more than {LONGEST_VALUE} bytes"), "proxies refuse it");
        return None;
    }
    Some((name, text))
}

/// A header's name in lower case (RFC 9110 §5.1). What HTTP/2 calls a pseudo-header is none.
pub(crate) fn header_name(name: &str, at: &Cursor<'_>) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        at.invalid(
            format!("'{name}' is no header name"),
            "a name has letters, digits and '-'; path and authority are changed by rewrite",
        );
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// A cookie's name: more than RFC 6265 §4.1.1 calls a token, because browsers and proxies take more; nothing that ends the name.
pub(crate) fn cookie_name(at: &Cursor<'_>) -> Option<String> {
    let name = at.text()?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b"=;,\"\\".contains(&b)) {
        at.invalid(format!("'{name}' is no cookie name"), "a name has letters, digits and '-'");
        return None;
    }
    Some(name)
}
