//! What is done to a request head before anything is decided by it.

use std::io::Write as _;
use std::net::IpAddr;

use serin_http1::path::{self, Normalise};
use serin_http1::{Error, RequestHead, Version, framing};
use serin_resources::connection_manager::HttpConnectionManager;

use super::ConnectionContext;

/// Headers that only a proxy of ours may set; from outside they are removed.
const INTERNAL: [&str; 8] = [
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retry-on",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-alt-stat-name",
];

/// Brings a request into the form in which it is routed and forwarded; true when it asks for a WebSocket
/// and may have one.
///
/// # Errors
/// [`Error::Target`] for a path that has no normal form.
pub(crate) fn normalise(
    context: &ConnectionContext,
    manager: &HttpConnectionManager,
    head: &mut RequestHead,
) -> Result<bool, Error> {
    if !head.is_connect() {
        let how = Normalise { dots: manager.path.normalise, merge_slashes: manager.path.merge_slashes };
        if let Some(normal) = path::normalise(head.target(), how)? {
            head.set_target(&normal);
        }
    }
    let websocket = manager.websocket && is_websocket(head);
    framing::strip_hop_by_hop(&mut head.fields);
    if websocket {
        head.fields.append(b"upgrade", b"websocket");
    }
    if manager.use_remote_address {
        for name in INTERNAL {
            head.fields.remove(name);
        }
        add_hop(&context.peer.ip(), head);
        head.fields.set("x-forwarded-proto", b"http");
    } else if !head.fields.contains("x-forwarded-proto") {
        head.fields.append(b"x-forwarded-proto", b"http");
    }
    if manager.generate_request_id && !head.fields.contains("x-request-id") {
        let id = request_id(context.worker.random(), context.worker.random());
        head.fields.append(b"x-request-id", &id);
    }
    Ok(websocket)
}

/// Adds the client's address behind those that are there, in whatever number of fields (RFC 9110 §5.3).
fn add_hop(address: &IpAddr, head: &mut RequestHead) {
    let mut text = [0u8; 48];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{address}");
    let left = rest.len();
    let own = text.get(..text.len() - left).unwrap_or_default();
    if !head.fields.contains("x-forwarded-for") {
        return head.fields.append(b"x-forwarded-for", own);
    }
    let mut hops: Vec<&[u8]> = head.fields.get_all("x-forwarded-for").collect();
    hops.push(own);
    let forwarded = hops.join(&b", "[..]);
    head.fields.set("x-forwarded-for", &forwarded);
}

/// Whether the client asks for a WebSocket; in HTTP/1.0 an `Upgrade` is to be ignored (RFC 9110 §7.8).
fn is_websocket(head: &RequestHead) -> bool {
    let asked = |name: &str, token: &str| {
        head.fields
            .get_all(name)
            .any(|v| v.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes())))
    };
    let able = head.version != Version::Http10 && head.method() == b"GET";
    able && asked("upgrade", "websocket") && asked("connection", "upgrade")
}

/// A random UUID (RFC 9562 version 4).
fn request_id(high: u64, low: u64) -> [u8; 36] {
    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    let mut bits = (u128::from(high) << 64) | u128::from(low);
    let mut text = [b'-'; 36];
    for at in (0..36).rev().filter(|at| !matches!(at, 8 | 13 | 18 | 23)) {
        text[at] = b"0123456789abcdef"[(bits & 0xf) as usize];
        bits >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_ids_are_random_uuids() {
        let id = super::request_id(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(std::str::from_utf8(&id), Ok("01234567-89ab-4def-bedc-ba9876543210"));
    }
}
