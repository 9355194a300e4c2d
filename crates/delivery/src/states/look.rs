//! A look at the evidence: it is judged, and a release that is worse, or has lost its instances, is rolled back.

use serin_model::Share;

use super::{Action, NOBODY, Run, obstacle};
use crate::Millis;
use crate::evidence::Verdict;
use crate::queries;
use crate::status::{Confirmed, EventKind, Phase, Target};
use crate::traffic::traffic;
use crate::verdict::Expected;

/// The time that a version that gets traffic may be without a ready instance: instances are replaced, and known late.
const DESERTED: Millis = 5_000;

impl Run<'_> {
    /// Takes in what is new, and rolls back when it says so.
    pub(crate) fn look(&mut self) {
        let (proxies, weights) = (&self.evidence.applied, self.status.weights);
        self.status.proxies = Confirmed { done: proxies.done, of: proxies.of };
        self.status.laggards.clone_from(&proxies.laggards);
        let notes = self.notes();
        let topic = |note: &String| note.split([':', '(']).next().unwrap_or_default().to_owned();
        let known: Vec<String> = self.status.notes.iter().map(topic).collect();
        for note in notes.iter().filter(|n| n.starts_with("different mix") && !known.contains(&topic(n))) {
            self.note(EventKind::Verdict, note);
        }
        self.status.notes = notes;
        if self.is_applied() {
            self.status.weights.applied = weights.configured;
        }
        let warm = self.time_in_phase() >= self.spec.analysis.warmup.as_millis() as u64;
        match self.status.phase {
            Phase::Pending | Phase::Promoted | Phase::RolledBack | Phase::RollingBack => {}
            Phase::Before if !matches!(self.status.target, Target::Step(_)) => {}
            // A proxy that does not confirm, a pause or a freeze holds the step up; the candidate has traffic all the same.
            Phase::Shifting | Phase::Promoting if warm => self.judge(false),
            Phase::WarmingUp
                if warm && (self.is_worse() || obstacle(self.spec, self.status, self.evidence.calendar).is_some()) =>
            {
                self.judge(false);
            }
            Phase::Shifting | Phase::WarmingUp | Phase::Promoting => self.status.judgement.skip(self.evidence),
            Phase::Before | Phase::Baking | Phase::AwaitingApproval | Phase::After | Phase::Guarding => {
                self.judge(true);
            }
        }
        self.deserted();
    }

    /// The notes about its traffic.
    fn notes(&self) -> Vec<String> {
        let kept = |subset: &String| {
            format!("requests to subset {subset} stay with the stable version: no instance of the candidate is of it")
        };
        let mut notes: Vec<String> = self.evidence.kept.iter().map(kept).collect();
        let failed: u64 = self.evidence.candidate.failed;
        notes.extend(self.evidence.failed_calls.iter().map(|(release, calls)| {
            format!("{calls} failed calls of its candidate's instances went to the candidate of release {release}; {failed} of the candidate's own requests failed")
        }));
        notes.extend(
            self.evidence
                .applied
                .silent
                .iter()
                .map(|proxy| format!("{proxy} is connected and has never confirmed anything: it is not waited for")),
        );
        notes.extend(self.status.judgement.mixed(&self.spec.analysis));
        notes.extend(self.without_stable());
        notes
    }

    /// The note about requests to a stable version without instances, while it gets some.
    fn without_stable(&self) -> Option<String> {
        let begun = !matches!(self.status.phase, Phase::Pending | Phase::Promoted);
        let share = 100.0 - self.status.weights.applied;
        (begun && self.evidence.stable_ready == 0 && share > 0.0).then(|| {
            format!(
                "no instance of the stable version is ready: its {share:.4} % of requests fail; 'promote --full' gives them to the \
                 candidate"
            )
            .replace(".0000 %", " %")
        })
    }

    /// Takes traffic from versions without instances, where the stable version has some.
    fn deserted(&mut self) {
        let without = match traffic(self.spec, self.status.target) {
            Some((Share::NONE, cohorts, _)) if cohorts.is_empty() => None,
            Some(_) if self.evidence.candidate_ready == 0 => Some("candidate"),
            Some(_) if self.expected().baseline => (self.evidence.baseline_ready == 0).then_some("baseline"),
            _ => None,
        };
        let over = self.status.phase.is_final() || self.status.phase == Phase::RollingBack;
        let Some(without) = without.filter(|_| !over && self.may_go_back()) else {
            self.status.deserted = None;
            return;
        };
        let since = *self.status.deserted.get_or_insert(self.now);
        if self.now.saturating_sub(since) >= DESERTED {
            self.roll_back(&format!("no instance of the {without} is ready"));
        }
    }

    /// Judges what is new; `settled` when all proxies share requests as configured.
    fn judge(&mut self, settled: bool) {
        let expected = self.expected();
        let expected = Expected { drawn: expected.drawn && settled, ..expected };
        let analysis = &self.spec.analysis;
        let due = queries::look(&analysis.queries, &mut self.status.queries, &self.evidence.readings, self.now);
        self.actions.extend(due.into_iter().map(|number| Action::Query { number }));
        let news = self.status.judgement.take(self.evidence, analysis, expected);
        if let Some(rule) = &analysis.kayenta {
            self.status.judgement.series.close(rule, self.now);
        }
        let verdict = self.status.judgement.verdict(analysis, expected, self.evidence);
        let outside = queries::regression(&analysis.queries, &self.status.queries);
        let verdict = outside.map_or(verdict, Verdict::Regression);
        self.status.weights.observed = self.status.judgement.observed().map(|s| s * 100.0);
        if news {
            let text = match &verdict {
                Verdict::NoEvidence => "no request reached the candidate yet".to_owned(),
                Verdict::NotEnough(text) | Verdict::NoWorse(text) | Verdict::Regression(text) | Verdict::Void(text) => {
                    text.clone()
                }
            };
            self.note(EventKind::Evidence, &text);
        }
        let said = std::mem::discriminant(&self.status.verdict) != std::mem::discriminant(&verdict);
        self.status.verdict = verdict.clone();
        match verdict {
            Verdict::Regression(reason) if self.may_go_back() => {
                self.note(EventKind::Verdict, &reason);
                self.roll_back(&reason);
            }
            // Nobody is there who would do better: it goes back once somebody is.
            Verdict::Regression(reason) => {
                let reason = format!("{reason}; {NOBODY}");
                if said {
                    self.note(EventKind::Verdict, &reason);
                }
                self.status.reason = reason;
            }
            Verdict::NoWorse(reason) | Verdict::Void(reason) if said => self.note(EventKind::Verdict, &reason),
            _ => {}
        }
    }
}
