//! Points of Kayenta's kind: for each interval of a step, each version's failures in per cent and its mean time.

use serde::{Deserialize, Serialize};
use serin_model::Kayenta;

use crate::Millis;
use crate::evidence::{Arm, Verdict};
use crate::judge::kayenta::{Class, classify, score};

/// The points of both versions, the stable one's first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Series {
    /// The time at which the interval at hand began.
    since: Millis,
    /// The evidence of the open interval.
    open: [Arm; 2],
    /// Failures in per cent.
    failures: [Vec<f64>; 2],
    /// Mean times in milliseconds.
    times: [Vec<f64>; 2],
    /// The verdict of the points, until there are more.
    #[serde(skip)]
    said: Option<Verdict>,
}

impl Series {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes requests in.
    pub(crate) fn gather(&mut self, stable: &Arm, candidate: &Arm) {
        self.open.iter_mut().zip([stable, candidate]).for_each(|(open, new)| open.add(new));
    }

    /// Makes points of an interval that is over; one in which a version had no requests makes none. Twice as many as the rule asks for are kept.
    pub(crate) fn close(&mut self, rule: &Kayenta, now: Millis) {
        if self.since == 0 {
            self.since = now;
        }
        if now.saturating_sub(self.since) < rule.interval.as_millis() as u64 {
            return;
        }
        self.since = now;
        self.said = None;
        let arms = std::mem::take(&mut self.open);
        // A point of one version without one of the other compares nothing.
        let (requests, timed) = (arms.iter().all(|a| a.requests > 0), arms.iter().all(|a| a.timed() > 0));
        for (version, arm) in arms.into_iter().enumerate() {
            if requests {
                self.failures[version].push(100.0 * arm.failed as f64 / arm.requests as f64);
            }
            if timed {
                let sum: f64 = arm.times.iter().map(|(bound, count)| *bound as f64 / 1000.0 * *count as f64).sum();
                self.times[version].push(sum / arm.timed() as f64);
            }
            for points in [&mut self.failures[version], &mut self.times[version]] {
                let surplus = points.len().saturating_sub(2 * rule.points as usize);
                points.drain(..surplus);
            }
        }
    }

    /// The verdict of the score of the points.
    pub(crate) fn verdict(&mut self, rule: &Kayenta, compare_times: bool) -> Verdict {
        let verdict = self.said.take().unwrap_or_else(|| self.judge(rule, compare_times));
        self.said.insert(verdict).clone()
    }

    fn judge(&self, rule: &Kayenta, compare_times: bool) -> Verdict {
        let [stable, candidate] = &self.failures;
        let points = stable.len().min(candidate.len());
        if points < rule.points as usize {
            return Verdict::NotEnough(format!("{points} of {} points", rule.points));
        }
        let mut classes = vec![("failures", classify(candidate, stable, 1.0))];
        let [stable, candidate] = &self.times;
        if compare_times && stable.len().min(candidate.len()) >= rule.points as usize {
            classes.push(("times", classify(candidate, stable, 1.0)));
        }
        let high: Vec<&str> = classes.iter().filter(|(_, c)| *c == Class::High).map(|(name, _)| *name).collect();
        let score = score(&classes.iter().map(|(_, class)| *class).collect::<Vec<_>>());
        let what = if high.is_empty() { String::new() } else { format!(": high {}", high.join(" and ")) };
        match score {
            s if s >= rule.pass => Verdict::NoWorse(format!("score {score:.0} of {points} points{what}")),
            s if s >= rule.marginal => Verdict::NotEnough(format!("score {score:.0} is marginal{what}")),
            _ => Verdict::Regression(format!("the candidate is worse (score {score:.0}{what})")),
        }
    }
}
