//! The complete state of a release: it is stored, and shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serin_model::{Labels, Release};

use crate::Millis;
use crate::evidence::Verdict;
use crate::queries::All;
use crate::verdict::Judgement;

/// The phase of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It has not begun.
    #[default]
    Pending,
    /// Something is done before a step.
    Before,
    /// Traffic moves; not every proxy has confirmed it.
    Shifting,
    /// Traffic has moved, and what comes now is not judged.
    WarmingUp,
    /// Evidence gathers.
    Baking,
    /// A person must say go.
    AwaitingApproval,
    /// Something is done after a step.
    After,
    /// The candidate gets everything; not every proxy has confirmed it.
    Promoting,
    /// It has everything, and the old version is ready still.
    Guarding,
    /// Traffic goes back; not every proxy has confirmed it.
    RollingBack,
    /// Done: the candidate has the traffic.
    Promoted,
    /// Done: the stable version has the traffic.
    RolledBack,
}

impl Phase {
    /// Its name for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Before => "running hooks before the step",
            Self::Shifting => "shifting traffic",
            Self::WarmingUp => "warming up",
            Self::Baking => "baking",
            Self::AwaitingApproval => "awaiting approval",
            Self::After => "running hooks after the step",
            Self::Promoting => "promoting",
            Self::Guarding => "guarding",
            Self::RollingBack => "rolling back",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
        }
    }

    /// Returns true when nothing happens any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Promoted | Self::RolledBack)
    }
}

/// The version or step whose traffic is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The documents'.
    #[default]
    Documents,
    /// That of a step.
    Step(usize),
    /// Everything to the candidate.
    Candidate,
    /// Everything to the stable version.
    Stable,
}

/// The three weights of the candidate, in per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// The configured weight.
    pub configured: f64,
    /// The weight that every proxy has confirmed.
    pub applied: f64,
    /// The weight that its requests have; none without requests.
    pub observed: Option<f64>,
}

/// The outcome of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The candidate has the traffic.
    Promoted,
    /// The stable version has it again.
    RolledBack,
    /// There is not enough evidence, and a person must decide.
    Held,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// Another phase began.
    Phase,
    /// Another step began.
    Step,
    /// Every proxy has confirmed the traffic.
    Applied,
    /// There is new evidence.
    Evidence,
    /// The evidence says something new.
    Verdict,
    /// Somebody did something.
    Action,
    /// It is over, or waits for a person.
    Done,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The time of the event.
    pub at: Millis,
    /// The kind of the event.
    pub event: EventKind,
    /// The phase then.
    pub phase: Phase,
    /// The step then.
    pub step: usize,
    /// The weights then.
    pub weights: Weights,
    /// The reason.
    pub reason: String,
    /// The outcome, when the release is over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
}

/// The versions that a status is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The host whose traffic they divide.
    pub host: String,
    /// The one before.
    pub stable: Labels,
    /// The new one.
    pub candidate: Labels,
}

impl Versions {
    /// Those of a release.
    #[must_use]
    pub fn of(spec: &Release) -> Self {
        Self { host: spec.host.to_string(), stable: spec.stable.clone(), candidate: spec.candidate.clone() }
    }
}

/// Proxies that have the newest configuration. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Those that have confirmed it.
    pub done: usize,
    /// All.
    pub of: usize,
}

/// The approval of a step. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The person.
    pub by: String,
    /// The person's words about it.
    pub comment: String,
}

/// All that is known of a release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The phase.
    pub phase: Phase,
    /// Its step, from 0.
    pub step: usize,
    /// The reason why it stands there.
    pub reason: String,
    /// Since when.
    pub since: Millis,
    /// The time at which it began; 0 before.
    pub started: Millis,
    /// The time at which it moved traffic last, or one before it did that it follows: of several of a host the last word counts.
    pub moved: Millis,
    /// The version or step whose traffic is in force.
    pub target: Target,
    /// The candidate's weights.
    pub weights: Weights,
    /// Proxies that have confirmed the traffic, and all that should.
    pub proxies: Confirmed,
    /// Those that have not.
    pub laggards: Vec<String>,
    /// Somebody stopped it, and why.
    pub paused: Option<String>,
    /// The reason of the pause before its document went away for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_before: Option<String>,
    /// Its reason says what stopped it, a pause or a freeze.
    pub stopped: bool,
    /// It waits for a person because there is not enough evidence.
    pub held: bool,
    /// Somebody started it.
    pub go: bool,
    /// It has begun, so that others of its train go back with it.
    pub began: bool,
    /// A person passed over what the evidence says, until more of it gathers.
    pub forced: bool,
    /// The hook that failed while nobody was there to go back to.
    pub failed_hook: Option<String>,
    /// Its train has arrived: what becomes of others does not concern it any more.
    pub arrived: bool,
    /// The person who approved the step at hand, and the comment.
    pub approved: Option<Consent>,
    /// The hook that is at work, by its number in the list.
    pub hook: Option<usize>,
    /// The verdict of the evidence.
    pub verdict: Verdict,
    /// The evidence.
    pub judgement: Judgement,
    /// The values that others measured since the step began to be judged, by the names of the queries.
    pub queries: All,
    /// Since when a version that gets traffic has no ready instance.
    pub deserted: Option<Millis>,
    /// The versions that it is about.
    pub versions: Versions,
    /// The version that has the traffic until it begins, by a release before it.
    pub holder: Option<Labels>,
    /// Versions that were stable before, whose traffic this release took over: rules that name them mean the stable version.
    pub former: Vec<Labels>,
    /// Those of another release of the host, as long as this one has not begun.
    pub inherited: Vec<Labels>,
    /// A fingerprint of what was asked for, so that a change is noticed.
    pub spec: String,
    /// Mixed into what keeps users with a version, drawn when it begins; empty in one that began before there was a salt, whose users
    /// stay where they are.
    pub salt: String,
    /// Notes about its traffic, beside its reason.
    pub notes: Vec<String>,
    /// The events, the newest last.
    pub history: Vec<Event>,
}

