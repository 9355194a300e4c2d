//! Starting, watching, leaving.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serin_ingest::{Severity, render_text, summary};
use serin_resources::type_url;
use serin_xds::load::{Clock, Collector};
use serin_xds::server::Discovery;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;

use crate::admin::{self, Admin};
use crate::fleet::Fleet;
use crate::loads::Loads;
use crate::options::PilotOptions;
use crate::releases::{self, Outside, Releases, Tokens};
use crate::source::Source;
use crate::store::{Built, Store};

/// Make before break: what routes need goes out before the routes.
const ORDER: [&str; 4] = [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];

/// Runs a pilot until it is told to stop.
///
/// # Errors
/// When a folder does not exist or an address cannot be bound.
pub fn run(options: &PilotOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &PilotOptions) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let source = Source::open(&options.config)?;
    let fleet = Arc::new(Fleet::default());
    let store = Arc::new(Mutex::new(Store::new(options.allow_unenforced_policies)));
    let releases = Arc::new(Releases::open(options.state.as_deref())?);
    let tokens = Tokens::read(options.tokens.as_deref())?;
    refresh(&source, &store, (&fleet, &releases));
    let xds = bind(options.xds, "--xds")?;
    let admin_socket = bind(options.admin, "--admin")?;
    tracing::info!("serving proxies on {}, admin on {}", xds.local_addr()?, admin_socket.local_addr()?);
    let loads = Arc::new(Loads::default());
    let admin = Admin { fleet: fleet.clone(), store: store.clone(), loads: loads.clone() };
    tokio::spawn(admin::serve(admin_socket, admin, releases::routes(releases.clone(), tokens)));
    let delivers = tokio::spawn(deliver((store.clone(), fleet.clone(), loads.clone()), releases.clone()));
    tokio::spawn(watch(source, store, (fleet.clone(), releases)));
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(Discovery::service(fleet, &ORDER))
        .add_service(Collector::service(loads.clone()))
        .add_service(Clock::service(loads))
        .serve_with_incoming(TcpListenerStream::new(xds));
    tokio::select! {
        served = server => served.context("the discovery service failed"),
        // Better no pilot than one that lets a release lie.
        ended = delivers => ended.context("releases cannot go on"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    open().with_context(|| format!("cannot listen on {address}: choose another address with {flag}"))
}

async fn watch(mut source: Source, store: Arc<Mutex<Store>>, (fleet, releases): (Arc<Fleet>, Arc<Releases>)) {
    loop {
        source.changed().await;
        refresh(&source, &store, (&fleet, &releases));
    }
}

/// Moves releases on for ever.
async fn deliver((store, fleet, loads): (Arc<Mutex<Store>>, Arc<Fleet>, Arc<Loads>), releases: Arc<Releases>) {
    let outside = Outside::new();
    let mut published = releases.overlays();
    let mut publish = || {
        let overlays = releases.overlays();
        if overlays != published {
            published = overlays.clone();
            let mesh = store.lock().unwrap_or_else(PoisonError::into_inner).mesh();
            fleet.publish(mesh.with_overlays(overlays));
        }
    };
    loop {
        // What people said takes effect at once.
        let _ = tokio::time::timeout(releases::LOOK, releases.spoken()).await;
        publish();
        let due = releases.look(&fleet.mesh(), &fleet, &loads);
        publish();
        due.into_iter().for_each(|due| outside.act(due, &releases));
    }
}

/// Reads what changed, says what is wrong with it, pushes what is right.
fn refresh(source: &Source, store: &Mutex<Store>, (fleet, releases): (&Fleet, &Releases)) {
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Built { snapshot, news, objects }) = store.update(source.read()) else { return };
    let color = std::io::stderr().is_terminal();
    for diagnostic in &news {
        eprintln!("{}", render_text(diagnostic, store.text(&diagnostic.file), color));
    }
    tracing::info!(target: "serin_applied", "{objects} objects in force; {}", summary(store.diagnostics()));
    // Documents that are away for now are not gone.
    let whole = objects > 0 && store.diagnostics().iter().all(|d| d.severity != Severity::Error);
    releases.sync(&snapshot, whole);
    fleet.publish(snapshot.with_overlays(releases.overlays()));
}
