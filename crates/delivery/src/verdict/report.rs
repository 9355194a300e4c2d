//! The sentences of verdicts.

use serin_model::Analysis;

use super::{Counts, Judgement, StepCounts};

impl Judgement {
    pub(super) fn worse(&self, analysis: &Analysis) -> String {
        let [failures, times] = self.over(analysis);
        let compares = |ln: f64| if analysis.kayenta.is_none() { ln } else { f64::MIN };
        let slow = self.slower.iter().map(|s| (s, s.regression.ln_evidence())).max_by(|a, b| a.1.total_cmp(&b.1));
        let candidates = [
            (compares(self.errors.ln_evidence()), self.failing()),
            (failures.unwrap_or(f64::MIN), format!("more failures than the limit of {} %: {}", percent(analysis.error_rate), self.failing())),
            (times.unwrap_or(f64::MIN), self.too_slow(analysis)),
            slow.filter(|_| analysis.compare_latency).map_or((f64::MIN, String::new()), |(s, ln)| {
                let text = format!(
                    "it is slower: more of its requests than of the stable version's take over {:.1} ms, where the stable version's p{:.0} is {:.1} ms",
                    s.than as f64 / 1000.0,
                    s.quantile * 100.0,
                    (if s.of == 0 { s.than } else { s.of }) as f64 / 1000.0
                );
                (compares(ln), text)
            }),
        ];
        let (_, what) = candidates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        let suspect = self.suspect.as_ref().map_or(String::new(), |s| format!("; most of it is of one instance, {s}"));
        format!(
            "the candidate is worse: {what} (evidence {}, needed {}){suspect}",
            count(self.ln_evidence.exp()),
            count(self.ln_needed.exp())
        )
    }

    fn too_slow(&self, analysis: &Analysis) -> String {
        let Some((quantile, most)) = analysis.latency else { return String::new() };
        let (timed, slow) = (self.candidate.timed(), self.candidate.slower(most.as_micros() as u64));
        format!(
            "{} of its requests took longer than {} ms, where {} % may",
            share_of(slow, timed),
            most.as_millis(),
            percent(Some(1.0 - quantile))
        )
    }

    /// Failures of both sides since the release began, in one sentence.
    fn failing(&self) -> String {
        let sum = |of: fn(&StepCounts) -> Counts| {
            self.steps.iter().map(of).fold(Counts::default(), |sum, step| Counts {
                requests: sum.requests + step.requests,
                failed: sum.failed + step.failed,
            })
        };
        let (candidate, stable) = (sum(|s| s.candidate), sum(|s| s.stable));
        let rate = |counts: Counts| counts.failed as f64 / counts.requests.max(1) as f64;
        let ratio = match (stable.failed, rate(candidate) / rate(stable)) {
            (0, _) => String::new(),
            (_, ratio) if ratio > 100.0 => ", far more often".to_owned(),
            (_, ratio) if ratio > 1.05 => format!(", {ratio:.1} times as often"),
            _ => String::new(),
        };
        format!(
            "{} of its requests failed, {} of the stable version's{ratio}",
            share_of(candidate.failed, candidate.requests),
            share_of(stable.failed, stable.requests)
        )
    }

    pub(super) fn summary(&self) -> String {
        let stable = self.steps.last().map_or(Counts::default(), |s| s.stable);
        format!(
            "no worse in this step: {} of the candidate's requests failed, {} of the stable version's",
            share_of(self.step.failed, self.step.requests),
            share_of(stable.failed, stable.requests)
        )
    }
}

/// `3 of 16`, for people.
pub(super) fn share_of(some: u64, all: u64) -> String {
    format!("{} of {}", count(some as f64), count(all as f64))
}

/// A share in per cent, in as few digits as it takes.
pub(super) fn percent(share: Option<f64>) -> String {
    let number = (share.unwrap_or_default() * 100.0 * 10_000.0).round() / 10_000.0;
    number.to_string()
}

/// A number for people: in groups of three digits, and not beyond what anybody counts.
#[must_use]
pub fn count(number: f64) -> String {
    if number >= 1e9 {
        return "more than a billion".to_owned();
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
