//! Who is of which version, and what was reported of each: sums that only grow.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serin_delivery::{Arm, Evidence};
use serin_model::{Labels, MeshSnapshot, ObjectName, Release, selects};

use crate::fleet::Fleet;
use crate::loads::LoadDelta;

/// How long instances that are gone are known still: reports about them may be under way.
const GONE: Duration = Duration::from_secs(60);

/// Instances of a release that are told apart at most.
const INSTANCES: usize = 1000;

/// Who calls, by node, in a mesh.
pub(super) struct Callers<'a> {
    pub(super) mesh: &'a MeshSnapshot,
    pub(super) by_node: HashMap<String, Caller>,
}

/// The workload whose proxy reports.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) namespace: String,
    pub(super) labels: Labels,
}

/// All that was reported of releases since this pilot began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Labels of instances, those that are gone too: their requests count still.
    known: HashMap<SocketAddr, (Labels, Instant)>,
    totals: BTreeMap<ObjectName, Totals>,
}

#[derive(Debug, Clone, Default)]
struct Totals {
    stable: Arm,
    baseline: Arm,
    candidate: Arm,
    instances: BTreeMap<String, Arm>,
    /// Requests of the candidate's instances that failed, by the release whose candidate they went to.
    failed_calls: BTreeMap<ObjectName, u64>,
}

impl Tally {
    /// Forgets a release.
    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.totals.remove(name);
    }

    /// Remembers which instance has which labels.
    pub(super) fn learn<'a>(&mut self, specs: impl Iterator<Item = &'a Release>, mesh: &MeshSnapshot) {
        let now = Instant::now();
        self.known.retain(|_, (_, seen)| now - *seen < GONE);
        for spec in specs {
            let Some(service) = mesh.service(&spec.host) else { continue };
            for endpoint in mesh.instances(&spec.host) {
                for port in service.ports.iter().filter_map(|p| endpoint.port(p)) {
                    if let Ok(ip) = endpoint.address.parse() {
                        self.known.insert(SocketAddr::new(ip, port), (endpoint.labels.clone(), now));
                    }
                }
            }
        }
    }

    /// Adds what was reported to a release that it is about.
    pub(super) fn gather(&mut self, spec: &Release, news: &LoadDelta, mesh: &MeshSnapshot) {
        let Self { known, totals } = self;
        let totals = totals.entry(spec.name.clone()).or_default();
        let is_ours = |cluster: &str| outbound(cluster).is_some_and(|(_, at)| at == spec.host.as_str());
        if !news.requests.keys().any(|way| is_ours(&way.cluster)) && !news.times.keys().any(|cluster| is_ours(cluster))
        {
            return;
        }
        // Where the candidate cannot be asked, the stable version is not compared with it.
        let kept = lacking_subsets(mesh, spec, &spec.candidate);
        let is_kept = |subset: &str| {
            kept.iter().any(|name| subset.strip_prefix("release-stable-").unwrap_or(subset) == name.as_str())
        };
        for (way, arm) in &news.requests {
            let Some((subset, _)) = outbound(&way.cluster).filter(|(_, at)| *at == spec.host.as_str()) else {
                continue;
            };
            if is_kept(subset) {
                continue;
            }
            // gRPC clients tell no endpoints apart, and names have addresses that nobody registered: there the cluster
            // says which version it was.
            let labels = way.endpoint.and_then(|address| known.get(&address)).map(|(labels, _)| labels.clone());
            let Some(labels) = labels.or_else(|| labels_of(mesh, spec, subset)) else { continue };
            let Some(version) = totals.of(spec, |version| selects(version, &labels)) else { continue };
            version.add(arm);
            if let Some(address) = way.endpoint.filter(|_| selects(&spec.candidate, &labels)) {
                totals.instances.entry(address.to_string()).or_default().add(arm);
            }
        }
        if totals.instances.len() > INSTANCES {
            totals.instances.retain(|address, _| address.parse().is_ok_and(|address| known.contains_key(&address)));
        }
        for (cluster, arm) in &news.times {
            let Some((subset, _)) = outbound(cluster).filter(|(_, at)| *at == spec.host.as_str()) else { continue };
            if is_kept(subset) {
                continue;
            }
            let Some(labels) = labels_of(mesh, spec, subset) else { continue };
            if let Some(version) = totals.of(spec, |version| selects(version, &labels)) {
                version.add(arm);
            }
        }
    }

    /// Remembers which failures of a release's candidate are those of another release's candidate, which it calls.
    pub(super) fn trace(&mut self, spec: &Release, others: &[&Release], news: &LoadDelta, callers: &Callers<'_>) {
        let Callers { mesh, by_node } = callers;
        let Some(service) = mesh.service(&spec.host) else { return };
        let is_ours = |caller: &Caller| {
            caller.namespace == service.namespace
                && selects(&spec.candidate, &caller.labels)
                && service.selector.as_ref().is_none_or(|s| selects(s, &caller.labels))
        };
        let Self { known, totals } = self;
        let totals = totals.entry(spec.name.clone()).or_default();
        for (way, arm) in news.requests.iter().filter(|(_, arm)| arm.failed > 0) {
            if !by_node.get(&way.node).is_some_and(is_ours) {
                continue;
            }
            let Some((subset, host)) = outbound(&way.cluster) else { continue };
            for other in others.iter().filter(|o| o.host.as_str() == host && o.name != spec.name) {
                let labels = way.endpoint.and_then(|address| known.get(&address)).map(|(labels, _)| labels.clone());
                let labels = labels.or_else(|| labels_of(mesh, other, subset));
                if labels.is_some_and(|labels| selects(&other.candidate, &labels)) {
                    *totals.failed_calls.entry(other.name.clone()).or_default() += arm.failed;
                }
            }
        }
    }

    /// What is known of a release now.
    pub(super) fn evidence(&self, spec: &Release, mesh: &MeshSnapshot, fleet: &Fleet) -> Evidence {
        let Totals { stable, baseline, candidate, instances, failed_calls } =
            self.totals.get(&spec.name).cloned().unwrap_or_default();
        let counted = |mut arm: Arm| {
            arm.count_failures(&spec.analysis.failures);
            arm
        };
        let (stable, baseline, candidate) = (counted(stable), counted(baseline), counted(candidate));
        let instances = instances.into_iter().map(|(address, arm)| (address, counted(arm))).collect();
        Evidence {
            failed_calls: failed_calls.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
            kept: lacking_subsets(mesh, spec, &spec.candidate),
            without_stable: lacking_subsets(mesh, spec, &spec.stable),
            stable,
            baseline,
            candidate,
            instances,
            applied: fleet.applied(),
            stable_ready: ready(mesh, spec, &spec.stable),
            candidate_ready: ready(mesh, spec, &spec.candidate),
            baseline_ready: spec.baseline.as_ref().map_or(0, |labels| ready(mesh, spec, labels)),
            ..Evidence::default()
        }
    }
}

