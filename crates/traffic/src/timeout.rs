//! How long a request may take. Source: Envoy router, "Timeouts", and `FilterUtility::finalTimeout`.

use std::time::Duration;

use serin_http1::RequestHead;
use serin_resources::route::{Forward, GrpcTimeout};

use crate::router::is_grpc;

/// Limits of a request; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until it is answered whole.
    pub answer: Option<Duration>,
    /// Until its stream ends, however lively it is.
    pub stream: Option<Duration>,
}

/// The route's limits, or what an internal client, or a gRPC client where the route lets it, asks for; `stream` is the
/// connection manager's limit of a stream, zero being none.
#[must_use]
pub fn of_request(forward: &Forward, head: &RequestHead, internal: bool, stream: Duration) -> Limits {
    let mut answer = forward.timeout;
    if let Some(GrpcTimeout { most, offset }) = forward.grpc_timeout.filter(|_| is_grpc(head)) {
        // No header, or one that cannot be read, asks for no limit, which zero means.
        let asked = head.fields.get("grpc-timeout").and_then(grpc).unwrap_or_default();
        let asked = asked.checked_sub(offset).filter(|left| !left.is_zero()).unwrap_or(asked);
        answer = if !most.is_zero() && (asked.is_zero() || most < asked) { most } else { asked };
    }
    let mut stream = forward.max_stream.limit.unwrap_or(stream);
    if let Some(most) = forward.max_stream.grpc_timeout {
        if is_grpc(head)
            && let Some(asked) = head.fields.get("grpc-timeout").and_then(grpc)
        {
            let offset = forward.max_stream.grpc_offset;
            let asked = asked.checked_sub(offset).filter(|d| !d.is_zero()).unwrap_or(asked);
            stream = if most.is_zero() { asked } else { asked.min(most) };
        }
        // The header replaces the time for the answer.
        answer = Duration::ZERO;
    } else if forward.max_stream.limit.is_some() {
        answer = Duration::ZERO;
    }
    if internal && let Some(asked) = head.fields.get_str("x-envoy-upstream-rq-timeout-ms").and_then(|v| v.parse().ok())
    {
        answer = Duration::from_millis(asked);
    }
    let limited = |limit: Duration| (!limit.is_zero()).then_some(limit);
    Limits { answer: limited(answer), stream: limited(stream) }
}

/// A time as a `grpc-timeout`, in milliseconds.
#[must_use]
pub fn to_grpc(limit: Duration) -> String {
    format!("{}m", (limit.as_millis() as u64).clamp(1, 99_999_999))
}

/// A `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
#[must_use]
pub fn grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_at_most_eight_digits() {
        assert_eq!(grpc(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!((grpc(b"999999999n"), grpc(b"S"), grpc(b"1x"), grpc(b"-1S")), (None, None, None, None));
    }
}
