//! What one worker owns: its copy of every counter, its pools, its random numbers, its handle to the snapshot.
//!
//! A connection stays with the worker that accepted it. Workers share only the published snapshot and atomics that
//! each of them writes in its own copy.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use serin_traffic::balance;
use tokio::sync::Notify;

use crate::snapshot::{ListenerRuntime, Snapshot};
use crate::upstream::Pools;

/// What the main thread tells a worker.
pub(crate) enum Command {
    /// Accept on this socket for the listener of that name.
    Listen(String, StdListener),
    /// Stop accepting for that listener.
    Close(String),
    /// Ask clients to leave: announce the end of connections, keep accepting.
    Drain,
    /// Accept no more and close connections that are idle.
    Finish,
}

/// A worker's handle to a snapshot: a request clones it without an instruction that other workers could feel.
#[derive(Clone)]
pub(crate) struct Current(Rc<Taken>);

struct Taken(Arc<Snapshot>);

impl Current {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Rc::new(Taken(snapshot)))
    }
}

impl std::ops::Deref for Current {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

/// A worker's own things.
pub(crate) struct Worker {
    /// Its number, which selects its copy of every counter.
    pub(crate) id: usize,
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<Current>,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) balancers: RefCell<HashMap<u64, balance::State>>,
    random: RefCell<fastrand::Rng>,
    /// Whether clients are asked to leave.
    pub(crate) draining: Cell<bool>,
    /// Whether idle connections must close now.
    pub(crate) finishing: Cell<bool>,
    /// Wakes idle connections when either changes.
    pub(crate) wake: Notify,
    /// Connections that are open, of all workers.
    connections: Arc<AtomicUsize>,
}

impl Worker {
    pub(crate) fn new(id: usize, shared: Shared) -> Self {
        Self {
            id,
            current: RefCell::new(Current::new(shared.snapshot.load_full())),
            published: shared.snapshot,
            pools: RefCell::default(),
            balancers: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            draining: Cell::new(false),
            finishing: Cell::new(false),
            wake: Notify::new(),
            connections: shared.connections,
        }
    }

    /// The newest snapshot; costs a pointer comparison when nothing changed.
    pub(crate) fn snapshot(&self) -> Current {
        let newest = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&newest, &current.0.0) {
            *current = Current::new(newest.clone());
        }
        current.clone()
    }

    /// A uniform random number.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

/// Counts a connection in and, however it ends, out.
pub(crate) struct ConnectionGuard {
    worker: Rc<Worker>,
    pub(crate) listener: Arc<ListenerRuntime>,
}

impl ConnectionGuard {
    pub(crate) fn new(worker: Rc<Worker>, listener: Arc<ListenerRuntime>) -> Self {
        worker.connections.fetch_add(1, Relaxed);
        listener.stats.add(worker.id, crate::metric::http::CX_TOTAL, 1);
        listener.stats.add(worker.id, crate::metric::http::CX_ACTIVE, 1);
        Self { worker, listener }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.worker.connections.fetch_sub(1, Relaxed);
        self.listener.stats.sub(self.worker.id, crate::metric::http::CX_ACTIVE);
    }
}
