//! The verdict of the evidence about a release: worse, no worse, not enough, or none at all.

mod mix;
mod report;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_model::{Analysis, OnMix};

use crate::evidence::{Arm, Class, Evidence, Verdict};
use crate::judge::{
    Estimate, NoWorse, Regression, Window, boundaries, clean_requests, estimate, events_until_promotion, shifted,
};
use crate::series::Series;
pub use mix::Mix;
pub use report::count;
use report::share_of;

/// Requests and how many of them failed. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All requests.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
}

/// Requests whose times are known, against a limit of times. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverLimit {
    /// Requests whose times are known.
    pub timed: u64,
    /// Those that took longer.
    pub over: u64,
}

/// The shares of versions in requests. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// The candidate's requests.
    pub candidate: u64,
    /// Those of all versions.
    pub all: u64,
}

/// Requests of a step, both versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepCounts {
    /// The step.
    pub step: usize,
    /// The old version's requests and failures.
    pub stable: Counts,
    /// The new one's.
    pub candidate: Counts,
    /// The failures, for the estimate.
    pub errors: Window,
}

/// A threshold of times, with what is known about requests that exceed it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slower {
    /// In microseconds.
    pub than: u64,
    /// The stable version's quantile above which it lies.
    #[serde(default)]
    pub of: u64,
    /// The share of the stable version's requests that were at most that long when it was set.
    pub quantile: f64,
    /// Evidence over the whole release.
    pub regression: Regression,
    /// Evidence of the step.
    pub no_worse: NoWorse,
    /// The threshold at which `no_worse` is measured: above the quantile, or at it where hardly any request takes longer than what is noticed.
    #[serde(default)]
    pub no_worse_than: u64,
}

/// All evidence of a release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Judgement {
    /// The evidence at the last look: of the old version, its baseline and the new one. Counts begin anew in every process, so it is not kept.
    #[serde(skip)]
    seen: [Arm; 3],
    /// The stable version's requests since the release began, until the thresholds are set.
    calibration: Arm,
    /// The candidate, as far as it was judged.
    pub candidate: Arm,
    /// Failures.
    pub errors: Regression,
    /// Failures of the step.
    pub errors_no_worse: NoWorse,
    /// Times.
    pub slower: Vec<Slower>,
    /// By step.
    pub steps: Vec<StepCounts>,
    /// The candidate's requests and failures in the step.
    pub step: Counts,
    /// Those of the step whose times are known, and that took longer than the limit.
    pub over_limit: OverLimit,
    /// The candidate's requests and those of all versions since the traffic moved last.
    pub shared: Sharing,
    /// Evidence that requests are not shared as they should be.
    pub mismatch: f64,
    mismatch_prior: Option<[f64; 2]>,
    /// The points of the step, where Kayenta's score judges.
    #[serde(skip_serializing_if = "Series::is_empty")]
    pub(crate) series: Series,
    /// ln of all evidence for a rollback, and what it takes.
    pub ln_evidence: f64,
    /// See above.
    pub ln_needed: f64,
    /// The ratio of the candidate's failures to the stable version's.
    pub estimate: Option<Estimate>,
    /// The instance that has more than its share of the failures, if one has.
    pub suspect: Option<String>,
    /// The evidence about differences between classes of statuses, by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mix: BTreeMap<Class, Mix>,
}

/// Requests of the stable version in a step that it takes to say that it fails itself, and the share of them that fail.
const STABLE_FAILS: (u64, f64) = (20, 0.5);

/// Quantiles of the stable version's times that become thresholds.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// The ratio of slow requests to the stable version's up to which nothing counts against the candidate.
const TOLERATED: f64 = 1.25;

/// Microseconds by which a request must take longer than the stable version's quantile, or a quarter of that, to count as slow: a
/// version with a smaller share has colder connections and caches, and nobody notices less.
const NOTICED: u64 = 5000;

/// Requests of the stable version that the thresholds need.
const CALIBRATED: u64 = 200;

/// ln of the evidence by which shares of requests are found wrong.
const LN_MISMATCH: f64 = 9.2;

/// The expected share of the requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The candidate's share of the requests.
    pub share: f64,
    /// True when requests are drawn one by one, so that their numbers must fit the share.
    pub drawn: bool,
    /// True when the baseline is what the candidate is compared with.
    pub baseline: bool,
}

