//! A plan, and a world in which it is played.

use std::time::Duration;

use serin_model::{Analysis, Bake, Hostname, Labels, ObjectName, Release, Share, Step, Supersede};

use super::*;
use crate::queries::Reading;

pub(super) fn spec(weights: &[f64]) -> Release {
    let labels = |v: &str| Labels::from([("version".to_owned(), v.to_owned())]);
    let bake = Bake { min: Duration::from_secs(10), max: Duration::from_secs(60) };
    let step = |w: &f64| Step { weight: Share::from_percent(*w), bake, ..Step::default() };
    Release {
        name: ObjectName { namespace: "default".to_owned(), name: "r".to_owned() },
        host: Hostname::parse("reviews.default.svc.cluster.local").unwrap(),
        stable: labels("v1"),
        candidate: labels("v3"),
        baseline: None,
        stickiness: None,
        steps: weights.iter().map(step).collect(),
        analysis: Analysis { error_rate: Some(0.05), warmup: Duration::from_secs(1), ..Analysis::default() },
        guard: Duration::from_secs(5),
        freezes: Vec::new(),
        waits_for_start: false,
        supersede: Supersede::Queue,
        train: None,
        alerts: Vec::new(),
        document: String::new(),
    }
}

/// A world in which requests come evenly and proxies confirm at once.
pub(super) struct World {
    pub(super) evidence: Evidence,
    pub(super) now: Millis,
    /// Share of requests that fail, of both versions.
    pub(super) failing: [f64; 2],
    /// Requests a second.
    pub(super) rate: f64,
    pub(super) rng: fastrand::Rng,
    pub(super) hook: Option<Result<(), String>>,
    /// The result of a query.
    pub(super) value: Result<f64, String>,
}

impl World {
    /// Ann says something of the release.
    pub(super) fn says(&self, spec: &Release, status: &mut Status, what: Command) -> Result<Vec<Event>, Error> {
        command(spec, status, &self.evidence, Said::new("ann", what), self.now)
    }

    pub(super) fn new(seed: u64) -> Self {
        let ready = Evidence {
            stable_ready: 2,
            candidate_ready: 2,
            applied: Applied { done: 3, of: 3, ..Applied::default() },
            ..Evidence::default()
        };
        Self {
            evidence: ready,
            now: 1_000_000,
            failing: [0.0, 0.0],
            rate: 200.0,
            rng: fastrand::Rng::with_seed(seed),
            hook: None,
            value: Ok(1.0),
        }
    }

    pub(super) fn requests(&mut self, share: f64, millis: u64) {
        for _ in 0..(self.rate * millis as f64 / 1000.0) as u64 {
            let candidate = self.rng.f64() < share;
            let failed = self.rng.f64() < self.failing[usize::from(candidate)];
            let arm = if candidate { &mut self.evidence.candidate } else { &mut self.evidence.stable };
            arm.requests += 1;
            arm.failed += u64::from(failed);
            *arm.times.entry(1000 + self.rng.u64(..20) * 500).or_default() += 1;
        }
    }

    /// Half a second goes by.
    pub(super) fn tick(&mut self, spec: &Release, status: &mut Status) -> Vec<Event> {
        let share = overlay(spec, status).map_or(0.0, |o| o.weight.percent() / 100.0);
        self.requests(share, 500);
        self.now += 500;
        self.evidence.calendar = self.now;
        let (mut events, actions) = advance(spec, status, &self.evidence, self.now);
        for action in &actions {
            let Action::Query { number } = action else { continue };
            let reading = Reading { at: self.now, value: self.value.clone() };
            self.evidence.readings.insert(spec.analysis.queries[*number].name.clone(), reading);
        }
        for action in &actions {
            let (Action::Hook(hook), Some(result)) = (*action, self.hook.clone()) else { continue };
            let says = Command::Hooked { hook, result };
            events.extend(command(spec, status, &self.evidence, Said::new("hook", says), self.now).unwrap());
        }
        let (weight, weights) = (overlay(spec, status).map(|o| o.weight), status.weights);
        assert!((0.0..=100.0).contains(&weights.configured) && weights.applied <= 100.0);
        if let Some(weight) = weight {
            let planned = spec.steps.iter().filter_map(|s| s.weight).chain([Share::NONE, Share::ALL]);
            assert!(planned.into_iter().any(|w| w == weight), "{weight:?} is not in the plan");
        }
        events
    }

    pub(super) fn run(&mut self, spec: &Release, status: &mut Status, most: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..most {
            events.extend(self.tick(spec, status));
            if status.phase.is_final() || status.held {
                break;
            }
        }
        events
    }
}
