//! Starting, watching, leaving.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serin_transport::Listener;
use serin_xds::load::{Clock, Collector};
use serin_xds::server::Discovery;
use serin_xds::{TYPES, grpc};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::accept::{self, Accepted, Bounded, Heard, MakesRoom};
use crate::admin::{self, Admin, Names};
use crate::copies::Copies;
use crate::fleet::Fleet;
use crate::loads::Loads;
use crate::options::PilotOptions;
use crate::reconcile::Reconciler;
use crate::releases::{self, Releases, StateLock, Tokens};
use crate::source::{Files, Sources};
use crate::store::Store;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Runs a pilot until it is told to stop.
///
/// # Errors
/// When a folder does not exist or an address cannot be bound.
pub fn run(options: &PilotOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &PilotOptions) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sources = Sources::new(vec![Box::new(Files::open(&options.config)?)]);
    // Nothing is written before every address is bound: a pilot that cannot run must not touch what another's releases rest on.
    let place = state_file(options)?;
    let lock = place.as_deref().map(StateLock::take).transpose()?;
    let xds = bind(options.xds, "--xds")?;
    let admin_socket = bind(options.admin, "--admin")?;
    let releases = Arc::new(Releases::open(place.as_deref().zip(lock))?);
    let tokens = Tokens::read(options.tokens.as_deref())?;
    let fleet = Arc::new(Fleet::default());
    let store = Arc::new(Mutex::new(Store::new(options.allow_unenforced_policies, options.file_grace)));
    let loads = Arc::new(Loads::of(fleet.clone()));
    let mesh = Arc::new(Reconciler {
        store: store.clone(),
        fleet: fleet.clone(),
        releases: releases.clone(),
        loads: loads.clone(),
    });
    match &place {
        Some(path) => tracing::info!("the state of releases is kept in {}", path.display()),
        None => tracing::warn!("--state none: a restart begins every release anew, and traffic goes back meanwhile"),
    }
    if options.allow_unenforced_policies {
        tracing::warn!(
            "--allow-unenforced-policies: requests go out without TLS, authentication and authorization that documents demand"
        );
    }
    let mut copies = place.as_deref().map(|path| Copies::beside(path, &options.config));
    if let Some(copies) = &mut copies {
        sources.expect(&mesh.restore(copies));
    }
    mesh.refresh(&mut sources, copies.as_mut());
    let (xds_address, admin_address) = (xds.local_addr()?, admin_socket.local_addr()?);
    tracing::info!("serving proxies on {xds_address}, admin on {admin_address}");
    let admin = Admin { fleet: fleet.clone(), store, loads: loads.clone() };
    let admin_socket = Bounded::new(admin_socket, accept::share(1, 4), "the admin interface", MakesRoom::LongestSilent);
    let names = Names::new(&options.admin_name);
    tokio::spawn(admin::serve(admin_socket, admin, releases::routes(releases, tokens, loads.clone()), names));
    let delivers = tokio::spawn(mesh.clone().deliver());
    tokio::spawn(mesh.watch(sources, copies));
    let served = fleet.clone();
    let is_served = move |peer: SocketAddr| served.serves(&peer.to_string());
    let xds = Bounded::new(xds, accept::share(3, 4), "proxies", MakesRoom::Unserved(Arc::new(is_served)));
    // Some more than there are cores: each waits for its proxy now and then.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let admission = Arc::new(Semaphore::new(4 * cores));
    let mut failures = xds.spread(cores, move || {
        let services: Rc<[Box<dyn grpc::Service>]> = Rc::new([
            Box::new(Discovery::new(fleet.clone(), &TYPES, admission.clone())),
            Box::new(Collector::new(loads.clone())),
            Box::new(Clock::new(loads.clone())),
        ]);
        move |accepted: Accepted| {
            let services = services.clone();
            let serve = |stream, peer, heard: Heard| grpc::serve(stream, peer, services, move || heard.note());
            tokio::task::spawn_local(accepted.serve(serve));
        }
    })?;
    tokio::select! {
        failed = failures.recv() => {
            Err(failed.unwrap_or_else(|| anyhow::anyhow!("its threads ended")).context("the discovery service failed"))
        }
        // Better no pilot than one that lets a release lie.
        ended = delivers => ended.context("releases cannot go on"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Where the state of releases is kept: where somebody says, else beside a folder of documents or in the user's state directory. State
/// that is there goes first, whatever the order of the folders; new state belongs to the first folder. `none` keeps nothing.
fn state_file(options: &PilotOptions) -> anyhow::Result<Option<PathBuf>> {
    match options.state.as_deref() {
        Some(path) if path == Path::new("none") => return Ok(None),
        Some(path) => return Ok(Some(path.to_path_buf())),
        None => {}
    }
    let mut places = Vec::new();
    for folder in &options.config {
        let folder = folder.canonicalize().with_context(|| format!("--config {}", folder.display()))?;
        places.push(places_for(&folder).map(|place| place.map(|place| place.join("releases.json"))));
    }
    if let Some(known) = places.iter().flatten().flatten().find(|place| place.is_file()) {
        return Ok(Some(known.clone()));
    }
    for place in places.into_iter().next().context("--config is missing")?.into_iter().flatten() {
        let usable = |folder: &Path| std::fs::create_dir_all(folder).and_then(|()| try_file_in(folder)).is_ok();
        if place.parent().is_some_and(usable) {
            return Ok(Some(place));
        }
    }
    let folders: Vec<String> = options.config.iter().map(|folder| folder.display().to_string()).collect();
    anyhow::bail!(
        "there is no place to keep the state of releases beside {}: say one with --state FILE, or --state none to do without",
        folders.join(", ")
    )
}

/// Folders for the state of a folder of documents: beside it, and in the user's state directory.
fn places_for(folder: &Path) -> [Option<PathBuf>; 2] {
    let name = folder.file_name().map_or_else(|| "root".to_owned(), |n| n.to_string_lossy().into_owned());
    let beside = folder.parent().map(|parent| parent.join(format!(".{name}.serin")));
    let home = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    let escaped = folder.display().to_string().replace('/', "-");
    [beside, home.map(|home| home.join("serin").join(escaped.trim_start_matches('-')))]
}

/// Whether files can be made in a folder.
fn try_file_in(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(".probe");
    std::fs::File::create(&probe)?;
    std::fs::remove_file(&probe)
}

fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<Listener> {
    Listener::bind(address, BACKLOG)
        .with_context(|| format!("cannot listen on {address}: choose another address with {flag}"))
}
