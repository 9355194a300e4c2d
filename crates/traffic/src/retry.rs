//! Decides whether an attempt is repeated, and after which wait.
//!
//! Source: Envoy `x-envoy-retry-on` and `RetryStateImpl`: `5xx` and `gateway-error` also cover every reset, failed
//! connection and timed-out attempt; `reset` covers all of those but responses. The back-off is exponential with full jitter.

use std::time::Duration;

use serin_http1::{RequestHead, ResponseHead};
use serin_resources::retry::{RetryOn, RetryPolicy};

use crate::outcome::Outcome;
use crate::predicate::{matches_answer, matches_headers};

/// Returns true when `policy` asks for another attempt after this outcome, leaving the number of attempts aside; `head` is the response's.
#[must_use]
pub fn wanted(policy: &RetryPolicy, outcome: Outcome, head: Option<&ResponseHead>) -> bool {
    let on = &policy.on;
    match outcome {
        Outcome::Response { .. } if head.is_some_and(|h| h.fields.contains("x-envoy-ratelimited")) => on.rate_limited,
        Outcome::Response { status, grpc } => {
            (on.retriable_headers && head.is_some_and(|h| policy.headers.iter().any(|m| matches_answer(m, h))))
                || (on.server_error && status >= 500)
                || (on.gateway_error && matches!(status, 502..=504))
                || (on.retriable_4xx && status == 409)
                || (on.retriable_status_codes && policy.status_codes.contains(&status))
                || grpc.is_some_and(|status| status.code() < 32 && on.grpc & (1 << status.code()) != 0)
        }
        Outcome::ConnectFailure | Outcome::ConnectTimeout => {
            on.connect_failure || on.reset || on.reset_before_request || on.server_error || on.gateway_error
        }
        Outcome::Reset { sent, refused } => {
            on.reset
                || on.server_error
                || on.gateway_error
                || (refused && on.refused_stream)
                || (!sent && (on.reset_before_request || on.connect_failure))
        }
        Outcome::Timeout | Outcome::RemoteReset => on.reset || on.server_error || on.gateway_error,
        Outcome::Protocol => on.reset || on.server_error || on.gateway_error,
        Outcome::Overflow => false,
    }
}

/// Returns true when a request may be tried again at all.
#[must_use]
pub fn concerns(policy: &RetryPolicy, head: &RequestHead) -> bool {
    let mut matchers = policy.request_headers.iter();
    matchers.len() == 0 || matchers.any(|m| matches_headers(std::slice::from_ref(m), head))
}

/// The wait that a response asks for, when the policy listens and believes it: that long and up to half as much again.
#[must_use]
pub fn asked_for(policy: &RetryPolicy, head: &ResponseHead, now: Duration, random: u64) -> Option<Duration> {
    let reset = policy.reset_headers.as_ref()?;
    let wait = reset.headers.iter().find_map(|(name, is_time)| {
        let value: u64 = head.fields.get_str(name)?.trim().parse().ok()?;
        let wait = if *is_time { value.checked_sub(now.as_secs())? } else { value };
        (wait > 0).then(|| Duration::from_secs(wait))
    })?;
    (wait <= reset.most).then(|| wait + (wait / 2).mul_f64(fraction(random)))
}

/// Headers that internal clients ask for retries by, and for the limits of attempts.
pub const ASKING: [&str; 6] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
];

/// The policy with what an internal client asks for in headers (Envoy `x-envoy-retry-on` and its kin).
#[must_use]
pub fn asked_by(policy: Option<&RetryPolicy>, head: &RequestHead) -> Option<RetryPolicy> {
    let header = |name| head.fields.get_str(name);
    let lists = [header("x-envoy-retry-on"), header("x-envoy-retry-grpc-on")];
    let number = header("x-envoy-max-retries").and_then(|v| v.parse().ok());
    let per_try = header("x-envoy-upstream-rq-per-try-timeout-ms").and_then(|v| v.parse().ok());
    if lists.iter().all(Option::is_none) && number.is_none() && per_try.is_none() {
        return None;
    }
    let mut policy = policy.cloned().unwrap_or_default();
    let all = lists.into_iter().flatten().fold(policy.on.to_list(), |all, list| format!("{all},{list}"));
    policy.on = RetryOn::parse(&all).0;
    policy.attempts = number.unwrap_or(policy.attempts);
    policy.per_try_timeout = per_try.map(Duration::from_millis).or(policy.per_try_timeout).filter(|d| !d.is_zero());
    if let Some(codes) = header("x-envoy-retriable-status-codes") {
        policy.status_codes.extend(codes.split(',').filter_map(|c| c.trim().parse::<u16>().ok()));
    }
    Some(policy)
}

/// The wait before attempt number `retry` (1 is the first repetition): uniform below an interval that begins at the base and
/// doubles up to the longest. (Source: `JitteredExponentialBackOffStrategy`; Envoy's documentation says 2^N − 1.)
#[must_use]
pub fn back_off(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let (mut interval, most) = (policy.base_interval, policy.max_interval);
    for _ in 1..retry {
        interval = if interval < most / 2 { interval * 2 } else { most };
        if interval == most {
            break;
        }
    }
    interval.min(most).mul_f64(fraction(random))
}

/// A uniform number from 0 to below 1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use crate::grpc::GrpcStatus;

    use super::*;

    fn policy(list: &str) -> RetryPolicy {
        RetryPolicy { on: RetryOn::parse(list).0, status_codes: vec![429], ..RetryPolicy::default() }
    }

    #[test]
    fn conditions_cover_what_envoy_says_they_cover() {
        let reset = Outcome::Reset { sent: true, refused: false };
        let early = Outcome::Reset { sent: false, refused: false };
        let answer = |status| Outcome::Response { status, grpc: None };
        for (list, outcome, expected) in [
            ("5xx", answer(500), true),
            ("5xx", answer(499), false),
            ("5xx", reset, true),
            ("gateway-error", answer(500), false),
            ("gateway-error", answer(503), true),
            ("connect-failure", Outcome::ConnectFailure, true),
            ("connect-failure", reset, false),
            ("reset", reset, true),
            ("reset-before-request", early, true),
            ("reset-before-request", reset, false),
            ("refused-stream", Outcome::Reset { sent: true, refused: true }, true),
            ("retriable-status-codes", answer(429), true),
            ("retriable-4xx", answer(409), true),
            ("unavailable", Outcome::Response { status: 200, grpc: Some(GrpcStatus::UNAVAILABLE) }, true),
            ("unavailable", Outcome::Response { status: 200, grpc: Some(GrpcStatus::INTERNAL) }, false),
            ("connect-failure", Outcome::Timeout, false),
            ("5xx", Outcome::Timeout, true),
        ] {
            assert_eq!(wanted(&policy(list), outcome, None), expected, "{list} {outcome:?}");
        }
    }

    #[test]
    fn the_wait_doubles_and_is_capped() {
        let policy = policy("5xx");
        let ceilings: Vec<u128> = (1..=7).map(|n| back_off(&policy, n, u64::MAX).as_micros().div_ceil(1000)).collect();
        assert_eq!(ceilings, [25, 50, 100, 200, 250, 250, 250]);
        assert_eq!(back_off(&policy, 3, 0), Duration::ZERO);
    }
}
