//! Outlier detection: which endpoints get no more requests for a while, by what became of those they had.
//!
//! Source: Envoy's outlier detection page and `OutlierDetectorImpl`. Failures in a row are noticed at once, success rate
//! and failure percentage after every interval. The share of ejected endpoints is tested with the next one counted in, so that it
//! never passes the limit. The n-th ejection takes n times the base time; every interval without one takes one back.

use std::time::Duration;

use serin_resources::outlier::{Consecutive, OutlierDetection};

use crate::outcome::Outcome;

/// The verdict of one attempt on its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did what it should.
    Good,
    /// A server error of its own, and whether it is one of those a gateway gives (502, 503, 504).
    Error {
        /// See above.
        gateway: bool,
    },
    /// It could not be reached, or broke off, or did not answer in time.
    Unreachable,
}

/// The verdict of an attempt on its endpoint; `None` when the attempt was not even made.
#[must_use]
pub fn verdict(outcome: Outcome) -> Option<Verdict> {
    let status = match outcome {
        Outcome::Response { status: 200, grpc: Some(grpc) } => grpc.http_status(),
        Outcome::Response { status, .. } => status,
        Outcome::ConnectFailure
        | Outcome::ConnectTimeout
        | Outcome::RemoteReset
        | Outcome::Reset { .. }
        | Outcome::Timeout => return Some(Verdict::Unreachable),
        Outcome::Overflow => return None,
        Outcome::Protocol => 502,
    };
    Some(if status < 500 { Verdict::Good } else { Verdict::Error { gateway: matches!(status, 502..=504) } })
}

/// The reason why an endpoint is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// 5xx in a row.
    ServerErrors,
    /// 502, 503, 504 in a row.
    GatewayFailures,
    /// Failures of the connection in a row.
    LocalFailures,
    /// A success rate far below the others'.
    SuccessRate,
    /// Too many failures.
    FailurePercentage,
}

impl Cause {
    /// Per cent of detections that eject.
    #[must_use]
    pub fn enforced(self, config: &OutlierDetection) -> u32 {
        match self {
            Self::ServerErrors => config.server_errors.enforced,
            Self::GatewayFailures => config.gateway_failures.enforced,
            Self::LocalFailures => config.local_failures.enforced,
            Self::SuccessRate => config.success_rate.enforced,
            Self::FailurePercentage => config.failure_percentage.enforced,
        }
    }
}

/// Failures in a row of one kind, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// 5xx.
    pub server_errors: u32,
    /// 502, 503, 504.
    pub gateway_failures: u32,
    /// Failures of the connection.
    pub local_failures: u32,
}

/// Counts one more attempt in the rows of failures, and returns what it makes suspicious. A row that reached its limit begins
/// anew.
#[must_use]
pub fn count(config: &OutlierDetection, rows: Rows, verdict: Verdict) -> (Rows, Option<Cause>) {
    let more = |n: u32, verdict: bool| if verdict { n.saturating_add(1) } else { 0 };
    let unreachable = verdict == Verdict::Unreachable;
    let mut next = Rows::default();
    if config.split_local {
        next.local_failures = more(rows.local_failures, unreachable);
        if unreachable {
            (next.server_errors, next.gateway_failures) = (rows.server_errors, rows.gateway_failures);
            return limited(config, next);
        }
    }
    let gateway = unreachable || verdict == Verdict::Error { gateway: true };
    next.server_errors = more(rows.server_errors, verdict != Verdict::Good);
    next.gateway_failures = more(rows.gateway_failures, gateway);
    limited(config, next)
}

fn limited(config: &OutlierDetection, mut rows: Rows) -> (Rows, Option<Cause>) {
    let reached = |row: u32, limit: Consecutive| limit.failures > 0 && row >= limit.failures;
    let mut cause = None;
    // A gateway failure is a server error too; the more general kind is named when both are reached and enforced.
    if reached(rows.gateway_failures, config.gateway_failures) {
        rows.gateway_failures = 0;
        cause = Some(Cause::GatewayFailures).filter(|_| config.gateway_failures.enforced > 0);
    }
    if reached(rows.local_failures, config.local_failures) {
        rows.local_failures = 0;
        cause = Some(Cause::LocalFailures);
    }
    if reached(rows.server_errors, config.server_errors) {
        rows.server_errors = 0;
        cause = Some(Cause::ServerErrors);
    }
    (rows, cause)
}

