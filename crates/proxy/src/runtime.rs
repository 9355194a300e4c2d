//! EndpointLoad state that outlives configuration: endpoints and clusters keep their counts when a push changes everything else.

use serin_traffic::grpc::GrpcStatus;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serin_resources::cluster::{Breakers, Cluster, Reported};
use serin_resources::endpoint::{Endpoint, Health};
use serin_resources::orca::OrcaReport;
use serin_resources::outlier::OutlierDetection;
use serin_telemetry::istio::Tally;
use serin_telemetry::{Counters, Histogram};
use serin_traffic::balance::{self, Balance, EndpointLoad, LbContext, LbInput, Member, Zones};
use serin_traffic::outcome::Outcome;
use serin_traffic::outlier::{self, Bucket, Cause, Rows, Verdict};
use serin_traffic::{explain, hash};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::metric;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// An endpoint of a cluster: one object as long as the address stays in the cluster.
#[derive(Debug)]
pub(crate) struct Host {
    /// Unique in the process; pools are kept by it.
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) stats: Counters,
    pub(crate) health: EndpointHealth,
    /// Made when somebody wants to know.
    first_attempts: OnceLock<FirstAttempts>,
    /// What it reports of its load, where that counts.
    reports: OnceLock<Reports>,
    workers: usize,
}

/// What a host reports of its load.
#[derive(Debug, Default)]
struct Reports {
    /// The weight that counts now, as the bits of a number; 0 for none.
    weight: AtomicU64,
    newest: Mutex<Option<Newest>>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    weight: f64,
    /// Since when reports have come.
    since: Instant,
    at: Instant,
}

/// How requests went that were sent to a host first.
#[derive(Debug)]
pub(crate) struct FirstAttempts {
    pub(crate) failed: Counters,
    /// Those that were not answered with 2xx, by what they were answered with: an HTTP status, 1000 and a gRPC status, or 0 for no
    /// acceptable answer.
    answers: Mutex<BTreeMap<u32, u64>>,
    /// How long the requests took that were not sent again.
    pub(crate) times: Histogram,
}

impl Host {
    pub(crate) fn new(address: SocketAddr, workers: usize) -> Self {
        let stats = Counters::new(metric::host::NAMES, workers);
        let health = EndpointHealth { since: Mutex::new(Some(Instant::now())), ..EndpointHealth::default() };
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address,
            stats,
            health,
            first_attempts: OnceLock::new(),
            reports: OnceLock::new(),
            workers,
        }
    }

    /// Takes note of what it reports.
    pub(crate) fn reported(&self, config: &Reported, report: &OrcaReport) {
        let Some(weight) = report.weight(&config.metrics, f64::from(config.penalty) / 1000.0) else { return };
        let now = Instant::now();
        let mut newest = locked(&self.reports.get_or_init(Reports::default).newest);
        let fresh = newest.filter(|n| now.duration_since(n.at) < config.expiration);
        *newest = Some(Newest { weight, since: fresh.map_or(now, |n| n.since), at: now });
    }

    /// The weight that follows from its reports, if they have come long enough and still do.
    fn proven(&self, config: &Reported) -> Option<f64> {
        let newest = (*locked(&self.reports.get()?.newest))?;
        let counts = newest.since.elapsed() >= config.blackout && newest.at.elapsed() < config.expiration;
        counts.then_some(newest.weight)
    }

    fn weigh(&self, weight: Option<f64>) {
        if weight.is_some() || self.reports.get().is_some() {
            let weight = weight.map_or(0, f64::to_bits);
            self.reports.get_or_init(Reports::default).weight.store(weight, Relaxed);
        }
    }

    /// The weight that counts instead of the configured one.
    fn weight(&self) -> Option<f64> {
        let bits = self.reports.get()?.weight.load(Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    /// Counts a request that was sent here first.
    pub(crate) fn first_attempt(&self, worker: usize, took: Duration, answer: Option<u32>, failed: bool) {
        let new = || FirstAttempts {
            failed: Counters::new(&["failed"], self.workers),
            answers: Mutex::default(),
            times: Histogram::new(self.workers),
        };
        let attempts = self.first_attempts.get_or_init(new);
        attempts.times.record(worker, took);
        attempts.failed.add(worker, 0, u64::from(failed));
        if let Some(answer) = answer {
            *locked(&attempts.answers).entry(answer).or_default() += 1;
        }
    }

    /// How requests went that were sent here first.
    pub(crate) fn first_attempts(&self) -> Option<&FirstAttempts> {
        self.first_attempts.get()
    }
}

impl FirstAttempts {
    /// Requests that were not answered with 2xx, by what they were answered with.
    pub(crate) fn answers(&self) -> BTreeMap<u32, u64> {
        locked(&self.answers).clone()
    }
}

/// What is said of an answer to a first attempt: nothing of 2xx, the gRPC status of a call that did not end well, else the status; 0
/// for none.
pub(crate) fn answer_key(status: u16, grpc: Option<GrpcStatus>) -> Option<u32> {
    match grpc {
        Some(grpc) if grpc != GrpcStatus::OK && (200..300).contains(&status) => Some(1000 + grpc.code().min(16)),
        _ => (!(200..300).contains(&status)).then_some(u32::from(status)),
    }
}

/// What is held against a host.
#[derive(Debug, Default)]
pub(crate) struct EndpointHealth {
    /// Since when it is fit for requests.
    since: Mutex<Option<Instant>>,
    /// Whether it is checked, and was at least once.
    watched: AtomicBool,
    was_checked: AtomicBool,
    /// Whether health checks say that it is not.
    unfit: AtomicBool,
    /// Whether health checks say that it is only for when nothing better is there.
    degraded: AtomicBool,
    /// Whether `rows` are not all zero: success then costs one look.
    marked: AtomicBool,
    rows: Mutex<Rows>,
    ejected: AtomicBool,
    pub(crate) ejection: Mutex<EjectionState>,
}

/// What only the main thread looks at.
#[derive(Debug, Default)]
pub(crate) struct EjectionState {
    /// When its ejection ends.
    pub(crate) until: Option<Instant>,
    /// Ejections less the intervals without one.
    pub(crate) times: u32,
    /// What it had done at the end of the last interval.
    pub(crate) before: Bucket,
}

impl EndpointHealth {
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Whether health checks say that it is not fit.
    pub(crate) fn is_unfit(&self) -> bool {
        self.unfit.load(Relaxed)
    }

    /// Whether health checks say that it is degraded.
    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Relaxed)
    }

    /// Says whether the host is checked: one that is new to it is unfit until it was.
    pub(crate) fn is_checked(&self, on: bool) {
        if self.watched.swap(on, Relaxed) != on {
            self.unfit.store(on, Relaxed);
            self.degraded.store(false, Relaxed);
            self.was_checked.store(false, Relaxed);
        }
    }

    /// Whether it was checked at least once.
    pub(crate) fn was_checked(&self) -> bool {
        self.was_checked.load(Relaxed)
    }

    /// Takes note of what health checks found; true when that changes something.
    pub(crate) fn checked(&self, fit: bool, degraded: bool) -> bool {
        self.was_checked.store(true, Relaxed);
        let was = (self.unfit.swap(!fit, Relaxed), self.degraded.swap(degraded, Relaxed));
        if was.0 && fit {
            *locked(&self.since) = Some(Instant::now());
        }
        was != (!fit, degraded)
    }

    /// How long it has been fit.
    fn fit_for(&self) -> Duration {
        locked(&self.since).map_or(Duration::MAX, |since| since.elapsed())
    }

    /// Ejects the host or takes it back; either way its rows begin anew.
    pub(crate) fn set_ejected(&self, ejected: bool) {
        if !ejected {
            *locked(&self.since) = Some(Instant::now());
        }
        self.ejected.store(ejected, Relaxed);
        *locked(&self.rows) = Rows::default();
        self.marked.store(false, Relaxed);
    }

    fn note(&self, config: &OutlierDetection, verdict: Verdict) -> Option<Cause> {
        if verdict == Verdict::Good && !self.marked.load(Relaxed) {
            return None;
        }
        let mut rows = locked(&self.rows);
        let (next, cause) = outlier::count(config, *rows, verdict);
        *rows = next;
        self.marked.store(next != Rows::default(), Relaxed);
        cause
    }
}

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
}

