//! A release's states, one look at a time.

use serin_model::{OnDeadline, Release, Share, Step};

use crate::Millis;
use crate::evidence::{Evidence, Verdict};
use crate::queries;
use crate::status::{Confirmed, Event, EventKind, Phase, Status, Target};
use crate::traffic::{has_baseline, traffic, weight};
use crate::verdict::Expected;

mod look;
mod obstacle;

pub use obstacle::DOCUMENT_GONE;
pub(crate) use obstacle::{frozen, lacking, misnamed, obstacle};

/// Something to be done outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run a hook and report how it ended; it is asked for again until then.
    Hook(HookAt),
    /// Ask a query of the analysis, and put its response into the evidence.
    Query {
        /// Its number in the list.
        number: usize,
    },
}

/// Identifies a hook, and the time at which its step came to it: the result of an earlier one counts for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookAt {
    /// The step.
    pub step: usize,
    /// True when it stands before the step.
    pub before: bool,
    /// Its number in the list.
    pub number: usize,
    /// The time at which the step came to its hooks.
    pub since: Millis,
}

/// The reason why traffic does not go back.
const NOBODY: &str = "but no instance of the stable version is ready";

/// The time that proxies may take to confirm that traffic went back; then those that have not are named.
const ABORT_PATIENCE: Millis = 5_000;

/// A salt of a release's own: other releases, and its next version, choose other users.
fn salt(spec: &Release, now: Millis) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (spec.host.as_str(), &spec.name, &spec.candidate, now).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// One look at a release.
pub(crate) struct Run<'a> {
    pub(crate) spec: &'a Release,
    pub(crate) status: &'a mut Status,
    pub(crate) evidence: &'a Evidence,
    pub(crate) now: Millis,
    pub(crate) events: Vec<Event>,
    pub(crate) actions: Vec<Action>,
}

