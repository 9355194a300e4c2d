//! Live state that outlives configuration: endpoints and clusters keep their counts when a push changes everything else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serin_resources::cluster::{Breakers, Cluster};
use serin_resources::endpoint::{Endpoint, Health};
use serin_telemetry::istio::Tally;
use serin_telemetry::{Counters, Histogram};
use serin_traffic::balance::{self, Balance, EndpointLoad, LbContext, LbInput, Member, Zones};
use serin_traffic::outcome::Outcome;
use serin_traffic::outlier::{self, Cause};
use serin_traffic::{explain, hash};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::handshake::Agreed;
use crate::metric;
use crate::tls::ClientSlot;

mod host;
mod permit;

pub(crate) use host::{Host, answer_key};
pub(crate) use permit::{Flight, Permit};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host that misbehaved, to be judged by the main thread.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) cluster: String,
    pub(crate) host: u64,
    pub(crate) cause: Cause,
}

/// A host with what configuration says of it.
#[derive(Debug, Clone)]
pub(crate) struct ClusterEndpoint {
    pub(crate) host: Arc<Host>,
    pub(crate) endpoint: Endpoint,
    /// Requests to it, in a mesh.
    pub(crate) tally: Option<Arc<Tally>>,
    /// Its TLS; `None` is plain text.
    pub(crate) tls: Option<Arc<ClientSlot>>,
}

impl ClusterEndpoint {
    /// The health by which it gets requests.
    pub(crate) fn health_state(&self) -> balance::HealthState {
        let host = &self.host.health;
        if !self.endpoint.health.is_usable() || host.is_ejected() || host.is_unfit() {
            balance::HealthState::Bad
        } else if self.endpoint.health == Health::Degraded || host.is_degraded() {
            balance::HealthState::Degraded
        } else {
            balance::HealthState::Healthy
        }
    }

    fn member(&self, hostnames: bool) -> Member {
        let endpoint = &self.endpoint;
        let key = match endpoint.metadata.get("hash_key") {
            Some(key) => key.clone(),
            None if hostnames => endpoint.hostname.clone(),
            None => self.host.address.to_string(),
        };
        Member {
            key,
            weight: endpoint.weight,
            priority: endpoint.priority,
            locality: endpoint.locality.clone(),
            locality_weight: endpoint.locality_weight.unwrap_or(0),
            health: self.health_state(),
            metadata: endpoint.metadata.clone(),
        }
    }
}

/// Numbers of responses, by status from 100 on.
type Codes = Box<[AtomicU64; 500]>;

/// Counts of a cluster that survive its reconfiguration.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) id: u64,
    pub(crate) stats: Counters,
    /// The times of requests.
    pub(crate) times: Histogram,
    /// The requests and connections in flight, of normal and of high priority, counted only where there is a limit.
    pub(crate) flight: [Flight; 2],
    /// Responses by status, by worker: made when there is the first.
    codes: Vec<OnceLock<Codes>>,
    /// Handshakes by what was agreed on.
    pub(crate) agreed: Agreed,
    /// Told when a connection became free or ended, while requests wait for one.
    pub(crate) freed: Notify,
    suspects: UnboundedSender<Suspect>,
}

impl ClusterState {
    pub(crate) fn new(workers: usize, suspects: UnboundedSender<Suspect>) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            stats: Counters::new(metric::cluster::NAMES, workers),
            times: Histogram::new(workers),
            flight: Default::default(),
            codes: (0..workers).map(|_| OnceLock::new()).collect(),
            agreed: Agreed::default(),
            freed: Notify::new(),
            suspects,
        }
    }

    /// Counts a response by its status.
    pub(crate) fn count_code(&self, worker: usize, status: u16) {
        let Some(codes) = self.codes.get(worker) else { return };
        let codes = codes.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 500]));
        if let Some(count) = usize::from(status).checked_sub(100).and_then(|at| codes.get(at)) {
            // Only this worker writes it.
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Responses by status.
    pub(crate) fn codes(&self) -> BTreeMap<u16, u64> {
        let mut all = BTreeMap::new();
        for codes in self.codes.iter().filter_map(OnceLock::get) {
            for (status, count) in (100..).zip(codes.iter()) {
                let count = count.load(Relaxed);
                if count > 0 {
                    *all.entry(status).or_default() += count;
                }
            }
        }
        all
    }

    /// Requests of normal priority that wait for a connection.
    pub(crate) fn waiting(&self) -> u32 {
        self.flight.iter().map(Flight::pending).sum()
    }
}

/// A cluster as workers use it.
#[derive(Debug)]
pub(crate) struct ClusterRuntime {
    pub(crate) config: Cluster,
    pub(crate) state: Arc<ClusterState>,
    /// The pattern of every hash policy of its own that has one.
    pub(crate) hash_patterns: Vec<Option<regex::bytes::Regex>>,
    /// Every endpoint.
    pub(crate) members: Vec<ClusterEndpoint>,
    /// The TLS of its matches, in their order, and that of all other endpoints.
    pub(crate) tls: Vec<Option<Arc<ClientSlot>>>,
    /// Requests that found no endpoint, in a mesh.
    pub(crate) tally: Option<Arc<Tally>>,
    balance: Balance,
    /// Tells the balance, and the weights that count in it, from those before.
    balance_id: AtomicU64,
}