/// The margin for a share when none is given.
#[must_use]
pub fn margin(analysis: &Analysis, share: f64) -> f64 {
    analysis.margin.unwrap_or(match share {
        s if s <= 0.05 => 2.0,
        s if s <= 0.25 => 1.5,
        _ => 1.25,
    })
}

impl Judgement {
    /// Takes new evidence in without judging it: after a change of traffic.
    pub fn skip(&mut self, evidence: &Evidence) {
        let [stable, baseline, candidate] = self.news(evidence);
        self.calibration.add(&stable);
        self.share(&candidate, stable.requests + baseline.requests);
        self.calibrate();
    }

    /// Returns the evidence that is new since the last call.
    fn news(&mut self, evidence: &Evidence) -> [Arm; 3] {
        let now = [&evidence.stable, &evidence.baseline, &evidence.candidate];
        let new: [Arm; 3] = std::array::from_fn(|arm| now[arm].since(&self.seen[arm]));
        let failed: [u64; 3] = std::array::from_fn(|arm| self.seen[arm].failed + new[arm].failed);
        self.seen = now.map(Arm::clone);
        // Some reporters tell failures later than requests: what does not fit yet counts with the next.
        self.seen.iter_mut().zip(failed).zip(now).for_each(|((seen, taken), now)| seen.failed = taken.min(now.failed));
        new
    }

    fn share(&mut self, own: &Arm, others: u64) {
        self.shared.candidate += own.requests;
        self.shared.all += own.requests + others;
    }

    /// The candidate's share of the requests since the traffic moved last; `None` without requests.
    #[must_use]
    pub fn observed(&self) -> Option<f64> {
        let Sharing { candidate: own, all } = self.shared;
        (all > 0).then(|| own as f64 / all as f64)
    }

    /// Begins a step.
    pub fn begin(&mut self, step: usize) {
        self.errors_no_worse = NoWorse::default();
        self.slower.iter_mut().for_each(|s| s.no_worse = NoWorse::default());
        self.step = Counts::default();
        self.over_limit = OverLimit::default();
        self.series = Series::default();
        self.steps.push(StepCounts { step, ..StepCounts::default() });
    }

    /// Sets the thresholds once enough is known of the stable version.
    fn calibrate(&mut self) {
        if !self.slower.is_empty() || self.calibration.timed() < CALIBRATED {
            return;
        }
        let threshold = |quantile: f64| {
            let of = self.calibration.quantile(quantile)?;
            let than = of + NOTICED.max(of / 4);
            let slow = self.calibration.slower(than) as f64 / self.calibration.timed().max(1) as f64;
            let no_worse_than = if slow >= (1.0 - quantile) / 2.0 { than } else { of };
            Some(Slower { than, of, quantile, no_worse_than, ..Slower::default() })
        };
        self.slower = QUANTILES.iter().filter_map(|q| threshold(*q)).collect();
    }

    /// Takes new evidence in; true when there were requests.
    pub fn take(&mut self, evidence: &Evidence, analysis: &Analysis, expected: Expected) -> bool {
        let [stable, baseline, own] = self.news(evidence);
        self.share(&own, stable.requests + baseline.requests);
        let others = if expected.baseline { baseline } else { stable };
        if self.slower.is_empty() {
            self.calibration.add(&others);
        }
        // Envoys tell times apart from requests: either may come alone.
        let requests = own.requests + others.requests;
        if requests + own.timed() + others.timed() == 0 && own.answers.is_empty() && others.answers.is_empty() {
            return false;
        }
        self.candidate.add(&own);
        self.compare_classes(&own, &others);
        if analysis.kayenta.is_some() {
            self.series.gather(&others, &own);
        }
        self.step.requests += own.requests;
        self.step.failed += own.failed;
        if let Some((_, most)) = analysis.latency {
            self.over_limit.timed += own.timed();
            self.over_limit.over += own.slower(most.as_micros() as u64);
        }
        let share = own.requests as f64 / requests.max(1) as f64;
        let margin = margin(analysis, expected.share);
        let window = |c: u64, b: u64, share: f64| Window { candidate: c as f64, others: b as f64, share };
        let errors = window(own.failed, others.failed, share);
        self.errors.add(errors);
        self.errors_no_worse.add(errors, margin);
        if analysis.compare_latency {
            let timed = own.timed() as f64 / (own.timed() + others.timed()).max(1) as f64;
            for slower in &mut self.slower {
                let events = window(own.slower(slower.than), others.slower(slower.than), timed);
                // New instances are colder than old ones: a quarter more slow requests is no regression.
                slower.regression.add(Window { share: shifted(TOLERATED, timed), ..events });
                let at = if slower.no_worse_than == 0 { slower.than } else { slower.no_worse_than };
                slower.no_worse.add(window(own.slower(at), others.slower(at), timed), margin);
            }
        }
        if requests > 0 && expected.drawn && expected.share > 0.0 && expected.share < 1.0 {
            let shares = [expected.share, 1.0 - expected.share];
            let prior = self.mismatch_prior.get_or_insert(shares.map(|s| s * 10_000.0));
            self.mismatch += boundaries::ratio_mismatch(&[own.requests as f64, others.requests as f64], &shares, prior);
        }
        self.count(&own, &others);
        self.calibrate();
        requests > 0
    }

