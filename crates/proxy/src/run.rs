//! Starting, serving and leaving.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use serin_resources::bootstrap::Ads;
use serin_resources::cluster::RequestNames;
use serin_resources::tls::UpstreamTls;
use serin_transport::Listener;
use serin_xds::client::Connections;
use serin_xds::server::Mode;
use serin_xds::{client, load};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::{self, Admin};
use crate::bootstrap;
use crate::collector;
use crate::discovery::{SharedStore, Store, StoreHandler, watch_dns, watch_outliers};
use crate::error::Error;
use crate::health;
use crate::loads::Loads;
use crate::options::ProxyOptions;
use crate::peers::Peer;
use crate::spans;
use crate::state::State;
use crate::threads;
use crate::tls::TlsStore;
use crate::worker::{Command, Shared};

/// Connections to the admin interface that may wait to be accepted.
const ADMIN_BACKLOG: i32 = 128;

/// Runs a proxy until it is told to stop.
///
/// # Errors
/// When the bootstrap cannot be read or run, or an address cannot be bound.
pub fn run(options: &ProxyOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(serve(options))
}

async fn serve(options: &ProxyOptions) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let bootstrap = bootstrap::load(options)?;
    let workers =
        options.concurrency.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let state = State::new();
    state.name(&bootstrap.node_cluster, &bootstrap.node_id);
    let (spans, told) = spans::channel();
    let shared = Shared {
        snapshot: Arc::new(ArcSwap::default()),
        connections: Arc::default(),
        most_held: options.max_buffered as usize * 1024 * 1024 / workers,
        state: state.clone(),
        spans,
    };
    let mut commands = Vec::with_capacity(workers);
    for id in 0..workers {
        commands.push(threads::spawn(id, shared.clone()).context("cannot start a worker")?);
    }
    let (suspects, judged) = mpsc::unbounded_channel();
    let mut store = Store::new(workers, shared.clone(), commands, options.access_log.clone(), suspects);
    store.own = Peer::of_node(&bootstrap.node);
    store.runtime = bootstrap.runtime;
    store.local = (bootstrap.local_cluster, bootstrap.locality);
    store.is_incremental = bootstrap.ads.as_ref().is_some_and(|ads| ads.delta);
    let store: SharedStore = Arc::new(Mutex::new(store));
    let admin_address = options.admin.or(bootstrap.admin).unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15000));
    let socket = Listener::bind(admin_address, ADMIN_BACKLOG)
        .with_context(|| format!("cannot bind the admin interface to {admin_address}: choose another with --admin"))?;
    if let Some(file) = &options.admin_address_path {
        std::fs::write(file, socket.local_addr()?.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let admin = Admin { store: store.clone(), state: state.clone(), node: bootstrap.node_id.clone(), workers };
    tokio::spawn(admin::serve(socket, admin));
    lock(&store).add_static(bootstrap.clusters, bootstrap.listeners, bootstrap.secrets)?;
    tokio::spawn(look_at_certificates(lock(&store).sockets.tls.clone()));
    tokio::spawn(watch_dns(store.clone()));
    tokio::spawn(watch_outliers(store.clone(), judged));
    tokio::task::spawn_local(health::watch(store.clone()));
    tokio::spawn(give_back());
    tokio::spawn(weigh(store.clone()));
    tokio::spawn(collector::run(store.clone(), told));
    let connections = Connections::to(bootstrap.ads.as_ref().map_or(&[], |ads| &ads.servers));
    let connections = connections.secured(secured(&bootstrap.secured, &lock(&store).sockets.tls)?);
    if !bootstrap.loads.is_empty() {
        let loads = Loads::new(store.clone(), state.clone());
        tokio::spawn(load::run(bootstrap.loads, bootstrap.node.clone(), connections.clone(), loads));
    }
    follow(bootstrap.ads, bootstrap.node, connections, &store, &state);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = state.asked_to_quit() => return Ok(()),
    }
    tokio::select! {
        () = drain(&store, &state, &shared, options.drain_time) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = state.asked_to_quit() => {}
    }
    Ok(())
}

/// The TLS of servers that configuration comes from.
fn secured(
    servers: &BTreeMap<String, UpstreamTls>,
    store: &TlsStore,
) -> anyhow::Result<HashMap<String, client::Secure>> {
    let secure = |(address, settings): (&String, &UpstreamTls)| {
        let slot = store
            .client(settings, &RequestNames::default())
            .map_err(Error::from)
            .with_context(|| format!("the TLS of {address}"))?;
        Ok((address.clone(), slot.into_identity(&settings.server_name)))
    };
    servers.iter().map(secure).collect()
}

/// Takes configuration from the server of the aggregated discovery stream; without one, the proxy is ready when its own clusters are.
fn follow(ads: Option<Ads>, node: Vec<u8>, connections: Connections, store: &SharedStore, state: &State) {
    match ads {
        Some(ads) => {
            let mode = if ads.delta { Mode::Delta } else { Mode::Sotw };
            let config = client::Config { servers: ads.servers, node, mode, connections };
            tokio::spawn(client::run(
                config,
                StoreHandler { store: store.clone(), state: state.clone(), missed: false },
            ));
        }
        None => {
            let (store, state) = (store.clone(), state.clone());
            tokio::spawn(async move {
                while !lock(&store).is_checked() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                state.initialised();
            });
        }
    }
}

/// Lets what backends report of their load count, as often as their clusters say.
async fn weigh(store: SharedStore) {
    let mut weighed: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let mut pause = Duration::from_secs(1);
        let clusters: Vec<_> = lock(&store).clusters_in_use().cloned().collect();
        weighed.retain(|name, _| clusters.iter().any(|c| c.config.name == *name));
        for cluster in &clusters {
            let Some(reported) = &cluster.config.reported else { continue };
            let last = weighed.entry(cluster.config.name.clone()).or_insert(now);
            let left = reported.update.saturating_sub(now - *last);
            if left.is_zero() {
                cluster.weigh();
                *last = now;
            }
            pause = pause.min(if left.is_zero() { reported.update } else { left });
        }
        tokio::time::sleep(pause).await;
    }
}

/// Takes certificates into use that were changed in their files.
async fn look_at_certificates(tls: Arc<TlsStore>) {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        tls.look_at_files();
    }
}

/// Memory that configuration took and freed stays with the allocator until it looks; on a proxy that has nothing to do
/// nothing makes it look. An allocation that large does, and costs nothing, because it is never touched.
async fn give_back() {
    const LARGE: usize = 16 << 20;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}

fn lock(store: &SharedStore) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves without breaking anything: says that it is draining, goes on accepting while others take note and clients
/// are told to close, then stops accepting, closes what is idle and waits for what is not.
async fn drain(store: &SharedStore, state: &State, shared: &Shared, time: Duration) {
    tracing::info!("draining for {} s", time.as_secs_f64());
    state.drain();
    lock(store).sockets.tell(|| Command::Drain);
    let started = Instant::now();
    while started.elapsed() < time {
        let quiet = shared.connections.load(Relaxed) == 0 && started.elapsed() > Duration::from_secs(1).min(time / 2);
        if quiet {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock(store).sockets.tell(|| Command::Finish);
    let finishing = Instant::now();
    while shared.connections.load(Relaxed) > 0 && finishing.elapsed() < time.max(Duration::from_secs(1)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