impl EndpointLoad for ClusterRuntime {
    fn active(&self, member: usize) -> u64 {
        self.members.get(member).map_or(0, |m| m.host.stats.get(metric::host::RQ_ACTIVE))
    }

    fn all_active(&self) -> u64 {
        self.state.stats.get(metric::cluster::RQ_ACTIVE)
    }

    fn share(&self, member: usize) -> f64 {
        match (&self.config.slow_start, self.members.get(member)) {
            (Some(slow), Some(member)) => slow.share(member.host.health.fit_for()),
            _ => 1.0,
        }
    }

    fn reported(&self, member: usize) -> Option<f64> {
        self.config.reported.as_ref()?;
        self.members.get(member)?.host.weight()
    }
}

/// The endpoints of a cluster, with their live state.
pub(crate) struct Endpoints {
    pub(crate) members: Vec<ClusterEndpoint>,
    /// The over-provisioning of priorities and localities, 140 for 1.4.
    pub(crate) overprovisioning: u32,
}

impl ClusterRuntime {
    pub(crate) fn new(
        config: Cluster,
        state: Arc<ClusterState>,
        endpoints: Endpoints,
        tally: Option<Arc<Tally>>,
        zones: &Zones,
    ) -> Self {
        let Endpoints { members, overprovisioning } = endpoints;
        let list: Vec<Member> = members.iter().map(|m| m.member(config.hash_hostnames)).collect();
        let balance = Balance::new(&config, overprovisioning, &list, zones);
        let hash_patterns = hash::patterns(&config.hash);
        let balance_id = NEXT_ID.fetch_add(1, Relaxed).into();
        Self { config, state, hash_patterns, members, tls: Vec::new(), tally, balance, balance_id }
    }

    /// The number of an endpoint for a request.
    pub(crate) fn pick(
        &self,
        state: &mut balance::State,
        context: &LbContext<'_>,
        load: &impl EndpointLoad,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        self.balance.pick(self.balance_id.load(Relaxed), state, &LbInput { context, load }, random)
    }

    /// Lets what backends report count from now on; who reports nothing (yet) gets the middle of the others' weights.
    pub(crate) fn weigh(&self) {
        let Some(config) = &self.config.reported else { return };
        let proven: Vec<Option<f64>> = self.members.iter().map(|m| m.host.proven(config)).collect();
        let mut known: Vec<f64> = proven.iter().flatten().copied().collect();
        known.sort_by(f64::total_cmp);
        let middle = known.get(known.len() / 2).copied();
        self.members.iter().zip(proven).for_each(|(member, weight)| member.host.weigh(weight.or(middle)));
        // A schedule by other weights says nothing about these.
        self.balance_id.store(NEXT_ID.fetch_add(1, Relaxed), Relaxed);
    }

    /// The reason why an endpoint gets no requests; `None` when it does.
    pub(crate) fn left_out(&self, member: &ClusterEndpoint) -> Option<&'static str> {
        explain::left_out(&member.member(self.config.hash_hostnames), self.balance.priorities())
    }

    fn breakers(&self, high: bool) -> &Breakers {
        let [normal, other] = &self.config.breakers;
        if high { other } else { normal }
    }

    /// A place among the requests in flight.
    pub(crate) fn permit_request(&self, high: bool) -> Option<Permit> {
        Permit::take(&self.state, high, |f| &f.requests, self.breakers(high).requests)
    }

    /// A place among the requests that wait for a connection.
    pub(crate) fn permit_pending(&self, high: bool) -> Option<Permit> {
        Permit::take(&self.state, high, |f| &f.pending, self.breakers(high).pending)
    }

    /// A place among the connections.
    pub(crate) fn permit_connection(&self, high: bool) -> Option<Permit> {
        Permit::take(&self.state, high, |f| &f.connections, self.breakers(high).connections)
    }

    /// A place among the retries in flight.
    pub(crate) fn permit_retry(&self, high: bool) -> Option<Permit> {
        let breakers = self.breakers(high);
        let most = match breakers.budget {
            Some(budget) => Some(budget.limit(self.state.stats.get(metric::cluster::RQ_ACTIVE))),
            None => breakers.retries,
        };
        Permit::take(&self.state, high, |f| &f.retries, most)
    }

    pub(crate) fn healthy(&self) -> usize {
        self.members.iter().filter(|m| m.health_state() != balance::HealthState::Bad).count()
    }

    /// Takes note of how an attempt ended, for outlier detection.
    pub(crate) fn note(&self, host: &Host, outcome: Outcome) {
        let (Some(config), Some(verdict)) = (&self.config.outlier, outlier::verdict(outcome)) else { return };
        if let Some(cause) = host.health.note(config, verdict) {
            let suspect = Suspect { cluster: self.config.name.clone(), host: host.id, cause };
            // The main thread is there as long as requests are.
            let _ = self.state.suspects.send(suspect);
        }
    }
}
