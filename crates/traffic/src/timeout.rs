//! The time limits of a request. Source: Envoy router, "Timeouts", and `FilterUtility::finalTimeout`.

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
/// connection manager's limit of a stream, zero being none. With `respects_expected`, what an earlier proxy said that it waits goes first.
#[must_use]
pub fn of_request(
    forward: &Forward,
    head: &RequestHead,
    internal: bool,
    stream: Duration,
    respects_expected: bool,
) -> Limits {
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
        // The header replaces the time for the response.
        answer = Duration::ZERO;
    } else if forward.max_stream.limit.is_some() {
        answer = Duration::ZERO;
    }
    let milliseconds = |name: &str| head.fields.get_str(name).and_then(|v| v.parse().ok()).map(Duration::from_millis);
    if internal && let Some(asked) = milliseconds(asking_header(head, respects_expected)) {
        answer = asked;
    }
    let limited = |limit: Duration| (!limit.is_zero()).then_some(limit);
    Limits { answer: limited(answer), stream: limited(stream) }
}

/// The header by which an internal client asks for another limit.
pub const ASKING: &str = "x-envoy-upstream-rq-timeout-ms";

/// The header by which an internal client says how long it waits.
#[must_use]
pub fn asking_header(head: &RequestHead, respects_expected: bool) -> &'static str {
    const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
    if respects_expected && head.fields.contains(EXPECTED) { EXPECTED } else { ASKING }
}

/// A time as a `grpc-timeout`: in milliseconds, or in the smallest unit in which it has eight digits (Envoy,
/// `Grpc::Common::toGrpcTimeout`).
#[must_use]
pub fn to_grpc(limit: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let milliseconds = limit.as_millis().max(1);
    let units = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    let fitting = units.iter().map(|(of, unit)| (milliseconds / of, *unit)).find(|(number, _)| *number <= MOST);
    let (number, unit) = fitting.unwrap_or((MOST, 'H'));
    format!("{number}{unit}")
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
    fn long_grpc_timeouts_are_said_in_longer_units() {
        for text in ["1m", "99999999m", "100000S", "99999999S", "99999999M", "99999999H"] {
            assert_eq!(to_grpc(grpc(text.as_bytes()).unwrap()), text);
        }
        assert_eq!((to_grpc(Duration::ZERO).as_str(), to_grpc(Duration::MAX).as_str()), ("1m", "99999999H"));
    }

    #[test]
    fn grpc_timeouts_have_at_most_eight_digits() {
        assert_eq!(grpc(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!((grpc(b"999999999n"), grpc(b"S"), grpc(b"1x"), grpc(b"-1S")), (None, None, None, None));
    }
}
