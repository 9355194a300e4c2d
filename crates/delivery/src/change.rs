//! Documents that change while their release is under way, or after it.

use serin_model::Release;

use crate::Millis;
use crate::status::{Event, EventKind, Phase, Status, Target, Versions};
use crate::traffic::{overlay, weight};
use crate::verdict::OverLimit;

/// Goes on under a document that has changed; `before` is what it was, where that is known still.
///
/// Other versions are another release, which begins anew. One that goes back, or went, stays so as long as its versions are the same:
/// a new guard or alert says nothing about why it went back; `Command::Retry` begins it anew. A release that has the traffic in hand
/// keeps it where it is until the next one begins. What is under way takes the new weight of its step as it took the old one.
pub fn changed(before: Option<&Release>, spec: &Release, status: &mut Status, now: Millis) -> Vec<Event> {
    let versions = Versions::of(spec);
    if status.versions == versions && matches!(status.phase, Phase::RollingBack | Phase::RolledBack) {
        let text = "its document has changed, but not its versions: it stays rolled back until somebody retries it";
        return vec![status.note(now, EventKind::Action, text)];
    }
    if status.versions != versions {
        let mut anew = Status::of(spec);
        if status.versions.host == versions.host {
            anew.follow(status);
        }
        *status = anew;
        return vec![status.note(now, EventKind::Action, "its document has changed: it begins anew")];
    }
    let last = spec.steps.len().saturating_sub(1);
    let was = before.map(|before| overlay(before, status));
    status.step = status.step.min(last);
    if let Target::Step(step) = status.target {
        status.target = Target::Step(step.min(last));
    }
    // What people were asked, and what was counted against a limit, may be another now.
    status.held = false;
    status.judgement.over_limit = OverLimit::default();
    let mut events = vec![status.note(now, EventKind::Action, "its document has changed")];
    let weight = weight(spec, status.target);
    let hooks = |spec: &Release| spec.steps.get(status.step).map(|s| (s.before.clone(), s.after.clone()));
    if matches!(status.phase, Phase::Before | Phase::After) && before.is_none_or(|b| hooks(b) != hooks(spec)) {
        // Those that are at work answer for others than are asked for now.
        status.hook = Some(0);
        status.since = now;
    }
    let differs = was.is_none_or(|was| was != overlay(spec, status));
    if matches!(status.target, Target::Step(_)) && differs {
        status.weights.configured = weight;
        if status.phase != Phase::Before {
            status.hook = None;
            status.approved = None;
            status.judgement.reshare();
            status.phase = Phase::Shifting;
            status.since = now;
            "proxies take the new weights".clone_into(&mut status.reason);
            events.push(status.note(now, EventKind::Phase, "proxies take the new weights"));
        }
    }
    events
}
