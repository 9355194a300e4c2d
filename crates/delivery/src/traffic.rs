//! The changes that a release makes to routes.

use serin_model::{HttpMatch, Overlay, Release, Share};

use crate::status::{Status, Target};

/// Returns the release's current changes to routes; `None` leaves the documents alone.
#[must_use]
pub fn overlay(spec: &Release, status: &Status) -> Option<Overlay> {
    let (weight, cohorts, mirror) = traffic(spec, status.target)?;
    Some(Overlay {
        release: spec.name.clone(),
        stable: status.holder.as_ref().unwrap_or(&spec.stable).clone(),
        former: status.former.iter().chain(&status.inherited).cloned().collect(),
        candidate: spec.candidate.clone(),
        baseline: spec.baseline.clone().filter(|_| has_baseline(weight)),
        weight,
        cohorts,
        mirror,
        stickiness: spec.stickiness.clone(),
        salt: status.salt.clone(),
    })
}

/// The candidate's weight, its cohorts, and the share that is mirrored to it.
pub(crate) fn traffic(spec: &Release, target: Target) -> Option<(Share, Vec<HttpMatch>, Share)> {
    match target {
        Target::Documents => None,
        Target::Stable => Some((Share::NONE, Vec::new(), Share::NONE)),
        Target::Candidate => Some((Share::ALL, Vec::new(), Share::NONE)),
        Target::Step(step) => {
            let until = spec.steps.get(..=step).unwrap_or(&spec.steps);
            let weight = until.iter().rev().find_map(|s| s.weight).unwrap_or(Share::NONE);
            let cohorts = until.iter().rev().find_map(|s| s.cohorts.clone()).unwrap_or_default();
            let mirror = until.last().and_then(|s| s.mirror).unwrap_or(Share::NONE);
            Some((weight, cohorts, mirror))
        }
    }
}

/// Returns true when a baseline gets traffic beside a candidate of that weight: it gets as much, so there must be enough.
pub(crate) fn has_baseline(weight: Share) -> bool {
    weight.parts() <= 500_000
}

/// The candidate's weight in per cent.
pub(crate) fn weight(spec: &Release, target: Target) -> f64 {
    traffic(spec, target).map_or(0.0, |(weight, ..)| weight.percent())
}
