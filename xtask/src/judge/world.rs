//! Made-up traffic: requests that come and go, failures that do, and troubles that look like a bad version.

use serin_delivery::judge::{Regression, Window, shifted};

use super::window;

/// The trouble that comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Outages,
    UserBursts,
    InstanceBursts,
}

/// Single failures.
pub(super) struct Release(fastrand::Rng);

impl Release {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1))
    }

    /// One failure, the candidate's or not.
    pub(super) fn failure(&mut self, ratio: f64, share: f64) -> Window {
        let own = self.0.f64() < shifted(ratio, share);
        window(u64::from(own), u64::from(!own), share)
    }
}

/// The evidence that rolled an equal candidate back.
pub(super) struct Looked {
    pub(super) by_windows: bool,
    pub(super) by_events: bool,
    pub(super) flagger: bool,
    pub(super) argo: bool,
}

/// The traffic of a release.
pub(super) struct World {
    rng: fastrand::Rng,
    trouble: Trouble,
    second: u64,
    /// Until when both fail.
    outage: u64,
}

const FAILING: f64 = 0.005;
const STEPS: [f64; 4] = [0.01, 0.05, 0.25, 0.5];
const STEP_SECONDS: u64 = 600;

impl World {
    pub(super) fn new(seed: u64, trouble: Trouble) -> Self {
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) + 7);
        Self { rng, trouble, second: 0, outage: 0 }
    }

    /// A number with this mean: exactly for small ones, nearly for large ones (Poisson).
    fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            let (u, v) = (self.rng.f64().max(1e-12), self.rng.f64());
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            return (mean + normal * mean.sqrt()).round().max(0.0) as u64;
        }
        let (mut left, limit, mut count) = (self.rng.f64(), (-mean).exp(), 0);
        while left > limit {
            left *= self.rng.f64();
            count += 1;
        }
        count
    }

    /// Requests and failures of candidate and stable version in one second.
    fn next(&mut self, share: f64) -> [(u64, u64); 2] {
        self.second += 1;
        let rate = 50.5 + 49.5 * (self.second as f64 / 1200.0 * std::f64::consts::TAU).sin();
        if self.trouble == Trouble::Outages && self.rng.f64() < 1.0 / 1200.0 {
            self.outage = self.second + 60;
        }
        let failing = if self.second < self.outage { 0.5 } else { FAILING };
        let mut arm = |part: f64| {
            let requests = self.poisson(rate * part);
            let failed = self.poisson(rate * part * failing).min(requests);
            (requests, failed)
        };
        let mut arms = [arm(share), arm(1.0 - share)];
        let burst = match self.trouble {
            Trouble::UserBursts if self.rng.f64() < 1.0 / 300.0 => self.rng.u64(2..=20),
            Trouble::InstanceBursts if self.rng.f64() < 1.0 / 1200.0 || self.outage > self.second => {
                if self.outage <= self.second {
                    // A machine is sick for a minute.
                    self.outage = self.second + 60;
                    self.trouble_on_candidate(share);
                }
                (rate * 0.05) as u64 + 1
            }
            _ => 0,
        };
        let own = match self.trouble {
            Trouble::InstanceBursts => self.outage & 1 == 1,
            _ => self.rng.f64() < share,
        };
        let arm = &mut arms[usize::from(!own)];
        arm.0 += burst;
        arm.1 += burst;
        arms
    }

    /// The last bit of the end of a trouble decides whose machine is sick.
    fn trouble_on_candidate(&mut self, share: f64) {
        let own = self.rng.f64() < share;
        self.outage = (self.outage & !1) | u64::from(own);
    }

    /// A whole release of a candidate that is equal, seen by everybody.
    pub(super) fn null_release(&mut self, alpha: f64) -> Looked {
        let level = (1.0 / alpha).ln();
        let (mut windows, mut events) = (Regression::default(), Regression::default());
        let mut looked = Looked { by_windows: false, by_events: false, flagger: false, argo: false };
        let mut failed_checks = 0;
        for share in STEPS {
            let (mut minute, mut measured) = ((0, 0), 0);
            for second in 1..=STEP_SECONDS {
                let [own, others] = self.next(share);
                let all = own.0 + others.0;
                if all > 0 && own.1 + others.1 > 0 {
                    // The share of the requests that there were, as it is measured.
                    windows.add(window(own.1, others.1, own.0 as f64 / all as f64));
                    looked.by_windows |= windows.ln_evidence() >= level;
                }
                for number in 0..own.1 + others.1 {
                    events.add(window(u64::from(number < own.1), u64::from(number >= own.1), share));
                    looked.by_events |= events.ln_events() >= level;
                }
                minute = (minute.0 + own.0, minute.1 + own.1);
                if second % 60 == 0 {
                    // Flagger: an empty result is a failed check. Argo: it is an error, not a failure.
                    let below = minute.0 == 0 || (minute.1 as f64) > 0.01 * minute.0 as f64;
                    failed_checks += u32::from(below);
                    measured += 1;
                    looked.argo |= measured <= 10 && minute.0 > 0 && below;
                    minute = (0, 0);
                }
            }
        }
        looked.flagger = failed_checks >= 5;
        looked
    }
}
