//! What is done to a request head before anything is decided by it.

use serin_http1::path::{self, Normalise};
use serin_http1::{Error, RequestHead, framing};
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
        let address = context.peer.ip().to_string();
        let mut hops: Vec<&[u8]> = head.fields.get_all("x-forwarded-for").collect();
        hops.push(address.as_bytes());
        let forwarded = hops.join(&b", "[..]);
        head.fields.set("x-forwarded-for", &forwarded);
        head.fields.set("x-forwarded-proto", b"http");
    } else if !head.fields.contains("x-forwarded-proto") {
        head.fields.append(b"x-forwarded-proto", b"http");
    }
    if manager.generate_request_id && !head.fields.contains("x-request-id") {
        let id = request_id(context.worker.random(), context.worker.random());
        head.fields.append(b"x-request-id", id.as_bytes());
    }
    Ok(websocket)
}

fn is_websocket(head: &RequestHead) -> bool {
    let asked = |name: &str, token: &str| {
        head.fields
            .get_all(name)
            .any(|v| v.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes())))
    };
    head.method() == b"GET" && asked("upgrade", "websocket") && asked("connection", "upgrade")
}

/// A random UUID (RFC 9562 version 4).
fn request_id(high: u64, low: u64) -> String {
    let high = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
    let low = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
