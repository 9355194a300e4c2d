//! Load reports of this proxy: the differences of counters since the last report.
//!
//! An endpoint's numbers belong to the endpoint object: they go on when a push changes everything else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use serin_resources::cluster::Discovery;
use serin_telemetry::Distribution;
use serin_xds::load::{Load, Measure, Named, Part};

use crate::discovery::SharedStore;
use crate::metric;
use crate::runtime::{ClusterEndpoint, ClusterRuntime};
use crate::state::State;

/// The counts of an endpoint at the last report.
#[derive(Debug, Default)]
struct Told {
    issued: u64,
    succeeded: u64,
    failed: u64,
    first_failed: u64,
    answers: BTreeMap<u32, u64>,
    times: Distribution,
}

/// The loads of all clusters.
pub(crate) struct Loads {
    store: SharedStore,
    state: State,
    /// By the endpoint's number.
    told: HashMap<u64, Told>,
    /// The clusters that were asked for last; `None` is all.
    asked: Option<HashSet<String>>,
}

impl Loads {
    pub(crate) fn new(store: SharedStore, state: State) -> Self {
        Self { store, state, told: HashMap::new(), asked: None }
    }

    fn clusters(&self) -> Vec<Arc<ClusterRuntime>> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.clusters_in_use().cloned().collect()
    }
}

impl Measure for Loads {
    fn begin(&mut self) {
        self.state.report_loads();
        // What came between two servers is told to the second; what came before the first is nobody's.
        if self.told.is_empty() {
            self.loads(None);
        }
    }

    fn loads(&mut self, names: Option<&[String]>) -> Vec<Load> {
        let clusters = self.clusters();
        let present: HashSet<u64> = clusters.iter().flat_map(|c| c.members.iter().map(|m| m.host.id)).collect();
        self.told.retain(|id, _| present.contains(id));
        let wanted = clusters.iter().filter(|c| names.is_none_or(|names| names.contains(&c.config.name)));
        let mut loads = Vec::new();
        let before = std::mem::replace(&mut self.asked, names.map(|names| names.iter().cloned().collect()));
        for cluster in wanted {
            let parts: Vec<Part> = cluster
                .members
                .iter()
                .filter_map(|member| part(member, self.told.entry(member.host.id).or_default()))
                .collect();
            // What was sent to a cluster before anybody asked for it is nobody's.
            let is_new = before.as_ref().is_some_and(|before| !before.contains(&cluster.config.name));
            if !parts.is_empty() && !is_new {
                loads.push(Load {
                    cluster: cluster.config.name.clone(),
                    service: service(cluster),
                    parts,
                    ..Load::default()
                });
            }
        }
        loads
    }
}

/// The name under which a cluster's endpoints are discovered.
fn service(cluster: &ClusterRuntime) -> String {
    match &cluster.config.discovery {
        Discovery::Eds(name) => name.clone(),
        _ => String::new(),
    }
}

/// The difference of an endpoint since the last report; `None` when there is none.
fn part(member: &ClusterEndpoint, told: &mut Told) -> Option<Part> {
    let stats = &member.host.stats;
    let new = |index: usize, told: &mut u64| {
        let now = stats.get(index);
        now - std::mem::replace(told, now).min(now)
    };
    let mut part = Part {
        address: Some(member.host.address),
        locality: member.endpoint.locality.clone(),
        priority: member.endpoint.priority,
        issued: new(metric::host::RQ_TOTAL, &mut told.issued),
        succeeded: new(metric::host::RQ_SUCCESS, &mut told.succeeded),
        failed: new(metric::host::RQ_ERROR, &mut told.failed),
        active: stats.get(metric::host::RQ_ACTIVE),
        named: Vec::new(),
    };
    if let Some(first) = member.host.first_attempts() {
        let times = first.times.read();
        let failed = first.failed.get(0);
        let fresh = times.since(&told.times);
        let count = fresh.count();
        if count > 0 {
            let total = (failed - told.first_failed.min(failed)) as f64;
            part.named.push(Named { name: "first_attempts".to_owned(), count, total });
            part.named.extend(fresh.coarse().map(|(bound, count, total)| Named {
                name: format!("first_attempt_ms_le_{bound}"),
                count,
                total,
            }));
        }
        let answers = first.answers();
        let fresh = |(key, count): (&u32, &u64)| {
            let count = count.saturating_sub(told.answers.get(key).copied().unwrap_or(0));
            (count > 0).then(|| Named { name: format!("first_attempt_answer_{key}"), count, total: 0.0 })
        };
        part.named.extend(answers.iter().filter_map(fresh));
        told.answers = answers;
        told.times = times;
        told.first_failed = failed;
    }
    let quiet = part.issued + part.succeeded + part.failed + part.active == 0 && part.named.is_empty();
    (!quiet).then_some(part)
}
