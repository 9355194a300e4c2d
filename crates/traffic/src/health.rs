//! Decides about the health of an endpoint from the results of its checks. Source: Envoy, "Health checking"; `HealthCheckerImplBase`.

use std::time::Duration;

use serin_resources::health_check::HealthCheck;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Well; whether the endpoint calls itself degraded.
    Passed {
        /// See above.
        degraded: bool,
    },
    /// It answered that it is not well.
    Failed,
    /// It could not be reached, answered late, or with a status that counts as one failure of several.
    Unreachable,
}

/// The health of an endpoint so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthHistory {
    /// True when it was ever checked.
    pub checked: bool,
    /// True when it is well.
    pub healthy: bool,
    /// True when it calls itself degraded.
    pub degraded: bool,
    row: u32,
}

impl HealthHistory {
    /// Takes a check in; the flag says whether that made it well or ill. The first check decides at once, and so does a
    /// clear answer that it is not well.
    #[must_use]
    pub fn after(self, config: &HealthCheck, check: Check) -> (Self, bool) {
        let mut next = Self { checked: true, ..self };
        match check {
            Check::Passed { degraded } => {
                next.degraded = degraded;
                next.row = if self.healthy { 0 } else { self.row + 1 };
                if !self.healthy && (!self.checked || next.row >= config.healthy_threshold) {
                    (next.healthy, next.row) = (true, 0);
                }
            }
            Check::Failed | Check::Unreachable => {
                next.row = if self.healthy { self.row + 1 } else { 0 };
                let at_once = !self.checked || check == Check::Failed;
                if self.healthy && (at_once || next.row >= config.unhealthy_threshold) {
                    (next.healthy, next.row) = (false, 0);
                }
            }
        }
        (next, next.healthy != self.healthy)
    }

    /// The time to wait for the next check; `changed` says that the last one changed something, `has_traffic` that the cluster
    /// has had any; `random` is uniform.
    #[must_use]
    pub fn wait(self, config: &HealthCheck, changed: bool, has_traffic: bool, random: u64) -> Duration {
        let base = match (has_traffic, self.healthy, changed) {
            (false, true, _) => config.no_traffic_healthy_interval,
            (false, false, _) => config.no_traffic_interval,
            (true, true, true) => config.healthy_edge_interval,
            (true, true, false) => config.interval,
            (true, false, true) => config.unhealthy_edge_interval,
            (true, false, false) => config.unhealthy_interval,
        };
        let share = (random >> 11) as f64 / (1u64 << 53) as f64;
        let most = config.jitter + base.mul_f64(f64::from(config.jitter_percent) / 100.0);
        base + most.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_resources::health_check::Probe;

    fn config() -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck {
            probe: Probe::Tcp { send: Vec::new(), receive: Vec::new() },
            timeout: second,
            interval: second * 10,
            unhealthy_interval: second * 5,
            unhealthy_edge_interval: second * 2,
            healthy_edge_interval: second * 3,
            no_traffic_interval: second * 60,
            no_traffic_healthy_interval: second * 90,
            initial_jitter: Duration::ZERO,
            jitter: second,
            jitter_percent: 10,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            port: None,
            event_log: None,
            log_failures: false,
        }
    }

    fn run(checks: &[Check]) -> Vec<bool> {
        let mut known = HealthHistory::default();
        checks
            .iter()
            .map(|check| {
                known = known.after(&config(), *check).0;
                known.healthy
            })
            .collect()
    }

    const PASSED: Check = Check::Passed { degraded: false };

    #[test]
    fn the_first_check_decides_then_rows_do() {
        assert_eq!(run(&[PASSED]), [true]);
        let away = Check::Unreachable;
        assert_eq!(run(&[PASSED, away, away, PASSED, away, away, away]), [true, true, true, true, true, true, false]);
        assert_eq!(run(&[away, PASSED, away, PASSED, PASSED]), [false, false, false, false, true]);
        assert_eq!(run(&[PASSED, Check::Failed]), [true, false]);
    }

    #[test]
    fn waits_depend_on_what_happened() {
        let well = HealthHistory { checked: true, healthy: true, ..HealthHistory::default() };
        let ill = HealthHistory { checked: true, ..HealthHistory::default() };
        let seconds = |known: HealthHistory, (changed, has_traffic): (bool, bool)| {
            known.wait(&config(), changed, has_traffic, 0).as_secs()
        };
        assert_eq!((seconds(well, (false, true)), seconds(well, (true, true))), (10, 3));
        assert_eq!((seconds(ill, (false, true)), seconds(ill, (true, true))), (5, 2));
        assert_eq!((seconds(well, (false, false)), seconds(ill, (false, false))), (90, 60));
        assert!(well.wait(&config(), false, true, u64::MAX) <= Duration::from_secs(12));
    }
}
