//! Whether a try is repeated, and after which wait.
//!
//! Source: Envoy `x-envoy-retry-on` and `RetryStateImpl`: `5xx` and `gateway-error` also cover every reset, failed
//! connection and timed-out try; `reset` covers all of those but answers. The back-off is exponential with full jitter.

use std::time::Duration;

use serin_resources::retry::RetryPolicy;

use crate::outcome::Outcome;

/// Whether `policy` asks for another try after this outcome, leaving the number of tries aside.
#[must_use]
pub fn wanted(policy: &RetryPolicy, outcome: Outcome) -> bool {
    let on = &policy.on;
    match outcome {
        Outcome::Response { status, grpc } => {
            (on.server_error && status >= 500)
                || (on.gateway_error && matches!(status, 502..=504))
                || (on.retriable_4xx && status == 409)
                || (on.retriable_status_codes && policy.status_codes.contains(&status))
                || grpc.is_some_and(|code| code < 32 && on.grpc & (1 << code) != 0)
        }
        Outcome::ConnectFailure => {
            on.connect_failure || on.reset || on.reset_before_request || on.server_error || on.gateway_error
        }
        Outcome::Reset { sent, refused } => {
            on.reset
                || on.server_error
                || on.gateway_error
                || (refused && on.refused_stream)
                || (!sent && (on.reset_before_request || on.connect_failure))
        }
        Outcome::Timeout => on.reset || on.server_error || on.gateway_error,
        Outcome::Protocol => on.reset || on.server_error || on.gateway_error,
    }
}

/// The wait before try number `retry` (1 is the first repetition): uniform in 0 to min(base × (2^retry − 1), max).
#[must_use]
pub fn back_off(policy: &RetryPolicy, retry: u32, random: u64) -> Duration {
    let factor = 2u32.saturating_pow(retry.min(20)).saturating_sub(1);
    let ceiling = policy.base_interval.saturating_mul(factor).min(policy.max_interval);
    ceiling.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_resources::retry::RetryOn;

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
            ("unavailable", Outcome::Response { status: 200, grpc: Some(14) }, true),
            ("unavailable", Outcome::Response { status: 200, grpc: Some(13) }, false),
            ("connect-failure", Outcome::Timeout, false),
            ("5xx", Outcome::Timeout, true),
        ] {
            assert_eq!(wanted(&policy(list), outcome), expected, "{list} {outcome:?}");
        }
    }

    #[test]
    fn the_wait_grows_and_is_capped() {
        let policy = policy("5xx");
        assert_eq!(back_off(&policy, 1, 0), Duration::ZERO);
        assert!(back_off(&policy, 1, u64::MAX) <= Duration::from_millis(25));
        assert!(back_off(&policy, 2, u64::MAX) > Duration::from_millis(70));
        assert!(back_off(&policy, 30, u64::MAX) <= Duration::from_millis(250));
    }
}
