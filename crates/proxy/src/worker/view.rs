//! A worker's own view of the published snapshot.
//!
//! The snapshot is shared by all workers; counting references to it for every request would make them all write the
//! same cache lines. A view is the worker's own: it leads from a listener through its routes to clusters, endpoints and
//! their pools by plain pointers, with nothing to look up by name and nothing that another worker counts. It is made
//! piece by piece, when something is first used under a new snapshot.

use std::cell::{OnceCell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serin_resources::cluster::Balancer;
use serin_traffic::balance::{self, EndpointLoad};
use serin_traffic::outcome::Outcome;
use serin_traffic::router::RouteTable;

use super::Worker;
use crate::runtime::{ClusterRuntime, Host};
use crate::since_start;
use crate::snapshot::{ChainRuntime, Snapshot};
use crate::upstream::HostPool;

/// The least time that a failed attempt counts for.
const FAILED: Duration = Duration::from_secs(1);

/// A filter chain with its routes.
pub(crate) struct View {
    pub(crate) chain: Arc<ChainRuntime>,
    pub(crate) table: Arc<RouteTable>,
    /// The snapshot that it is a view of: a request that began under it finds its clusters, whatever is published meanwhile.
    snapshot: Arc<Snapshot>,
    /// By the table's own numbers.
    clusters: Box<[OnceCell<Option<Rc<LocalCluster>>>]>,
}

impl View {
    /// The view of the chain of that number, of a listener.
    pub(crate) fn new(snapshot: &Arc<Snapshot>, listener: &str, number: usize) -> Option<Self> {
        let (chain, table) = snapshot.listeners.get(listener)?.chains.get(number)?.clone();
        let clusters = table.clusters().iter().map(|_| OnceCell::new()).collect();
        Some(Self { chain, table, snapshot: snapshot.clone(), clusters })
    }

    /// The cluster of that number in the route table, if there is one of its name.
    pub(crate) fn cluster(&self, number: usize, worker: &Worker) -> Option<&Rc<LocalCluster>> {
        let name = self.table.clusters().get(number)?;
        self.clusters.get(number)?.get_or_init(|| worker.cluster(&self.snapshot, name)).as_ref()
    }

    /// A cluster by its name.
    pub(crate) fn named(&self, name: &str, worker: &Worker) -> Option<Rc<LocalCluster>> {
        worker.cluster(&self.snapshot, name)
    }
}

/// A cluster with this worker's own state for it.
pub(crate) struct LocalCluster {
    runtime: Arc<ClusterRuntime>,
    /// One for each of the cluster's endpoints.
    pub(crate) hosts: Box<[LocalHost]>,
    pub(crate) balancer: Rc<RefCell<balance::State>>,
}

/// An endpoint with this worker's connections to it.
pub(crate) struct LocalHost {
    pub(crate) host: Arc<Host>,
    pub(crate) pool: Rc<HostPool>,
}

impl LocalCluster {
    /// The part that all workers share.
    pub(crate) fn shared(&self) -> Arc<ClusterRuntime> {
        self.runtime.clone()
    }

    pub(crate) fn new(runtime: Arc<ClusterRuntime>, worker: &Worker) -> Self {
        let host = |host: &Arc<Host>| LocalHost { host: host.clone(), pool: worker.pools.borrow_mut().of(host.id) };
        let hosts = runtime.members.iter().map(|member| host(&member.host)).collect();
        let balancer = worker.balancers.borrow_mut().entry(runtime.state.id).or_default().clone();
        Self { runtime, hosts, balancer }
    }
}

impl EndpointLoad for LocalCluster {
    fn active(&self, member: usize) -> u64 {
        self.runtime.active(member)
    }

    fn all_active(&self) -> u64 {
        self.runtime.all_active()
    }

    fn share(&self, member: usize) -> f64 {
        self.runtime.share(member)
    }

    fn reported(&self, member: usize) -> Option<f64> {
        self.runtime.reported(member)
    }

    fn seconds(&self, member: usize) -> f64 {
        match (self.config.balancer, self.hosts.get(member)) {
            (Balancer::PeakEwma { decay }, Some(local)) => local.pool.peak.get().at(since_start(), decay),
            _ => 0.0,
        }
    }
}

impl LocalCluster {
    /// The time at which an attempt begins, where the cluster measures attempts.
    pub(crate) fn clock(&self) -> Option<Duration> {
        matches!(self.config.balancer, Balancer::PeakEwma { .. }).then(since_start)
    }

    /// Takes note of how long an endpoint took for an attempt that began then. To fail at once is not to be quick.
    pub(crate) fn took(&self, member: usize, began: Option<Duration>, outcome: Outcome) {
        let failed = match outcome {
            // It was not asked at all.
            Outcome::Overflow => return,
            Outcome::Response { status, .. } => status >= 500,
            _ => true,
        };
        let (Balancer::PeakEwma { decay }, Some(began)) = (self.config.balancer, began) else { return };
        let Some(local) = self.hosts.get(member) else { return };
        let now = since_start();
        let (peak, took) = (local.pool.peak.get(), now.saturating_sub(began));
        let took = if failed { took.max(FAILED) } else { took };
        local.pool.peak.set(peak.after(took, now, decay));
    }
}

impl Deref for LocalCluster {
    type Target = ClusterRuntime;

    fn deref(&self) -> &ClusterRuntime {
        &self.runtime
    }
}
