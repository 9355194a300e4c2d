//! Decides whether a fault is injected into a request. Delay and abort are drawn independently (Envoy's fault filter).

use std::time::Duration;

use serin_http1::RequestHead;
use serin_resources::http_filter::{AbortStatus, Fault};

use crate::predicate::matches_headers;
use crate::split::drawn;

/// The faults to inject into a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injection {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// Then answer this.
    pub abort: Option<AbortStatus>,
    /// Let the response come at so many bytes a second.
    pub rate: Option<u64>,
}

/// The random numbers by which a fault is decided, each uniform over 64 bits.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// Decides about the delay.
    pub delay: u64,
    /// Decides about the abort.
    pub abort: u64,
    /// Decides about the limit of the response's rate.
    pub rate: u64,
}

/// Decides by random numbers.
#[must_use]
pub fn decide(fault: &Fault, head: &RequestHead, draws: Draws) -> Injection {
    if !fault.headers.is_empty() && !matches_headers(&fault.headers, head) {
        return Injection::default();
    }
    let asked = |share: Option<u32>, header: &str, percent: &str, random| -> Option<u64> {
        let share = asked_share(share?, head, percent);
        let value = head.fields.get_str(header)?.trim().parse().ok()?;
        drawn(share, random).then_some(value)
    };
    let asked_delay =
        asked(fault.asked_delay, "x-envoy-fault-delay-request", "x-envoy-fault-delay-request-percentage", draws.delay);
    let status =
        asked(fault.asked_abort, "x-envoy-fault-abort-request", "x-envoy-fault-abort-request-percentage", draws.abort);
    let grpc = asked(
        fault.asked_abort,
        "x-envoy-fault-abort-grpc-request",
        "x-envoy-fault-abort-request-percentage",
        draws.abort,
    );
    let asked_abort = status
        .and_then(|s| u16::try_from(s).ok().filter(|s| (200..600).contains(s)).map(AbortStatus::Http))
        .or_else(|| grpc.and_then(|s| u32::try_from(s).ok()).map(AbortStatus::Grpc));
    let asked_rate = asked(
        fault.asked_slow,
        "x-envoy-fault-throughput-response",
        "x-envoy-fault-throughput-response-percentage",
        draws.rate,
    );
    Injection {
        rate: fault
            .slow
            .filter(|s| drawn(s.share, draws.rate))
            .map(|s| s.rate)
            .or(asked_rate.filter(|kib| *kib > 0).map(|kib| kib.saturating_mul(1024))),
        delay: fault
            .delay
            .filter(|d| drawn(d.share, draws.delay))
            .map(|d| d.fixed)
            .or(asked_delay.map(Duration::from_millis)),
        abort: fault.abort.filter(|a| drawn(a.share, draws.abort)).map(|a| a.status).or(asked_abort),
    }
}

/// The share that a header asks for, at most the configured one; its percentage is whole and of the same parts.
fn asked_share(most: u32, head: &RequestHead, header: &str) -> u32 {
    match head.fields.get_str(header).and_then(|v| v.trim().parse::<u32>().ok()) {
        Some(percent) => percent.saturating_mul(10_000).min(most),
        None => most,
    }
}
