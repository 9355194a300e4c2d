//! Worker threads: one OS thread with one runtime and its own listening sockets each.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serin_transport::{Listener, canonical};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::arrival::Arrival;
use crate::worker::{Command, Shared, Worker};

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
    let worker = Rc::new(Worker::new(id, shared));
    tokio::task::spawn_local(sweep(worker.clone()));
    let mut accepting: HashMap<String, AbortHandle> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(name, socket) => match socket.into_current_runtime() {
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

/// The interval at which a worker says that it cannot accept.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Closes pooled connections that are idle too long or were closed by their other end, and forgets state of hosts
/// that are gone.
async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let snapshot = worker.snapshot();
        let members = snapshot.clusters.values().flat_map(|c| &c.members);
        worker.pools.borrow_mut().sweep(&members.map(|m| m.host.id).collect());
        let clusters: HashSet<u64> = snapshot.clusters.values().map(|c| c.state.id).collect();
        worker.balancers.borrow_mut().retain(|id, _| clusters.contains(id));
    }
}

async fn accept(worker: Rc<Worker>, name: String, socket: Listener) {
    let name: Rc<str> = name.into();
    let local = socket.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut warned: Option<Instant> = None;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                // A client of IPv4 at a socket of IPv6 has its own address (Envoy's default).
                let peer = canonical(peer);
                let (worker, listener) = (worker.clone(), name.clone());
                Arrival { worker, listener, stream, peer, bound: local, server_name: None }.begin();
            }
            Err(error) => {
                // Out of descriptors, or the client is gone already: wait a little, then go on.
                if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, listener = %name, "cannot accept connections");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
