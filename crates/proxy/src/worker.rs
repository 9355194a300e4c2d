//! One OS thread with one runtime, its own listening sockets, pools, random numbers and counters.
//!
//! A connection stays with the worker that accepted it. Workers share only the published snapshot and atomics that
//! each of them writes in its own copy.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serin_traffic::balance;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::http;
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

/// A worker's own things.
pub(crate) struct Worker {
    /// Its number, which selects its copy of every counter.
    pub(crate) id: usize,
    published: Arc<ArcSwap<Snapshot>>,
    current: RefCell<Rc<Arc<Snapshot>>>,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) balancers: RefCell<HashMap<u64, balance::State>>,
    random: RefCell<fastrand::Rng>,
    /// Whether clients are asked to leave.
    pub(crate) draining: Cell<bool>,
    /// Whether idle connections must close now.
    pub(crate) finishing: Cell<bool>,
    /// Wakes idle connections when either changes.
    pub(crate) wake: Notify,
    /// Connections that are open.
    pub(crate) connections: Cell<usize>,
    shared_connections: Arc<std::sync::atomic::AtomicUsize>,
}

impl Worker {
    /// The newest snapshot; costs a pointer comparison when nothing changed.
    pub(crate) fn snapshot(&self) -> Rc<Arc<Snapshot>> {
        let newest = self.published.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(&newest, &current) {
            *current = Rc::new(newest.clone());
        }
        current.clone()
    }

    /// A uniform random number.
    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn opened(&self) {
        self.connections.set(self.connections.get() + 1);
        self.shared_connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn closed(&self) {
        self.connections.set(self.connections.get().saturating_sub(1));
        self.shared_connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) connections: Arc<std::sync::atomic::AtomicUsize>,
}

/// Starts worker `id`; it runs until its commands' sender is gone.
pub(crate) fn spawn(id: usize, shared: Shared) -> std::io::Result<mpsc::UnboundedSender<Command>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        match runtime {
            Ok(runtime) => runtime.block_on(run(id, shared, receiver)),
            Err(error) => tracing::error!(%error, "worker {id} cannot start"),
        }
    };
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(body)?;
    Ok(sender)
}

async fn run(id: usize, shared: Shared, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker {
        id,
        current: RefCell::new(Rc::new(shared.snapshot.load_full())),
        published: shared.snapshot,
        pools: RefCell::default(),
        balancers: RefCell::default(),
        random: RefCell::new(fastrand::Rng::new()),
        draining: Cell::new(false),
        finishing: Cell::new(false),
        wake: Notify::new(),
        connections: Cell::new(0),
        shared_connections: shared.connections,
    });
    tokio::task::spawn_local(sweep(worker.clone()));
    let mut accepting: HashMap<String, AbortHandle> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(name, socket) => match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let task = tokio::task::spawn_local(accept(worker.clone(), name.clone(), socket));
                    if let Some(old) = accepting.insert(name, task.abort_handle()) {
                        old.abort();
                    }
                }
                Err(error) => tracing::error!(%error, listener = name, "cannot listen"),
            },
            Command::Close(name) => {
                if let Some(task) = accepting.remove(&name) {
                    task.abort();
                }
            }
            Command::Drain => {
                worker.draining.set(true);
                worker.wake.notify_waiters();
            }
            Command::Finish => {
                accepting.drain().for_each(|(_, task)| task.abort());
                worker.draining.set(true);
                worker.finishing.set(true);
                worker.wake.notify_waiters();
            }
        }
    }
}

/// Closes pooled connections that are idle too long or were closed by their other end, and forgets state of hosts
/// that are gone.
async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let snapshot = worker.snapshot();
        worker.pools.borrow_mut().sweep(worker.id);
        let alive: std::collections::HashSet<u64> = snapshot.clusters.values().map(|c| c.state.id).collect();
        worker.balancers.borrow_mut().retain(|id, _| alive.contains(id));
    }
}

async fn accept(worker: Rc<Worker>, name: String, socket: TcpListener) {
    let name: Rc<str> = name.into();
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                let Some(listener) = worker.snapshot().listeners.get(&*name).cloned() else { continue };
                let _ = stream.set_nodelay(true);
                let guard = ConnectionGuard::new(worker.clone(), listener);
                let worker = worker.clone();
                let name = name.clone();
                tokio::task::spawn_local(async move {
                    http::connection(worker, name, stream, peer, &guard).await;
                    drop(guard);
                });
            }
            Err(error) => {
                // Out of descriptors, or the client is gone already: wait a little, then go on.
                tracing::debug!(%error, listener = %name, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// Counts a connection in and, however it ends, out.
pub(crate) struct ConnectionGuard {
    worker: Rc<Worker>,
    pub(crate) listener: Arc<ListenerRuntime>,
}

impl ConnectionGuard {
    fn new(worker: Rc<Worker>, listener: Arc<ListenerRuntime>) -> Self {
        worker.opened();
        listener.stats.add(worker.id, crate::metric::http::CX_TOTAL, 1);
        listener.stats.add(worker.id, crate::metric::http::CX_ACTIVE, 1);
        Self { worker, listener }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.worker.closed();
        self.listener.stats.sub(self.worker.id, crate::metric::http::CX_ACTIVE);
    }
}