/// The attempts on an endpoint in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Attempts that ended.
    pub total: u64,
    /// Those that ended well.
    pub good: u64,
}

impl Bucket {
    /// Per cent of attempts that ended well.
    fn success(self) -> f64 {
        100.0 * self.good as f64 / self.total as f64
    }
}

/// Endpoints that stand out after an interval, by their place in `buckets`.
#[must_use]
pub fn compare(config: &OutlierDetection, buckets: &[Bucket]) -> Vec<(usize, Cause)> {
    let enough = |volume: u32| {
        let busy = move |(_, b): &(usize, &Bucket)| b.total > 0 && b.total >= u64::from(volume);
        buckets.iter().enumerate().filter(busy).map(|(at, b)| (at, b.success())).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    let rated = enough(config.success_rate.request_volume);
    if rated.len() >= config.success_rate.minimum_hosts.max(1) as usize {
        let limit = success_threshold(&rated, config.success_rate.threshold);
        found.extend(rated.iter().filter(|(_, rate)| *rate < limit).map(|(at, _)| (*at, Cause::SuccessRate)));
    }
    let counted = enough(config.failure_percentage.request_volume);
    if counted.len() >= config.failure_percentage.minimum_hosts.max(1) as usize {
        let limit = f64::from(config.failure_percentage.threshold);
        let failing = |(_, rate): &&(usize, f64)| 100.0 - rate >= limit;
        found.extend(counted.iter().filter(failing).map(|(at, _)| (*at, Cause::FailurePercentage)));
    }
    found
}

/// Mean less so many thousandths of the standard deviation.
fn success_threshold(rates: &[(usize, f64)], factor: u32) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - f64::from(factor) / 1000.0 * variance.sqrt()
}

/// Returns true when one more may be ejected while `ejected` of `total` are: the share of ejected endpoints, with this one, must stay within
/// the limit, unless it is the first and one is always allowed (Envoy: `DetectorImpl::ejectHost`).
#[must_use]
pub fn may_eject(config: &OutlierDetection, ejected: usize, total: usize) -> bool {
    let within = (ejected + 1) * 100 <= config.max_ejection_percent as usize * total;
    within || (config.always_one && ejected == 0)
}

/// The time that the n-th ejection in a row lasts, without jitter.
#[must_use]
pub fn ejection_time(config: &OutlierDetection, times: u32) -> Duration {
    config.base_ejection_time.saturating_mul(times.max(1)).min(config.max_ejection_time)
}

#[cfg(test)]
mod tests {
    use crate::grpc::GrpcStatus;

    use super::*;

    fn after(config: &OutlierDetection, verdicts: &[Verdict]) -> Vec<Option<Cause>> {
        let mut rows = Rows::default();
        let mut step = |verdict: &Verdict| {
            let (next, cause) = count(config, rows, *verdict);
            rows = next;
            cause
        };
        verdicts.iter().map(&mut step).collect()
    }

    const ERROR: Verdict = Verdict::Error { gateway: false };

    #[test]
    fn five_errors_in_a_row_are_suspicious() {
        let config = OutlierDetection::default();
        let row = [ERROR; 5];
        assert_eq!(after(&config, &row), [None, None, None, None, Some(Cause::ServerErrors)]);
        assert!(after(&config, &[&row[..4], &[Verdict::Good], &row[..4]].concat()).iter().all(Option::is_none));
        assert_eq!(after(&config, &[Verdict::Unreachable; 5])[4], Some(Cause::ServerErrors));
        assert_eq!(after(&config, &[ERROR; 10])[9], Some(Cause::ServerErrors), "a row begins anew");
        let off = OutlierDetection { server_errors: Consecutive { failures: 0, enforced: 100 }, ..config };
        assert!(after(&off, &[ERROR; 50]).iter().all(Option::is_none));
    }