/// Subsets of rules that are of the release and of which a version has no ready instance.
fn lacking_subsets(mesh: &MeshSnapshot, spec: &Release, version: &Labels) -> Vec<String> {
    let Some(overlay) = mesh.overlay(&spec.host) else { return Vec::new() };
    let mut kept = Vec::new();
    let rules = mesh.backend_policies().filter(|r| r.host.covers(&spec.host));
    for subset in rules.flat_map(|r| &r.subsets) {
        let Some(labels) = overlay.in_version(&subset.labels, version) else { continue };
        let narrower = labels != *version;
        let has = mesh.instances(&spec.host).iter().any(|e| e.ready && selects(&labels, &e.labels));
        if narrower && !has && !kept.contains(&subset.name) {
            kept.push(subset.name.clone());
        }
    }
    kept
}

impl Totals {
    /// The version that is meant.
    fn of(&mut self, spec: &Release, is: impl Fn(&Labels) -> bool) -> Option<&mut Arm> {
        match spec {
            _ if is(&spec.candidate) => Some(&mut self.candidate),
            _ if spec.baseline.as_ref().is_some_and(&is) => Some(&mut self.baseline),
            _ if is(&spec.stable) => Some(&mut self.stable),
            _ => None,
        }
    }
}

/// How many instances of a version are ready.
pub(super) fn ready(mesh: &MeshSnapshot, spec: &Release, labels: &Labels) -> usize {
    mesh.instances(&spec.host).iter().filter(|e| e.ready && selects(labels, &e.labels)).count()
}

/// Subset and host of an outbound cluster, from its name.
fn outbound(cluster: &str) -> Option<(&str, &str)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|').skip(1);
    Some((parts.next()?, parts.next()?))
}

/// The labels of a subset: of a rule, or one that the release made.
fn labels_of(mesh: &MeshSnapshot, spec: &Release, subset: &str) -> Option<Labels> {
    match subset {
        // Behind it may stand the name of a rule's subset, whose other labels say nothing of the version.
        name if name.starts_with("release-stable") => Some(spec.stable.clone()),
        name if name.starts_with("release-candidate") => Some(spec.candidate.clone()),
        name if name.starts_with("release-baseline") => spec.baseline.clone(),
        name => {
            let rules = mesh.backend_policies().filter(|r| r.host.covers(&spec.host));
            rules.flat_map(|r| &r.subsets).find(|s| s.name == name).map(|s| s.labels.clone())
        }
    }
}
