//! The response time of an endpoint, as a moving average that rises at once and falls slowly.
//!
//! Source: Finagle's `PeakEwma` (also in linkerd and as Envoy's contributed policy): a time above the average replaces it; one
//! below is mixed in by `exp(-t/decay)`, where t is the time since the last one. Without new times it fades to zero, so that an
//! endpoint that was slow is tried again.

use std::time::Duration;

/// The average of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peak {
    seconds: f64,
    at: Duration,
}

impl Peak {
    /// The average after a request that took so long.
    #[must_use]
    pub fn after(self, took: Duration, now: Duration, decay: Duration) -> Self {
        let (took, before) = (took.as_secs_f64(), self.at(now, decay));
        let kept = (-(now.saturating_sub(self.at)).as_secs_f64() / decay.as_secs_f64()).exp();
        // What is left of it is mixed with the new one in the part that has faded.
        let mixed = self.seconds * kept + took * (1.0 - kept);
        Self { seconds: if took > before { took } else { mixed }, at: now }
    }

    /// The average now, in seconds.
    #[must_use]
    pub fn at(self, now: Duration, decay: Duration) -> f64 {
        self.seconds * (-(now.saturating_sub(self.at)).as_secs_f64() / decay.as_secs_f64()).exp()
    }
}

/// The cost of an endpoint that has requests in flight and never responded, in seconds.
const UNKNOWN: f64 = 1e6;

/// The cost of another request there: the average, multiplied by the requests that would then be in flight.
pub(super) fn cost(average: f64, active: u64) -> f64 {
    match (average > 0.0, active) {
        (false, 0) => 0.0,
        (false, active) => UNKNOWN + active as f64,
        (true, active) => average * (active + 1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let peak = Peak::default().after(ms(20), ms(1000), DECAY).after(ms(500), ms(1001), DECAY);
        assert!((peak.at(ms(1001), DECAY) - 0.5).abs() < 1e-9);
        let later = peak.after(ms(20), ms(11_001), DECAY);
        let expected = 0.5 * (-1.0_f64).exp() + 0.02 * (1.0 - (-1.0_f64).exp());
        assert!((later.at(ms(11_001), DECAY) - expected).abs() < 1e-9);
        assert!(peak.at(ms(100_000), DECAY) < 1e-4, "without new times it fades");
    }

    #[test]
    fn who_never_answered_is_asked_once() {
        assert_eq!(cost(0.0, 0), 0.0);
        assert!(cost(0.0, 1) > cost(10.0, 100));
        assert_eq!(cost(0.5, 1), 1.0);
    }
}