    #[test]
    fn failures_of_the_connection_can_count_for_themselves() {
        let split = OutlierDetection { split_local: true, ..OutlierDetection::default() };
        assert_eq!(after(&split, &[Verdict::Unreachable; 5])[4], Some(Cause::LocalFailures));
        let mixed = [Verdict::Unreachable, Verdict::Unreachable, ERROR, Verdict::Unreachable, Verdict::Unreachable];
        assert!(after(&split, &mixed).iter().all(Option::is_none), "an answer shows that it is reachable");
        let gateway = Consecutive { failures: 2, enforced: 100 };
        let config = OutlierDetection { gateway_failures: gateway, ..OutlierDetection::default() };
        let bad = Verdict::Error { gateway: true };
        assert_eq!(after(&config, &[bad, bad]), [None, Some(Cause::GatewayFailures)]);
        assert!(after(&config, &[bad, ERROR, bad]).iter().all(Option::is_none));
    }

    #[test]
    fn what_a_try_says() {
        let answer = |status, grpc| verdict(Outcome::Response { status, grpc });
        assert_eq!(answer(404, None), Some(Verdict::Good));
        assert_eq!(answer(500, None), Some(ERROR));
        assert_eq!(answer(503, None), Some(Verdict::Error { gateway: true }));
        assert_eq!(answer(200, Some(GrpcStatus::UNAVAILABLE)), Some(Verdict::Error { gateway: true }));
        assert_eq!(answer(200, Some(GrpcStatus::new(5))), Some(Verdict::Good));
        assert_eq!(verdict(Outcome::Timeout), Some(Verdict::Unreachable));
        assert_eq!(verdict(Outcome::Protocol), Some(Verdict::Error { gateway: true }));
    }

    /// The example of Envoy's page: {50, 100, 100, 100, 100} makes the threshold 52.
    #[test]
    fn success_rates_are_compared() {
        let buckets = |rates: &[u64]| rates.iter().map(|good| Bucket { total: 100, good: *good }).collect::<Vec<_>>();
        let config = OutlierDetection::default();
        let rates: Vec<(usize, f64)> = [50.0, 100.0, 100.0, 100.0, 100.0].into_iter().enumerate().collect();
        assert!((success_threshold(&rates, 1900) - 52.0).abs() < 1e-9);
        assert_eq!(compare(&config, &buckets(&[50, 100, 100, 100, 100])), [(0, Cause::SuccessRate)]);
        assert_eq!(compare(&config, &buckets(&[95, 100, 97, 100, 99])), []);
        assert_eq!(compare(&config, &buckets(&[0, 100, 100, 100])), [], "too few");
        let five = compare(&config, &buckets(&[10, 10, 100, 100, 100]));
        assert!(five.contains(&(0, Cause::FailurePercentage)) && five.contains(&(1, Cause::FailurePercentage)));
    }

    #[test]
    fn ejections_are_few_and_grow() {
        let config = OutlierDetection::default();
        // Hosts, those that fail, the limit in per cent, and how many are ejected in the end.
        for (hosts, bad, percent, expected) in [
            (1, 1, 10, 0),
            (2, 1, 10, 0),
            (3, 2, 10, 0),
            (3, 2, 50, 1),
            (3, 3, 67, 2),
            (3, 3, 66, 1),
            (10, 5, 10, 1),
            (10, 5, 25, 2),
            (11, 5, 10, 1),
            (20, 9, 10, 2),
            (2, 2, 100, 2),
            (1, 1, 99, 0),
        ] {
            let config = OutlierDetection { max_ejection_percent: percent, ..config };
            let ejected = (0..bad).fold(0, |n, _| n + usize::from(may_eject(&config, n, hosts)));
            assert_eq!(ejected, expected, "{bad} of {hosts} at {percent} %");
        }
        let none = OutlierDetection { max_ejection_percent: 0, ..config };
        assert!(!may_eject(&none, 0, 10));
        assert!(may_eject(&OutlierDetection { always_one: true, ..none }, 0, 10));
        let seconds = [1, 2, 3, 50].map(|n| ejection_time(&config, n).as_secs());
        assert_eq!(seconds, [30, 60, 90, 300]);
    }
}
