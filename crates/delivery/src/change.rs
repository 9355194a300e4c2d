//! Documents that change while their release is under way, or after it.

use serin_model::Release;

use crate::Millis;
use crate::status::{Event, EventKind, Phase, Status, Target, Versions};
use crate::traffic::{overlay, weight};

/// Goes on under a document that has changed; `before` is what it was, where that is known still.
///
/// Other versions are another release, which begins anew, and so does one that was rolled back. A release that has the traffic
/// in hand keeps it there: until the next one begins, all of it goes to its stable version. What is under way takes the new
/// weight of its step as it took the old one.
pub fn changed(before: Option<&Release>, spec: &Release, status: &mut Status, now: Millis) -> Vec<Event> {
    let versions = Versions::of(spec);
    if status.versions != versions || status.phase == Phase::RolledBack {
        *status = anew(status, spec);
        return vec![status.note(now, EventKind::Action, "its document has changed: it begins anew")];
    }
    let last = spec.steps.len().saturating_sub(1);
    let was = before.map(|before| overlay(before, status));
    status.step = status.step.min(last);
    if let Target::Step(step) = status.target {
        status.target = Target::Step(step.min(last));
    }
    let mut events = vec![status.note(now, EventKind::Action, "its document has changed")];
    let weight = weight(spec, status.target);
    let differs = was.is_some_and(|was| was != overlay(spec, status)) || status.weights.configured != weight;
    if matches!(status.target, Target::Step(_)) && differs {
        status.weights.configured = weight;
        if status.phase != Phase::Before {
            status.hook = None;
            status.phase = Phase::Shifting;
            status.since = now;
            "proxies take the new weights".clone_into(&mut status.reason);
            events.push(status.note(now, EventKind::Phase, "proxies take the new weights"));
        }
    }
    events
}

/// The status of a release that follows another.
fn anew(before: &Status, spec: &Release) -> Status {
    let status = Status::of(spec);
    if before.target == Target::Documents || before.versions.host != status.versions.host {
        return status;
    }
    let mut former = before.former.clone();
    if before.target == Target::Candidate {
        former.push(before.versions.stable.clone());
    }
    former.retain(|labels| *labels != spec.stable);
    former.dedup();
    Status { target: Target::Stable, started: before.started, former, ..status }
}