/// Events that are kept in the status; the audit log has all.
const HISTORY: usize = 100;

impl Status {
    /// That of a release that has not begun.
    #[must_use]
    pub fn of(spec: &Release) -> Self {
        Self { versions: Versions::of(spec), ..Self::default() }
    }

    /// That of the same document begun anew, with what happened before.
    pub(crate) fn anew(&self, spec: &Release) -> Self {
        let mut anew = Self::of(spec);
        anew.follow(self);
        Self { spec: self.spec.clone(), history: self.history.clone(), ..anew }
    }

    /// The version that has the traffic by this release; `None` while the documents have it.
    #[must_use]
    pub fn holds(&self) -> Option<&Labels> {
        match self.target {
            Target::Documents => None,
            Target::Candidate => Some(&self.versions.candidate),
            Target::Stable | Target::Step(_) => Some(self.holder.as_ref().unwrap_or(&self.versions.stable)),
        }
    }

    /// Takes over from a release of the same host: its traffic stays where it is until this one begins.
    pub fn follow(&mut self, before: &Self) {
        if before.holds().is_none() {
            return;
        }
        self.target = Target::Stable;
        self.moved = before.moved;
        self.inherit(Some(before));
        self.former = std::mem::take(&mut self.inherited);
    }

    /// Takes over what rules may name still of the release of the same host that has the last word, and which version has the
    /// traffic by it.
    pub fn inherit(&mut self, before: Option<&Self>) {
        self.inherited.clear();
        let Some((before, holder)) = before.and_then(|before| Some((before, before.holds()?))) else { return };
        if self.target == Target::Stable {
            self.holder = Some(holder.clone());
        }
        for labels in before.former.iter().chain([&before.versions.stable]) {
            if labels != holder && !self.former.contains(labels) && !self.inherited.contains(labels) {
                self.inherited.push(labels.clone());
            }
        }
    }

    /// Nobody looked for so long: what was to be watched is watched for as long as it should be all the same.
    pub fn sleep(&mut self, away: Duration, now: Millis) {
        if matches!(self.phase, Phase::WarmingUp | Phase::Baking | Phase::Guarding) {
            self.since = now.min(self.since + away.as_millis() as u64);
        }
        self.deserted = None;
    }

    /// Takes note of something that happened.
    pub fn note(&mut self, at: Millis, event: EventKind, reason: impl Into<String>) -> Event {
        let outcome = match (event, self.phase) {
            (EventKind::Done, Phase::Promoted) => Some(Outcome::Promoted),
            (EventKind::Done, Phase::RolledBack) => Some(Outcome::RolledBack),
            (EventKind::Done, _) => Some(Outcome::Held),
            _ => None,
        };
        let weights = self.weights;
        let event = Event { at, event, phase: self.phase, step: self.step, weights, reason: reason.into(), outcome };
        if event.event != EventKind::Evidence {
            self.history.push(event.clone());
            let surplus = self.history.len().saturating_sub(HISTORY);
            self.history.drain(..surplus);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_earlier_pilots_are_read_and_fields_are_written() {
        let confirmed: Confirmed = serde_json::from_str("[2, 3]").unwrap();
        assert_eq!(serde_json::to_string(&confirmed).unwrap(), r#"{"done":2,"of":3}"#);
        let consent: Option<Consent> = serde_json::from_str(r#"["ann", "fine"]"#).unwrap();
        assert_eq!(serde_json::to_string(&consent).unwrap(), r#"{"by":"ann","comment":"fine"}"#);
    }
}