impl Run<'_> {
    pub(crate) fn note(&mut self, kind: EventKind, reason: &str) {
        let event = self.status.note(self.now, kind, reason);
        self.events.push(event);
    }

    pub(crate) fn enter(&mut self, phase: Phase, reason: &str) {
        self.status.phase = phase;
        self.status.since = self.now;
        reason.clone_into(&mut self.status.reason);
        self.note(if phase.is_final() { EventKind::Done } else { EventKind::Phase }, reason);
    }

    /// The time since the phase began.
    fn time_in_phase(&self) -> Millis {
        self.now.saturating_sub(self.status.since)
    }

    fn step(&self) -> Option<&Step> {
        self.spec.steps.get(self.status.step)
    }

    /// Returns true when every proxy that there is has confirmed the traffic.
    fn is_applied(&self) -> bool {
        self.evidence.applied.done == self.evidence.applied.of
    }

    fn expected(&self) -> Expected {
        let (share, cohorts, mirror) =
            traffic(self.spec, self.status.target).unwrap_or((Share::NONE, Vec::new(), Share::NONE));
        let baseline = self.spec.baseline.is_some() && share > Share::NONE && has_baseline(share);
        // Mirrored requests come on top of the candidate's own.
        let drawn = self.spec.stickiness.is_none() && cohorts.is_empty() && mirror == Share::NONE;
        Expected { share: if baseline { 0.5 } else { f64::from(share.parts()) / 1e6 }, drawn, baseline }
    }

    fn is_worse(&self) -> bool {
        matches!(self.status.verdict, Verdict::Regression(_))
    }

    /// It is worse, or a hook failed, and it goes back once somebody is there; until then it goes no further by itself.
    fn is_stuck(&mut self) -> bool {
        let further = [Phase::Before, Phase::Baking, Phase::AwaitingApproval, Phase::After, Phase::Guarding];
        let worse = self.is_worse() && !self.status.forced && further.contains(&self.status.phase);
        if worse && self.status.phase == Phase::Baking && self.time_in_phase() >= self.longest() {
            let reason = self.status.reason.clone();
            self.hold(reason);
        }
        worse || self.status.failed_hook.is_some()
    }

    /// The time that the step bakes at most.
    fn longest(&self) -> Millis {
        self.step().map_or(0, |step| step.bake.max.max(step.bake.min).as_millis() as u64)
    }

    /// Leaves it to a person.
    fn hold(&mut self, reason: String) {
        if !std::mem::replace(&mut self.status.held, true) {
            self.note(EventKind::Done, &reason);
        }
        self.status.reason = reason;
    }

    /// Returns true when the stable version has instances: without, going back helps nobody, unless a person says so.
    pub(crate) fn may_go_back(&self) -> bool {
        self.evidence.stable_ready > 0
    }

    /// Goes back for a reason of its own.
    fn goes_back(&mut self, reason: &str) -> bool {
        if self.may_go_back() {
            self.roll_back(reason);
            return true;
        }
        self.status.reason = format!("{reason}; {NOBODY}");
        false
    }

    pub(crate) fn roll_back(&mut self, reason: &str) {
        self.status.target = Target::Stable;
        self.status.holder = None;
        self.moves(0.0);
        self.status.hook = None;
        self.status.failed_hook = None;
        self.status.held = false;
        self.enter(Phase::RollingBack, reason);
    }

    /// Traffic moves: what is observed of its shares begins anew.
    fn moves(&mut self, percent: f64) {
        self.status.moved = self.now;
        self.status.weights.configured = percent;
        self.status.weights.observed = None;
        self.status.judgement.reshare();
    }

    /// Goes on when it may; true when it did.
    pub(crate) fn next(&mut self) -> bool {
        match self.status.phase {
            Phase::Promoted | Phase::RolledBack => return false,
            Phase::RollingBack => return self.went_back(),
            _ => {}
        }
        if self.overdue() {
            return true;
        }
        if let Some(why) = obstacle(self.spec, self.status, self.evidence.calendar) {
            self.status.reason = why;
            self.status.stopped = true;
            return false;
        }
        if std::mem::take(&mut self.status.stopped) {
            self.status.reason.clear();
        }
        if self.is_stuck() {
            return false;
        }
        match self.status.phase {
            Phase::Pending => self.begin(),
            Phase::Before => self.hooks(true),
            Phase::Shifting => self.shifted(Phase::WarmingUp),
            Phase::WarmingUp => {
                let over = self.time_in_phase() >= self.spec.analysis.warmup.as_millis() as u64;
                if over {
                    self.status.judgement.reshare();
                    self.status.judgement.begin(self.status.step);
                    // What was said of the step before says nothing of this one.
                    self.status.verdict = Verdict::default();
                    self.status.queries.clear();
                    self.status.forced = false;
                    self.enter(Phase::Baking, "evidence gathers");
                }
                over
            }
            Phase::Baking => self.baked(),
            Phase::AwaitingApproval => self.approved(),
            Phase::After => self.hooks(false),
            Phase::Promoting => self.shifted(Phase::Guarding),
            Phase::Guarding => {
                let over = self.time_in_phase() >= self.spec.guard.as_millis() as u64;
                if over {
                    self.enter(Phase::Promoted, "the candidate has all the traffic");
                }
                over
            }
            Phase::Promoted | Phase::RolledBack | Phase::RollingBack => false,
        }
    }

    fn went_back(&mut self) -> bool {
        let late = self.time_in_phase() >= ABORT_PATIENCE;
        // What is known at first is about the traffic before.
        if self.time_in_phase() == 0 || (!self.is_applied() && !late) {
            return false;
        }
        let why = self.status.reason.clone();
        let why = match self.evidence.applied.laggards.as_slice() {
            [] => why,
            late => format!("{why} (not confirmed by {})", late.join(", ")),
        };
        self.enter(Phase::RolledBack, &why);
        true
    }

    fn begin(&mut self) -> bool {
        if let Some(reason) = lacking(self.spec, self.status, self.evidence) {
            self.status.reason = reason;
            return false;
        }
        self.set_out();
        self.start_step(0);
        true
    }

    /// It is under way from here on, unless it was.
    pub(crate) fn set_out(&mut self) {
        if self.status.began {
            return;
        }
        self.status.began = true;
        self.status.started = self.now;
        self.status.salt = salt(self.spec, self.now);
        self.status.holder = None;
        let inherited = std::mem::take(&mut self.status.inherited);
        self.status.former.extend(inherited);
        self.status.judgement.skip(self.evidence);
    }

    fn start_step(&mut self, step: usize) {
        self.status.step = step;
        self.status.held = false;
        self.status.approved = None;
        self.status.hook = Some(0);
        self.note(EventKind::Step, &format!("step {} of {}", step + 1, self.spec.steps.len()));
        self.enter(Phase::Before, "");
    }

    /// Runs the hooks at hand, one after the other.
    fn hooks(&mut self, before: bool) -> bool {
        let count = self.step().map_or(0, |s| if before { s.before.len() } else { s.after.len() });
        let number = self.status.hook.unwrap_or(0);
        if number < count {
            self.status.hook = Some(number);
            self.status.reason = format!("hook {} of {count}", number + 1);
            let (step, since) = (self.status.step, self.status.since);
            self.actions.push(Action::Hook(HookAt { step, before, number, since }));
            return false;
        }
        self.status.hook = None;
        if before {
            self.shift();
        } else {
            self.next_step();
        }
        true
    }

    fn shift(&mut self) {
        self.status.target = Target::Step(self.status.step);
        self.moves(weight(self.spec, self.status.target));
        // What is known of proxies is about the traffic before: the next look tells.
        self.enter(Phase::Shifting, "proxies take the new weights");
    }

    fn shifted(&mut self, then: Phase) -> bool {
        if self.time_in_phase() == 0 {
            return false;
        }
        if !self.is_applied() {
            let Confirmed { done, of } = self.status.proxies;
            self.status.reason =
                format!("{done} of {of} proxies have confirmed; not yet {}", self.status.laggards.join(", "));
            return false;
        }
        self.status.weights.applied = self.status.weights.configured;
        self.note(
            EventKind::Applied,
            &match self.evidence.applied.of {
                1 => "the one proxy has confirmed".to_owned(),
                of => format!("all {of} proxies have confirmed"),
            },
        );
        self.status.judgement.reshare();
        self.status.weights.observed = None;
        self.enter(then, "");
        true
    }

    /// Goes back when the time for consent, or for evidence, is up: a pause and a freeze do not hold that up.
    pub(crate) fn overdue(&mut self) -> bool {
        if let Some(why) = &self.status.failed_hook {
            let why = format!("a hook failed: {why}");
            return self.goes_back(&why);
        }
        let Some(step) = self.step() else { return false };
        match self.status.phase {
            Phase::AwaitingApproval if self.status.approved.is_none() => {
                let expires = step.approval.as_ref().and_then(|a| a.expires);
                if expires.is_some_and(|e| self.time_in_phase() >= e.as_millis() as u64) {
                    return self.goes_back("nobody approved in time");
                }
            }
            Phase::Baking if self.spec.analysis.on_deadline == OnDeadline::Abort => {
                if let Some(why) = self.lacks().filter(|_| self.time_in_phase() >= self.longest()) {
                    return self.goes_back(&format!("the time is up: {why}"));
                }
            }
            _ => {}
        }
        false
    }

    /// The evidence that the step lacks.
    fn lacks(&self) -> Option<String> {
        let share = self.expected().share;
        let compares = share > 0.0 && share < 1.0;
        match &self.status.verdict {
            Verdict::Regression(text) | Verdict::Void(text) => return Some(text.clone()),
            // A cohort or a mirror alone is there to be looked at: its time is enough.
            Verdict::NoEvidence if compares => return Some("no request reached the candidate".to_owned()),
            Verdict::NotEnough(text) if compares => return Some(text.clone()),
            Verdict::NoWorse(_) | Verdict::NoEvidence | Verdict::NotEnough(_) => {}
        }
        queries::missing(&self.spec.analysis.queries, &self.status.queries)
    }

    fn baked(&mut self) -> bool {
        let Some(step) = self.step() else { return false };
        let min = step.bake.min.as_millis() as u64;
        let elapsed = self.time_in_phase();
        if elapsed < min {
            return false;
        }
        let Some(why) = self.lacks() else {
            self.end_step();
            return true;
        };
        if elapsed < self.longest() {
            self.status.reason = why;
            return false;
        }
        if self.spec.analysis.on_deadline == OnDeadline::Promote && !matches!(self.status.verdict, Verdict::Void(_)) {
            self.note(EventKind::Verdict, &format!("the time is up, and it goes on all the same: {why}"));
            self.end_step();
            return true;
        }
        self.hold(format!("it waits for a person: {why}"));
        false
    }

    /// The step's evidence is complete, or somebody says so.
    pub(crate) fn end_step(&mut self) {
        self.status.held = false;
        match self.status.phase {
            Phase::Before | Phase::Shifting | Phase::WarmingUp | Phase::Baking
                if self.step().is_some_and(|s| s.approval.is_some()) =>
            {
                self.enter(Phase::AwaitingApproval, "somebody must approve");
            }
            Phase::After => self.next_step(),
            _ => {
                self.status.hook = Some(0);
                self.enter(Phase::After, "");
            }
        }
    }

    fn approved(&mut self) -> bool {
        // The document may ask for no consent any more.
        let asked = self.step().is_some_and(|s| s.approval.is_some());
        if self.status.approved.is_some() || !asked {
            self.status.hook = Some(0);
            self.enter(Phase::After, "");
            return true;
        }
        "somebody must approve".clone_into(&mut self.status.reason);
        false
    }

    fn next_step(&mut self) {
        let next = self.status.step + 1;
        if next < self.spec.steps.len() {
            self.start_step(next);
        } else {
            self.promote();
        }
    }

    pub(crate) fn promote(&mut self) {
        self.status.target = Target::Candidate;
        self.moves(100.0);
        self.status.hook = None;
        self.status.held = false;
        self.enter(Phase::Promoting, "the candidate gets all the traffic");
    }
}
