//! A release's states, one look at a time.

use serin_model::{OnDeadline, Release, Share, Step};

use crate::Millis;
use crate::evidence::{Evidence, Verdict};
use crate::queries;
use crate::status::{Event, EventKind, Phase, Status, Target};
use crate::traffic::{has_baseline, traffic, weight};
use crate::verdict::Expected;

/// Something to be done outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run a hook and report how it ended; it is asked for again until then.
    Hook(HookAt),
    /// Ask a query of the analysis, and put its answer into the evidence.
    Query {
        /// Its number in the list.
        number: usize,
    },
}

/// Which hook, and of which time that its step came to it: one that was asked for before answers for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookAt {
    /// The step.
    pub step: usize,
    /// Whether it stands before the step.
    pub before: bool,
    /// Its number in the list.
    pub number: usize,
    /// When the step came to its hooks.
    pub since: Millis,
}

/// What pauses a release whose document is gone.
pub const DOCUMENT_GONE: &str = "its document is gone: its traffic stays for a minute as it is";

/// How long a version that gets traffic may be without a ready instance: instances are replaced, and known late.
const DESERTED: Millis = 5_000;

/// Why traffic does not go back.
const NOBODY: &str = "but no instance of the stable version is ready";

/// How long proxies may take to confirm that traffic went back; then those that have not are named.
const ABORT_PATIENCE: Millis = 5_000;

/// What is in the way of going forward; `calendar` is the time by the clock on the wall, in UTC.
pub(crate) fn obstacle(spec: &Release, status: &Status, calendar: Millis) -> Option<String> {
    if let Some(why) = &status.paused {
        return Some(if why == DOCUMENT_GONE { format!("paused: {why}") } else { format!("paused by {why}") });
    }
    frozen(spec, calendar).map(|until| format!("it is a time of freeze until {until}"))
}

/// Until when it does not go forward, when it is a time of freeze.
pub(crate) fn frozen(spec: &Release, calendar: Millis) -> Option<String> {
    let minute = (calendar / 60_000 + 3 * 24 * 60) % (7 * 24 * 60);
    let within = |(from, to): &&(u32, u32)| {
        let (from, to) = (u64::from(*from), u64::from(*to));
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    };
    let (_, until) = spec.freezes.iter().find(within)?;
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].into_iter().cycle().nth(*until as usize / 1440);
    Some(format!("{} {:02}:{:02} UTC", day.unwrap_or_default(), until % 1440 / 60, until % 60))
}

/// Which other version than the one named as stable has the traffic.
pub(crate) fn misnamed(spec: &Release, status: &Status) -> Option<String> {
    let holder = status.holder.as_ref().filter(|holder| **holder != spec.stable)?;
    let labels: Vec<String> = holder.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(format!("{} has the traffic, by an earlier release: name it as stable", labels.join(",")))
}

/// What a release lacks to begin.
pub(crate) fn lacking(spec: &Release, status: &Status, evidence: &Evidence) -> Option<String> {
    let misnamed = misnamed(spec, status);
    if misnamed.is_some() {
        return misnamed;
    }
    let lacking = match evidence {
        _ if spec.waits_for_start && !status.go => "it waits to be started",
        e if e.candidate_ready == 0 => "no instance of the candidate is ready",
        e if e.stable_ready == 0 => "no instance of the stable version is ready",
        e if spec.baseline.is_some() && e.baseline_ready == 0 => "no instance of the baseline is ready",
        _ => return None,
    };
    Some(lacking.to_owned())
}

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

    fn elapsed(&self) -> Millis {
        self.now.saturating_sub(self.status.since)
    }

    fn step(&self) -> Option<&Step> {
        self.spec.steps.get(self.status.step)
    }

    /// Whether every proxy that there is has confirmed the traffic.
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

    /// Takes in what is new, and rolls back when it says so.
    pub(crate) fn look(&mut self) {
        let (proxies, weights) = (&self.evidence.applied, self.status.weights);
        self.status.proxies = (proxies.done, proxies.of);
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
        let warm = self.elapsed() >= self.spec.analysis.warmup.as_millis() as u64;
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

    /// What is good to know of its traffic.
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

    /// What becomes of requests to a stable version without instances, while it gets some.
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

    fn is_worse(&self) -> bool {
        matches!(self.status.verdict, Verdict::Regression(_))
    }

    /// It is worse, or a hook failed, and it goes back once somebody is there; until then it goes no further by itself.
    fn is_stuck(&mut self) -> bool {
        let further = [Phase::Before, Phase::Baking, Phase::AwaitingApproval, Phase::After, Phase::Guarding];
        let worse = self.is_worse() && !self.status.forced && further.contains(&self.status.phase);
        if worse && self.status.phase == Phase::Baking && self.elapsed() >= self.longest() {
            let reason = self.status.reason.clone();
            self.hold(reason);
        }
        worse || self.status.failed_hook.is_some()
    }

    /// How long the step bakes at most.
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

    /// Whether the stable version has instances: without, going back helps nobody, unless a person says so.
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
                let over = self.elapsed() >= self.spec.analysis.warmup.as_millis() as u64;
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
                let over = self.elapsed() >= self.spec.guard.as_millis() as u64;
                if over {
                    self.enter(Phase::Promoted, "the candidate has all the traffic");
                }
                over
            }
            Phase::Promoted | Phase::RolledBack | Phase::RollingBack => false,
        }
    }

    fn went_back(&mut self) -> bool {
        let late = self.elapsed() >= ABORT_PATIENCE;
        // What is known at first is about the traffic before.
        if self.elapsed() == 0 || (!self.is_applied() && !late) {
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
        if self.elapsed() == 0 {
            return false;
        }
        if !self.is_applied() {
            let (done, of) = self.status.proxies;
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
                if expires.is_some_and(|e| self.elapsed() >= e.as_millis() as u64) {
                    return self.goes_back("nobody approved in time");
                }
            }
            Phase::Baking if self.spec.analysis.on_deadline == OnDeadline::Abort => {
                if let Some(why) = self.lacks().filter(|_| self.elapsed() >= self.longest()) {
                    return self.goes_back(&format!("the time is up: {why}"));
                }
            }
            _ => {}
        }
        false
    }

    /// Which evidence the step lacks.
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
        let elapsed = self.elapsed();
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