    fn count(&mut self, own: &Arm, others: &Arm) {
        let Some(step) = self.steps.last_mut() else { return };
        step.stable.requests += others.requests;
        step.stable.failed += others.failed;
        step.candidate.requests += own.requests;
        step.candidate.failed += own.failed;
        let all = step.candidate.requests + step.stable.requests;
        step.errors = Window {
            candidate: step.candidate.failed as f64,
            others: step.stable.failed as f64,
            share: step.candidate.requests as f64 / all.max(1) as f64,
        };
    }

    /// Forgets how requests were shared: with another weight it begins anew.
    pub fn reshare(&mut self) {
        self.shared = Sharing::default();
        self.mismatch = 0.0;
        self.mismatch_prior = None;
    }

    /// Returns the verdict of all evidence.
    pub fn verdict(&mut self, analysis: &Analysis, expected: Expected, evidence: &Evidence) -> Verdict {
        self.weigh(analysis);
        let windows: Vec<Window> = self.steps.iter().map(|s| s.errors).collect();
        self.estimate = estimate(&windows, 0.05);
        self.suspect = suspect(&evidence.instances);
        if self.ln_evidence >= self.ln_needed {
            return Verdict::Regression(self.worse(analysis));
        }
        if analysis.on_mix == OnMix::Rollback
            && let Some(text) = self.mixed(analysis).into_iter().next()
        {
            return Verdict::Regression(text);
        }
        if let Some(text) = self.overlooked(analysis) {
            return Verdict::Void(text);
        }
        if let Some(step) = self.steps.last().filter(|s| s.stable.requests >= STABLE_FAILS.0)
            && step.stable.failed as f64 >= step.stable.requests as f64 * STABLE_FAILS.1
            && expected.share < 1.0
        {
            return Verdict::Void(format!(
                "the stable version itself fails, so nothing can be compared with it: {} of its requests failed in this step, {} of the candidate's",
                share_of(step.stable.failed, step.stable.requests),
                share_of(step.candidate.failed, step.candidate.requests)
            ));
        }
        if self.mismatch >= LN_MISMATCH {
            return Verdict::Void(format!(
                "requests are not shared as configured ({:.3} % for the candidate): is a route missing, or are users sticky?",
                expected.share * 100.0
            ));
        }
        if self.candidate.requests == 0 {
            return Verdict::NoEvidence;
        }
        if let Some(rule) = &analysis.kayenta {
            // With all the traffic there is nobody beside it to be compared with.
            if expected.share >= 1.0 {
                return Verdict::NotEnough("nothing is left to compare it with".to_owned());
            }
            return self.series.verdict(rule, analysis.compare_latency);
        }
        match self.missing(analysis, expected) {
            None => Verdict::NoWorse(self.summary()),
            Some(missing) => Verdict::NotEnough(missing),
        }
    }

    /// The mean of the evidence of all metrics, which is evidence again. Where Kayenta's score compares, limits alone are left.
    fn weigh(&mut self, analysis: &Analysis) {
        let mut metrics: Vec<f64> = self.over(analysis).into_iter().flatten().collect();
        if analysis.kayenta.is_none() {
            metrics.push(self.errors.ln_evidence());
            if analysis.compare_latency && !self.slower.is_empty() {
                metrics.push(mean(self.slower.iter().map(|s| s.regression.ln_evidence())));
            }
        }
        self.ln_evidence = if metrics.is_empty() { 0.0 } else { mean(metrics.into_iter()) };
        self.ln_needed = (1.0 / analysis.rollback_alpha).ln();
    }

