//! The state of one worker: its copy of every counter, its pools, its random numbers, its handle to the snapshot.
//!
//! A connection stays with the worker that accepted it. Workers share only the published snapshot and atomics that
//! each of them writes in its own copy.

mod view;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use serin_traffic::balance;
use serin_transport::BoundListener;
use tokio::sync::Notify;

use crate::metric::End;
use crate::snapshot::{ChainRuntime, ListenerRuntime, Snapshot};
use crate::spans::Spans;
use crate::state::State;
use crate::upstream::Pools;

pub(crate) use view::{LocalCluster, LocalHost, View};

/// A command of the main thread to a worker.
pub(crate) enum Command {
    /// Accept on this socket for the listener of that name.
    Listen(String, BoundListener),
    /// Stop accepting for that listener.
    Close(String),
    /// Ask clients to leave: announce the end of connections, keep accepting.
    Drain,
    /// Accept no more and close connections that are idle.
    Finish,
}

/// The views that were made so far from one snapshot.
struct Views {
    snapshot: Arc<Snapshot>,
    /// Counts snapshots, so that holders of a view can tell whether it is the newest.
    generation: u64,
    /// By listener and the number of the chain.
    chains: HashMap<String, Vec<Option<Rc<View>>>>,
    clusters: HashMap<String, Rc<LocalCluster>>,
}

impl Views {
    fn new(snapshot: Arc<Snapshot>, generation: u64) -> Self {
        Self { snapshot, generation, chains: HashMap::new(), clusters: HashMap::new() }
    }
}

/// A worker's own things.
pub(crate) struct Worker {
    /// Its number, which selects its copy of every counter.
    pub(crate) id: usize,
    published: Arc<ArcSwap<Snapshot>>,
    views: RefCell<Views>,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) balancers: RefCell<HashMap<u64, Rc<RefCell<balance::State>>>>,
    random: RefCell<fastrand::Rng>,
    /// True when clients are asked to leave.
    pub(crate) draining: Cell<bool>,
    /// True when idle connections must close now.
    pub(crate) finishing: Cell<bool>,
    /// Wakes idle connections when either changes.
    pub(crate) wake: Notify,
    /// Connections that are open, of all workers.
    connections: Arc<AtomicUsize>,
    /// Bytes of responses that wait for clients to read, and how many may.
    pub(crate) held: Cell<usize>,
    pub(crate) most_held: usize,
    /// The state of this proxy.
    pub(crate) state: State,
    pub(crate) spans: Spans,
    /// The reason of the newest handshake with an upstream that failed: taken at once by the request that wanted it.
    pub(crate) handshake_failure: RefCell<Option<String>>,
}

impl Worker {
    pub(crate) fn new(id: usize, shared: Shared) -> Self {
        Self {
            id,
            views: RefCell::new(Views::new(shared.snapshot.load_full(), 1)),
            published: shared.snapshot,
            pools: RefCell::default(),
            balancers: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            draining: Cell::new(false),
            finishing: Cell::new(false),
            wake: Notify::new(),
            connections: shared.connections,
            held: Cell::new(0),
            most_held: shared.most_held,
            state: shared.state,
            spans: shared.spans,
            handshake_failure: RefCell::default(),
        }
    }

    /// The newest snapshot's number; costs a pointer comparison when nothing changed.
    pub(crate) fn generation(&self) -> u64 {
        let newest = self.published.load();
        let mut views = self.views.borrow_mut();
        if !Arc::ptr_eq(&newest, &views.snapshot) {
            *views = Views::new(newest.clone(), views.generation + 1);
        }
        views.generation
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.generation();
        self.views.borrow().snapshot.clone()
    }

    /// Returns true when a listener looks at the first bytes of a connection before its chain is chosen.
    pub(crate) fn inspects(&self, listener: &str) -> bool {
        self.generation();
        self.views.borrow().snapshot.listeners.get(listener).is_some_and(|listener| listener.inspects)
    }

    /// The view of the chain of a listener that `choose` chooses by its number.
    pub(crate) fn view(
        &self,
        listener: &str,
        choose: impl FnOnce(&ListenerRuntime) -> Option<usize>,
    ) -> Option<Rc<View>> {
        self.generation();
        let mut views = self.views.borrow_mut();
        let number = choose(views.snapshot.listeners.get(listener)?)?;
        if let Some(Some(view)) = views.chains.get(listener).and_then(|chains| chains.get(number)) {
            return Some(view.clone());
        }
        let view = Rc::new(View::new(&views.snapshot, listener, number)?);
        let chains = views.chains.entry(listener.to_owned()).or_default();
        chains.resize_with(chains.len().max(number + 1), || None);
        if let Some(place) = chains.get_mut(number) {
            *place = Some(view.clone());
        }
        Some(view)
    }

    /// A cluster of a snapshot; the same object for all views of the newest one.
    pub(crate) fn cluster(&self, snapshot: &Arc<Snapshot>, name: &str) -> Option<Rc<LocalCluster>> {
        let newest = Arc::ptr_eq(snapshot, &self.views.borrow().snapshot);
        let known = self.views.borrow().clusters.get(name).filter(|_| newest).cloned();
        known.or_else(|| {
            let cluster = Rc::new(LocalCluster::new(snapshot.clusters.get(name)?.clone(), self));
            if newest {
                self.views.borrow_mut().clusters.insert(name.to_owned(), cluster.clone());
            }
            Some(cluster)
        })
    }

    /// A uniform random number.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }
}

/// The state that all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Bytes of answers that may wait for the clients of one worker.
    pub(crate) most_held: usize,
    pub(crate) state: State,
    pub(crate) spans: Spans,
}

/// Counts a connection in and, however it ends, out.
pub(crate) struct ConnectionGuard {
    worker: Rc<Worker>,
    pub(crate) chain: Arc<ChainRuntime>,
    /// Who ended it, where that is known.
    pub(crate) end: Cell<End>,
}

impl ConnectionGuard {
    pub(crate) fn new(worker: Rc<Worker>, chain: Arc<ChainRuntime>) -> Self {
        worker.connections.fetch_add(1, Relaxed);
        chain.stats.add(worker.id, crate::metric::http::CX_TOTAL, 1);
        chain.stats.add(worker.id, crate::metric::http::CX_ACTIVE, 1);
        Self { worker, chain, end: Cell::default() }
    }
}

impl ConnectionGuard {
    /// Counts for its connection manager.
    pub(crate) fn count(&self, index: usize, amount: u64) {
        self.chain.stats.add(self.worker.id, index, amount);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.worker.connections.fetch_sub(1, Relaxed);
        self.chain.stats.sub(self.worker.id, crate::metric::http::CX_ACTIVE);
        if self.chain.config.filter.manager().is_some() {
            self.end.get().counters(crate::metric::http::CX_DESTROY).for_each(|index| self.count(index, 1));
        }
    }
}
