//! Whether a fault is injected into a request. Delay and abort are drawn independently (Envoy's fault filter).

use std::time::Duration;

use serin_http1::RequestHead;
use serin_resources::fault::{AbortStatus, Fault};

use crate::router::matches_headers;
use crate::split::drawn;

/// What to do to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injection {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// Then answer this.
    pub abort: Option<AbortStatus>,
}

/// Decides by two uniform 64-bit random numbers.
#[must_use]
pub fn decide(fault: &Fault, head: &RequestHead, (first, second): (u64, u64)) -> Injection {
    if !fault.headers.is_empty() && !matches_headers(&fault.headers, head) {
        return Injection::default();
    }
    Injection {
        delay: fault.delay.filter(|d| drawn(d.share, first)).map(|d| d.fixed),
        abort: fault.abort.filter(|a| drawn(a.share, second)).map(|a| a.status),
    }
}
