//! `retries` of a route, and of the settings of a mesh.

use serin_model::Retries;

use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// A retry policy.
pub(crate) fn read_retries(cursor: &Cursor<'_>) -> Option<Retries> {
    let object = cursor.object()?;
    object.no_effect_yet(&["retryRemoteLocalities"]);
    let wrong = object.has("attempts");
    let attempts = object.get("attempts").map_or(Some(0), |c| c.bounded(0, 1000));
    let (attempts, wrong) = (attempts.unwrap_or(0), wrong && attempts.is_none());
    let per_try = object.get("perTryTimeout").and_then(|c| c.milliseconds());
    let retry_on = object.get("retryOn");
    if attempts == 0 && !wrong && (per_try.is_some() || retry_on.is_some()) {
        object.error(Code::InvalidValue, "attempts 0 switches retries off and excludes perTryTimeout and retryOn", "");
    }
    if let Some(at) = retry_on.as_ref().filter(|at| at.peek_text().is_some_and(|t| t.contains("retriable-headers"))) {
        at.report(
            Code::NoEffectYet,
            Severity::Info,
            "'retriable-headers' retries nothing by itself, as in Istio: no header is named",
            "clients inside the mesh name headers in x-envoy-retriable-header-names",
        );
    }
    if let Some(at) = retry_on.as_ref().filter(|at| at.peek_text().is_some_and(|t| t.contains("http3-post"))) {
        at.report(
            Code::NoEffectYet,
            Severity::Info,
            "'http3-post-connect-failure' retries nothing: upstreams are not spoken to in HTTP/3",
            "the other conditions are used",
        );
    }
    Some(Retries {
        attempts,
        per_try_timeout: per_try,
        retry_on: retry_on.and_then(|c| read_retry_on(&c)),
        backoff: object.get("backoff").and_then(|c| c.milliseconds()),
        ignore_previous_hosts: object.get("retryIgnorePreviousHosts").and_then(|c| c.boolean()),
    })
}

const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// A list of conditions and statuses, as Istio's validation takes it: separated by commas alone.
fn read_retry_on(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    if text.is_empty() {
        return None;
    }
    for name in text.split(',') {
        if name.parse::<u16>().is_ok_and(|code| STATUSES.contains(&code)) || RETRY_ON.contains(&name) {
            continue;
        }
        let trimmed = name.trim();
        let help = match trimmed {
            "" => "write conditions separated by single commas".to_owned(),
            _ if trimmed != name => format!("Istio takes no spaces: write '{trimmed}' right after the comma"),
            _ => format!("known are {} and status codes", RETRY_ON.join(", ")),
        };
        cursor.invalid(format!("'{name}' is no retry condition"), help);
        return None;
    }
    Some(text)
}

/// Statuses that have a name (Go's `http.StatusText`), which alone are taken for statuses.
const STATUSES: [u16; 62] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
    401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425,
    426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];