impl ClusterEndpoint {
    /// Whether it gets requests.
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

/// Counts of a cluster that survive its reconfiguration.
#[derive(Debug)]
pub(crate) struct ClusterState {
    pub(crate) id: u64,
    pub(crate) stats: Counters,
    /// How long requests took.
    pub(crate) times: Histogram,
    /// What is in flight, of normal and of high priority, counted only where there is a limit.
    pub(crate) flight: [Flight; 2],
    /// Told when a connection became free or ended, while requests wait for one.
    pub(crate) freed: Notify,
    suspects: UnboundedSender<Suspect>,
}

/// What breakers limit.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    connections: Limit,
    pending: Limit,
    requests: Limit,
    retries: Limit,
}

impl ClusterState {
    pub(crate) fn new(workers: usize, suspects: UnboundedSender<Suspect>) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            stats: Counters::new(metric::cluster::NAMES, workers),
            times: Histogram::new(workers),
            flight: Default::default(),
            freed: Notify::new(),
            suspects,
        }
    }

    /// Requests of normal priority that wait for a connection.
    pub(crate) fn waiting(&self) -> u32 {
        self.flight.iter().map(|f| f.pending.0.load(Relaxed)).sum()
    }
}

/// An exact limit across workers.
#[derive(Debug, Default)]
pub(crate) struct Limit(AtomicU32);

impl Limit {
    fn take(&self, limit: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }
}

/// Selects one of a cluster's limits.
type LimitOf = fn(&Flight) -> &Limit;

/// A place under one of a cluster's limits, given back when dropped.
pub(crate) struct Permit(Option<(Arc<ClusterState>, bool, LimitOf)>);

impl Permit {
    /// Takes a place unless `most` are taken (then `None`); without a limit nothing is counted.
    fn take(state: &Arc<ClusterState>, high: bool, limit: LimitOf, most: Option<u32>) -> Option<Self> {
        match most {
            None => Some(Self(None)),
            Some(most) => {
                let [normal, other] = &state.flight;
                let flight = if high { other } else { normal };
                limit(flight).take(most).then(|| Self(Some((state.clone(), high, limit))))
            }
        }
    }

    /// A place that is not counted.
    pub(crate) fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((state, high, limit)) = &self.0 {
            let [normal, other] = &state.flight;
            limit(if *high { other } else { normal }).0.fetch_sub(1, Relaxed);
        }
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
        Self { config, state, hash_patterns, members, tally, balance, balance_id }
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

    /// Why an endpoint gets no requests; `None` when it does.
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

    /// Takes note of how a try ended, for outlier detection.
    pub(crate) fn note(&self, host: &Host, outcome: Outcome) {
        let (Some(config), Some(verdict)) = (&self.config.outlier, outlier::verdict(outcome)) else { return };
        if let Some(cause) = host.health.note(config, verdict) {
            let suspect = Suspect { cluster: self.config.name.clone(), host: host.id, cause };
            // The main thread is there as long as requests are.
            let _ = self.state.suspects.send(suspect);
        }
    }
}