    /// ln of the evidence that the limits are exceeded: of failures, and of times.
    fn over(&self, analysis: &Analysis) -> [Option<f64>; 2] {
        let exceeded = |(n, k): (u64, u64), most: f64| {
            let (n, k, most) = (n as f64, k as f64, within(most));
            let rho = boundaries::tuned(200.0 * most * (1.0 - most), analysis.rollback_alpha, true);
            let s = k - n * most;
            if n == 0.0 || s <= 0.0 {
                return 0.0;
            }
            boundaries::beta_binomial(
                s,
                n * most * (1.0 - most),
                rho,
                boundaries::Increments::of_probability(most),
                true,
            )
        };
        let failures = analysis.error_rate.map(|most| exceeded((self.candidate.requests, self.candidate.failed), most));
        let times = analysis.latency.map(|(quantile, most)| {
            let counts = (self.candidate.timed(), self.candidate.slower(most.as_micros() as u64));
            exceeded(counts, 1.0 - quantile)
        });
        [failures, times]
    }

    /// The sentence about the evidence that the step lacks; `None` when it lacks nothing.
    fn missing(&self, analysis: &Analysis, expected: Expected) -> Option<String> {
        let needed = (1.0 / analysis.promote_alpha).ln();
        let margin = margin(analysis, expected.share);
        let below_limit = analysis.error_rate.map(|most| below(self.step.requests, self.step.failed, most));
        if self.errors_no_worse.ln_evidence() < needed && below_limit.is_none_or(|ln| ln < needed) {
            let Counts { requests: n, failed: k } = self.step;
            let wanted = match (analysis.error_rate, k) {
                (Some(most), 0) => {
                    format!("about {} requests without a failure", count(clean_requests(most, analysis.promote_alpha)))
                }
                _ => {
                    let events =
                        events_until_promotion(margin, expected.share.clamp(1e-6, 0.999_999), analysis.promote_alpha);
                    format!(
                        "about {} failures of both versions, or a limit (analysis.limits.errorRate) that so few stay below",
                        count(events)
                    )
                }
            };
            return Some(format!(
                "{} of the candidate's requests failed in this step, which is not enough to decide: it takes {wanted}",
                share_of(k, n)
            ));
        }
        if let Some((quantile, most)) = analysis.latency
            && below(self.over_limit.timed, self.over_limit.over, 1.0 - quantile) < needed
        {
            return Some(format!(
                "it is not certain yet that {:.1} % are quicker than {} ms ({} of {} were slower)",
                quantile * 100.0,
                most.as_millis(),
                self.over_limit.over,
                self.over_limit.timed
            ));
        }
        if analysis.compare_latency {
            if self.slower.is_empty() {
                return Some(format!("{CALIBRATED} requests of the stable version are needed to know its times"));
            }
            let open = self.slower.iter().find(|s| s.quantile < 0.95 && s.no_worse.ln_evidence() < needed);
            if let Some(slower) = open {
                return Some(format!(
                    "it is not certain yet that the candidate's p{:.0} is no worse ({:.0} % of the evidence)",
                    slower.quantile * 100.0,
                    (slower.no_worse.ln_evidence() / needed * 100.0).clamp(0.0, 99.0)
                ));
            }
        }
        None
    }
}

fn mean(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    crate::judge::ln_mean_exp(logs)
}

/// A limit on a rate, apart from 0 and 1, of which no evidence can be certain.
fn within(most: f64) -> f64 {
    most.clamp(1e-9, 1.0 - 1e-9)
}

/// ln of the evidence that a rate is below `most`: bets on none, a tenth, a quarter and half of it.
fn below(n: u64, k: u64, most: f64) -> f64 {
    let (hits, misses, most) = (k as f64, (n - k.min(n)) as f64, within(most));
    let bet = |part: f64| {
        let rate = most * part;
        let hit = if k == 0 { 0.0 } else { hits * (rate / most).ln() };
        hit + misses * ((1.0 - rate) / (1.0 - most)).ln()
    };
    mean([0.0, 0.1, 0.25, 0.5].map(bet).into_iter())
}

/// The instance without which the failures would be a third of what they are or less.
fn suspect(instances: &BTreeMap<String, Arm>) -> Option<String> {
    let all: u64 = instances.values().map(|a| a.failed).sum();
    let requests: u64 = instances.values().map(|a| a.requests).sum();
    let (name, worst) = instances.iter().max_by_key(|(_, a)| a.failed)?;
    let much = worst.failed * 3 >= all * 2 && worst.requests * 2 < requests.max(1);
    (instances.len() > 1 && all >= 3 && much).then(|| name.clone())
}
