//! The state of this proxy: starting, serving, or leaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crate::mirrors::Mirrors;

/// Shared flags.
#[derive(Clone)]
pub(crate) struct State(Arc<Flags>);

struct Flags {
    initialised: AtomicBool,
    failing: AtomicBool,
    ports_taken: AtomicBool,
    draining: AtomicBool,
    connected: AtomicBool,
    reports_loads: AtomicBool,
    mirrors: Mirrors,
    started: Instant,
    quit: tokio::sync::Notify,
    /// The node's cluster, as the bootstrap names it.
    service_cluster: std::sync::OnceLock<String>,
    node_id: std::sync::OnceLock<String>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Flags {
            initialised: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            ports_taken: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            reports_loads: AtomicBool::new(false),
            mirrors: Mirrors::default(),
            started: Instant::now(),
            quit: tokio::sync::Notify::new(),
            service_cluster: std::sync::OnceLock::new(),
            node_id: std::sync::OnceLock::new(),
        }))
    }

    /// Everything that was asked for is in use.
    pub(crate) fn initialised(&self) {
        if !self.0.initialised.swap(true, Relaxed) {
            tracing::info!("ready after {} ms", self.0.started.elapsed().as_millis());
        }
    }

    pub(crate) fn connected(&self, up: bool) {
        self.0.connected.store(up, Relaxed);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.0.connected.load(Relaxed)
    }

    /// Takes note that a listener cannot be bound, or that all can.
    pub(crate) fn ports_taken(&self, taken: bool) {
        self.0.ports_taken.store(taken, Relaxed);
    }

    /// From now on somebody wants to know how first attempts went.
    pub(crate) fn report_loads(&self) {
        self.0.reports_loads.store(true, Relaxed);
    }

    pub(crate) fn reports_loads(&self) -> bool {
        self.0.reports_loads.load(Relaxed)
    }

    /// An operator says that this proxy should get no traffic.
    pub(crate) fn fail_health(&self, failing: bool) {
        self.0.failing.store(failing, Relaxed);
    }

    /// Says who this proxy is: the node's cluster and id.
    pub(crate) fn name(&self, cluster: &str, id: &str) {
        let _ = self.0.service_cluster.set(cluster.to_owned());
        let _ = self.0.node_id.set(id.to_owned());
    }

    /// The comparisons of mirrors.
    pub(crate) fn mirrors(&self) -> &Mirrors {
        &self.0.mirrors
    }

    pub(crate) fn node_id(&self) -> &str {
        self.0.node_id.get().map_or("", String::as_str)
    }

    pub(crate) fn service_cluster(&self) -> &str {
        self.0.service_cluster.get().map_or("", String::as_str)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.0.failing.load(Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    pub(crate) fn uptime(&self) -> std::time::Duration {
        self.0.started.elapsed()
    }

    /// Envoy's word for the state.
    pub(crate) fn phase(&self) -> &'static str {
        if self.0.draining.load(Relaxed) || self.0.failing.load(Relaxed) {
            "DRAINING"
        } else if self.0.initialised.load(Relaxed) && self.0.ports_taken.load(Relaxed) {
            "INITIALIZING"
        } else if self.0.initialised.load(Relaxed) {
            "LIVE"
        } else {
            "PRE_INITIALIZING"
        }
    }

    pub(crate) fn ask_to_quit(&self) {
        self.0.quit.notify_one();
    }

    pub(crate) async fn asked_to_quit(&self) {
        self.0.quit.notified().await;
    }
}
