//! Refuses a part of requests while too many fail (`envoy.filters.http.admission_control`; Google SRE book, "Handling
//! overload", client-side throttling).

use crate::grpc::GrpcStatus;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serin_resources::http_filter::AdmissionControl;

use super::{FilterState, Now};

/// Outcomes of the last while, shared by all workers.
#[derive(Debug)]
pub struct Admission {
    /// Its configuration.
    pub config: AdmissionControl,
    seconds: Mutex<VecDeque<(u64, u64, u64)>>,
}

impl FilterState for Admission {
    type Config = AdmissionControl;

    fn new(config: &AdmissionControl) -> Self {
        Self { config: config.clone(), seconds: Mutex::default() }
    }
}

impl Admission {
    /// Takes an outcome in.
    pub fn note(&self, now: Now, status: u16, grpc: Option<GrpcStatus>) {
        let good = match grpc {
            Some(grpc) => self.config.good_grpc.contains(&grpc.code()),
            None => self.config.good.iter().any(|(start, end)| (*start..*end).contains(&status)),
        };
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds.back().is_none_or(|(second, ..)| *second != now.as_secs()) {
            seconds.push_back((now.as_secs(), 0, 0));
        }
        if let Some((_, all, successes)) = seconds.back_mut() {
            *all += 1;
            *successes += u64::from(good);
        }
    }

    /// Returns true when a request is refused; `random` is uniform.
    pub fn refuses(&self, now: Now, random: u64) -> bool {
        if !self.config.enabled {
            return false;
        }
        let (all, good) = self.counts(now);
        let rate = all / self.config.window.as_secs().max(1);
        if rate < u64::from(self.config.least_rate) {
            return false;
        }
        let share = (random >> 11) as f64 / (1u64 << 53) as f64;
        share < probability(&self.config, all, good)
    }

    fn counts(&self, now: Now) -> (u64, u64) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.saturating_sub(self.config.window.max(Duration::from_secs(1))).as_secs();
        while seconds.front().is_some_and(|(second, ..)| *second < oldest) {
            seconds.pop_front();
        }
        seconds.iter().fold((0, 0), |(all, good), (_, a, g)| (all + a, good + g))
    }
}

/// ((n − s / threshold) / (n + 1)) ^ (1 / aggression), at most what may be refused.
fn probability(config: &AdmissionControl, all: u64, good: u64) -> f64 {
    let threshold = f64::from(config.threshold) / 100.0;
    let base = (all as f64 - good as f64 / threshold) / (all as f64 + 1.0);
    let probability = base.max(0.0).powf(1000.0 / f64::from(config.aggression.max(1)));
    probability.min(f64::from(config.most_refused) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AdmissionControl {
        AdmissionControl {
            enabled: true,
            window: Duration::from_secs(10),
            aggression: 1000,
            threshold: 95,
            least_rate: 0,
            most_refused: 80,
            good: vec![(100, 500)],
            good_grpc: vec![0],
        }
    }

    #[test]
    fn the_curve_is_envoys() {
        let at = |good| (probability(&config(), 1000, good) * 1000.0).round();
        assert_eq!((at(1000), at(950), at(500), at(0)), (0.0, 0.0, 473.0, 800.0));
        let eager = AdmissionControl { aggression: 2000, ..config() };
        assert!((probability(&eager, 1000, 500) - 0.6879).abs() < 0.001);
    }

    #[test]
    fn old_outcomes_are_forgotten() {
        let admission = Admission::new(&config());
        for _ in 0..100 {
            admission.note(Duration::from_secs(1), 503, None);
        }
        assert!(admission.refuses(Duration::from_secs(2), 0));
        assert!(!admission.refuses(Duration::from_secs(20), 0));
    }
}
