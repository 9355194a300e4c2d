//! Ejects endpoints that misbehave and takes them back. Workers say whom they suspect; here, in one place, it is decided.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serin_resources::outlier::OutlierDetection;
use serin_traffic::outlier::{Bucket, Cause, compare, ejection_time, may_eject};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{SharedStore, Store};
use crate::metric::{cluster as counter, host};
use crate::runtime::{ClusterRuntime, ClusterState, Host, Suspect, locked};

/// How finely intervals and ejection times are kept.
const TICK: Duration = Duration::from_millis(100);

/// Judges suspects as they come and every cluster after its interval, for as long as the process lives.
pub(crate) async fn watch(store: SharedStore, mut suspects: UnboundedReceiver<Suspect>) {
    let mut clock = Clock::default();
    // One for all rounds: suspects that come faster than it ticks must not hold it up.
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            suspect = suspects.recv() => {
                let Some(suspect) = suspect else { return };
                store.lock().unwrap_or_else(PoisonError::into_inner).judge(&suspect);
            }
            _ = ticks.tick() => {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                for cluster in clock.due(&store, Instant::now()) {
                    store.end_interval(&cluster);
                }
            }
        }
    }
}

/// Which cluster's interval ends when.
#[derive(Default)]
struct Clock {
    generation: u64,
    ends: HashMap<String, Instant>,
    order: BTreeSet<(Instant, String)>,
}

impl Clock {
    /// Clusters whose interval has ended; it begins anew.
    fn due(&mut self, store: &Store, now: Instant) -> Vec<String> {
        let interval = |name: &str| Some(store.built_clusters.get(name)?.config.outlier.as_ref()?.interval);
        if self.generation != store.generation {
            self.generation = store.generation;
            for name in
                store.built_clusters.keys().filter(|name| !self.ends.contains_key(*name)).cloned().collect::<Vec<_>>()
            {
                if let Some(interval) = interval(&name) {
                    self.begin(name, now + interval);
                }
            }
        }
        let mut due = Vec::new();
        while let Some((_, name)) = self.order.first().filter(|(end, _)| *end <= now).cloned() {
            self.order.pop_first();
            self.ends.remove(&name);
            if let Some(interval) = interval(&name) {
                self.begin(name.clone(), now + interval);
                due.push(name);
            }
        }
        due
    }

    fn begin(&mut self, name: String, end: Instant) {
        self.ends.insert(name.clone(), end);
        self.order.insert((end, name));
    }
}

impl Store {
    /// Ejects a suspect, unless too many are ejected or chance spares it.
    fn judge(&mut self, suspect: &Suspect) {
        let Some(cluster) = self.built_clusters.get(&suspect.cluster).cloned() else { return };
        let Some(config) = cluster.config.outlier else { return };
        let Some(member) = cluster.members.iter().find(|m| m.host.id == suspect.host) else { return };
        if eject(&cluster, &config, &member.host, suspect.cause) {
            self.rebuild_cluster(&suspect.cluster);
            self.publish();
        }
    }

    /// Takes back whose time is over, and compares the others.
    fn end_interval(&mut self, name: &str) {
        let Some(cluster) = self.built_clusters.get(name).cloned() else { return };
        let Some(config) = cluster.config.outlier else { return };
        let now = Instant::now();
        let mut changed = false;
        for member in &cluster.members {
            let health = &member.host.health;
            let mut record = locked(&health.ejection);
            match record.until {
                Some(until) if until <= now => {
                    record.until = None;
                    health.set_ejected(false);
                    cluster.state.stats.sub(0, counter::EJECTIONS_ACTIVE);
                    tracing::info!(cluster = name, address = %member.host.address, "endpoint taken back");
                    changed = true;
                }
                Some(_) => {}
                None => record.times = record.times.saturating_sub(1),
            }
        }
        let buckets: Vec<Bucket> = cluster.members.iter().map(|m| bucket(&m.host)).collect();
        for (place, cause) in compare(&config, &buckets) {
            if let Some(member) = cluster.members.get(place) {
                changed |= eject(&cluster, &config, &member.host, cause);
            }
        }
        if changed {
            self.rebuild_cluster(name);
            self.publish();
        }
    }
}

/// Takes a host back at once: nobody judges it any more, or it is gone.
pub(super) fn pardon(state: &ClusterState, host: &Host) {
    if locked(&host.health.ejection).until.take().is_some() {
        host.health.set_ejected(false);
        state.stats.sub(0, counter::EJECTIONS_ACTIVE);
    }
}

/// What an endpoint did since this was asked last; nothing for one that is ejected.
fn bucket(host_: &Host) -> Bucket {
    let good = host_.stats.get(host::RQ_SUCCESS);
    let now = Bucket { total: good + host_.stats.get(host::RQ_ERROR), good };
    let before = std::mem::replace(&mut locked(&host_.health.ejection).before, now);
    if host_.health.is_ejected() {
        return Bucket::default();
    }
    Bucket { total: now.total.saturating_sub(before.total), good: now.good.saturating_sub(before.good) }
}

/// True when the endpoint is ejected now and was not before.
fn eject(cluster: &Arc<ClusterRuntime>, config: &OutlierDetection, host: &Host, cause: Cause) -> bool {
    if host.health.is_ejected() {
        return false;
    }
    let stats = &cluster.state.stats;
    let (detected, enforced) = counters(cause);
    stats.add(0, detected, 1);
    if fastrand::u32(..100) >= cause.enforced(config) {
        return false;
    }
    let ejected = cluster.members.iter().filter(|m| m.host.health.is_ejected()).count();
    if !may_eject(config, ejected, cluster.members.len()) {
        stats.add(0, counter::EJECTIONS_OVERFLOW, 1);
        return false;
    }
    let mut record = locked(&host.health.ejection);
    record.times += 1;
    let time = ejection_time(config, record.times) + config.jitter.mul_f64(fastrand::f64());
    record.until = Some(Instant::now() + time);
    host.health.set_ejected(true);
    stats.add(0, enforced, 1);
    stats.add(0, counter::EJECTIONS_ENFORCED, 1);
    stats.add(0, counter::EJECTIONS_ACTIVE, 1);
    let (name, address) = (&cluster.config.name, host.address);
    tracing::warn!(cluster = name, %address, ?cause, seconds = time.as_secs_f64(), "endpoint ejected");
    true
}

fn counters(cause: Cause) -> (usize, usize) {
    match cause {
        Cause::ServerErrors => (counter::DETECTED_5XX, counter::ENFORCED_5XX),
        Cause::GatewayFailures => (counter::DETECTED_GATEWAY, counter::ENFORCED_GATEWAY),
        Cause::LocalFailures => (counter::DETECTED_LOCAL, counter::ENFORCED_LOCAL),
        Cause::SuccessRate => (counter::DETECTED_RATE, counter::ENFORCED_RATE),
        Cause::FailurePercentage => (counter::DETECTED_PERCENTAGE, counter::ENFORCED_PERCENTAGE),
    }
}
