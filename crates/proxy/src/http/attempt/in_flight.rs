//! The gauges of requests: in flight on a host, and pending until there is a connection.

use std::cell::Cell;
use std::rc::Rc;

use serin_traffic::grpc::GrpcStatus;
use serin_traffic::outcome::Outcome;

use crate::metric;
use crate::runtime::{ClusterRuntime, Permit};
use crate::upstream::{H1Connection, H2Stream};
use crate::worker::LocalCluster;

/// Counts a request as in flight on its host and cluster until dropped.
pub(crate) struct InFlight {
    cluster: Rc<LocalCluster>,
    /// The number of the endpoint in the cluster.
    choice: usize,
    worker: usize,
    pub(super) stream: Option<H2Stream>,
    /// True when it is a call, which its trailers decide.
    pub(crate) is_call: bool,
    /// True while its trailers are still to come.
    open: Cell<bool>,
}

impl InFlight {
    pub(super) fn new(worker: usize, cluster: &Rc<LocalCluster>, choice: usize, is_call: bool) -> Self {
        let new = Self { cluster: cluster.clone(), choice, worker, stream: None, is_call, open: Cell::new(false) };
        new.host(metric::host::RQ_ACTIVE, 1);
        cluster.state.stats.add(worker, metric::cluster::RQ_ACTIVE, 1);
        new
    }

    /// Counts the request: it has a connection. `taken_back` undoes that of one that was not made after all.
    pub(super) fn connected(&self, taken_back: bool) {
        let amount = if taken_back { u64::MAX } else { 1 };
        self.host(metric::host::RQ_TOTAL, amount);
        self.cluster.state.stats.add(self.worker, metric::cluster::RQ_TOTAL, amount);
    }

    fn host(&self, index: usize, amount: u64) {
        if let Some(local) = self.cluster.hosts.get(self.choice) {
            local.host.stats.add(self.worker, index, amount);
        }
    }

    /// The worker whose it is.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Gives a connection back for other requests to the same endpoint.
    pub(crate) fn put(&self, connection: Box<H1Connection>) {
        if let Some(local) = self.cluster.hosts.get(self.choice) {
            match connection.name.clone() {
                Some(name) => local.pool.named(&name).put(connection),
                None => local.pool.put(connection),
            }
            if self.cluster.state.waiting() > 0 {
                self.cluster.state.freed.notify_waiters();
            }
        }
    }

    /// Counts how the attempt ended.
    pub(crate) fn outcome(&self, outcome: Outcome) {
        if let Some(local) = self.cluster.hosts.get(self.choice) {
            self.cluster.note(&local.host, outcome);
        }
        let stats = &self.cluster.state.stats;
        match outcome {
            Outcome::Response { status, grpc } => {
                stats.add(self.worker, metric::cluster::RQ_COMPLETED, 1);
                stats.add(self.worker, metric::class(metric::cluster::RQ_1XX, status), 1);
                self.cluster.state.count_code(self.worker, status);
                if self.is_call && status < 500 && grpc.is_none() {
                    self.open.set(true);
                } else {
                    self.succeeded(status < 500 && !grpc.is_some_and(GrpcStatus::is_server_error));
                }
            }
            Outcome::Timeout => {
                self.host(metric::host::RQ_TIMEOUT, 1);
                self.host(metric::host::RQ_ERROR, 1);
            }
            Outcome::RemoteReset => {
                stats.add(self.worker, metric::cluster::RQ_RX_RESET, 1);
                self.host(metric::host::RQ_ERROR, 1);
            }
            Outcome::Protocol => {
                self.broke_protocol();
                self.host(metric::host::RQ_ERROR, 1);
            }
            Outcome::Reset { .. } => self.host(metric::host::RQ_ERROR, 1),
            Outcome::ConnectFailure | Outcome::ConnectTimeout => self.host(metric::host::RQ_ERROR, 1),
            Outcome::Overflow => {}
        }
    }

    /// Counts an upstream that broke the protocol.
    pub(crate) fn broke_protocol(&self) {
        self.cluster.state.stats.add(self.worker, metric::cluster::CX_PROTOCOL_ERROR, 1);
    }

    /// Counts an upstream that says that its connection ends; yields whether it stays.
    pub(crate) fn stays(&self, keep_alive: bool) -> bool {
        self.cluster.state.stats.add(self.worker, metric::cluster::CX_CLOSE_NOTIFY, (!keep_alive).into());
        keep_alive
    }

    fn succeeded(&self, good: bool) {
        self.host(if good { metric::host::RQ_SUCCESS } else { metric::host::RQ_ERROR }, 1);
    }

    /// A call's trailers have come, or should have (Envoy counts a call by what its status is in HTTP). One whose client
    /// leaves before says nothing.
    pub(crate) fn ended(&self, grpc: Option<GrpcStatus>) {
        if self.open.take() {
            self.succeeded(grpc.is_some() && !grpc.is_some_and(GrpcStatus::is_server_error));
        }
    }

    /// Counts an attempt that ended because its client did.
    pub(crate) fn cancelled(&self) {
        self.cluster.state.stats.add(self.worker, metric::cluster::RQ_CANCELLED, 1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.host(metric::host::RQ_ACTIVE, u64::MAX);
        self.cluster.state.stats.sub(self.worker, metric::cluster::RQ_ACTIVE);
    }
}

/// A request that waits for a connection, counted until dropped.
pub(super) struct Pending<'a> {
    cluster: &'a ClusterRuntime,
    worker: usize,
    _permit: Permit,
}

impl<'a> Pending<'a> {
    pub(super) fn new(cluster: &'a ClusterRuntime, worker: usize, high: bool) -> Option<Self> {
        let permit = cluster.permit_pending(high)?;
        cluster.state.stats.add(worker, metric::cluster::RQ_PENDING_TOTAL, 1);
        cluster.state.stats.add(worker, metric::cluster::RQ_PENDING_ACTIVE, 1);
        Some(Self { cluster, worker, _permit: permit })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.cluster.state.stats.sub(self.worker, metric::cluster::RQ_PENDING_ACTIVE);
    }
}
