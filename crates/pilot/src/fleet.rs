//! The proxies that are connected, and what each of them should have.
//!
//! Proxies of the same identity class share one translation. A resource whose bytes did not change keeps its version
//! and its memory, so a push costs what it changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serin_delivery::Applied;
use serin_model::{MeshSnapshot, ProxyIdentity, ProxyRole};
use serin_resources::cluster::Discovery;
use serin_resources::header::HeaderEdits;
use serin_resources::http_filter::PerRoutes;
use serin_resources::route::{Action, PathMatch, Respond, Route, RouteMatch, VirtualHost};
use serin_resources::{ApiListener, Audit, Cluster, Listener, LoadAssignment, RouteConfiguration, type_url};
use serin_translator::{ResourceSet, translate};
use serin_xds::server::{Control, Feed, TypeState, TypeStatus};
use serin_xds::{Node, Resource, ResourceMap};
use tokio::sync::watch;
use xxhash_rust::xxh64::xxh64;

/// All connected proxies.
#[derive(Default)]
pub(crate) struct Fleet {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Default)]
struct State {
    mesh: Arc<MeshSnapshot>,
    translated: HashMap<ProxyIdentity, Arc<ResourceMap>>,
    clients: BTreeMap<u64, Client>,
}

/// How long a client may take to confirm anything at all, until nothing waits for it.
const SILENCE: Duration = Duration::from_secs(60);

/// One stream.
pub(crate) struct Client {
    pub(crate) identity: ProxyIdentity,
    pub(crate) node_id: String,
    pub(crate) agent: String,
    pub(crate) peer: String,
    pub(crate) status: Vec<TypeStatus>,
    connected: Instant,
    /// Whether it has confirmed anything yet.
    has_confirmed: bool,
    /// What its session knew when it told that.
    known: String,
    sender: watch::Sender<Arc<ResourceMap>>,
}

impl Fleet {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes a new mesh to everybody.
    pub(crate) fn publish(&self, mesh: MeshSnapshot) {
        let mut state = self.lock();
        state.mesh = Arc::new(mesh);
        let before = std::mem::take(&mut state.translated);
        let State { mesh, translated, clients } = &mut *state;
        for client in clients.values() {
            let map = resources_for(mesh, &client.identity, &before, translated);
            client.sender.send_if_modified(|current| {
                let changed = !Arc::ptr_eq(current, &map);
                *current = map;
                changed
            });
        }
    }

    /// The mesh as it was published last.
    pub(crate) fn mesh(&self) -> Arc<MeshSnapshot> {
        self.lock().mesh.clone()
    }

    /// Who has confirmed everything that was published last.
    pub(crate) fn applied(&self) -> Applied {
        let state = self.lock();
        let mut applied = Applied::default();
        for client in state.clients.values() {
            if !client.has_confirmed && client.connected.elapsed() >= SILENCE {
                applied.silent.push(client.identity.name.to_string());
                continue;
            }
            applied.of += 1;
            let newest = client.sender.borrow().version.clone();
            let synced = client.status.iter().all(|s| s.state == TypeState::Synced);
            if client.known == newest && synced && !client.status.is_empty() {
                applied.done += 1;
            } else {
                applied.laggards.push(client.identity.name.to_string());
            }
        }
        applied
    }

    /// Whether a proxy takes its configuration over the connection from `peer`.
    pub(crate) fn serves(&self, peer: &str) -> bool {
        self.lock().clients.values().any(|client| client.peer == peer)
    }

    /// Whether the proxy of that node id takes its configuration over the connection from `peer`.
    pub(crate) fn is_connected(&self, node_id: &str, peer: &str) -> bool {
        self.lock().clients.values().any(|client| client.node_id == node_id && client.peer == peer)
    }

    /// Looks at every client.
    pub(crate) fn each<T>(&self, mut look: impl FnMut(u64, &Client) -> T) -> Vec<T> {
        self.lock().clients.iter().map(|(id, client)| look(*id, client)).collect()
    }
}

impl Control for Fleet {
    fn connect(&self, node: &Node, peer: &str) -> Result<Feed, String> {
        let mut identity = ProxyIdentity::parse(&node.id, node.labels.clone())?;
        if node.generator == "grpc" {
            identity.role = ProxyRole::Grpc;
        }
        let stream = self.next.fetch_add(1, Relaxed);
        let mut state = self.lock();
        let State { mesh, translated, clients } = &mut *state;
        let map = resources_for(mesh, &identity, &HashMap::new(), translated);
        let (sender, resources) = watch::channel(map);
        let client = Client {
            identity,
            node_id: node.id.clone(),
            agent: node.user_agent.clone(),
            peer: peer.to_owned(),
            status: Vec::new(),
            connected: Instant::now(),
            has_confirmed: false,
            known: String::new(),
            sender,
        };
        tracing::info!("{} connected from {peer}", client.identity.name);
        clients.insert(stream, client);
        Ok(Feed { resources, stream })
    }

    fn status(&self, stream: u64, known: &str, status: Vec<TypeStatus>) {
        if let Some(client) = self.lock().clients.get_mut(&stream) {
            for new in status.iter().filter(|s| s.error.is_some()) {
                if !client.status.iter().any(|old| old.error == new.error) {
                    let error = new.error.as_deref().unwrap_or_default();
                    tracing::warn!("{} rejected {}: {error}", client.identity.name, new.type_url);
                }
            }
            client.has_confirmed |= status.iter().any(|s| !s.acked.is_empty());
            client.status = status;
            known.clone_into(&mut client.known);
        }
    }

    fn disconnect(&self, stream: u64) {
        let mut state = self.lock();
        let Some(client) = state.clients.remove(&stream) else { return };
        tracing::info!("{} disconnected", client.identity.name);
        // What nobody has any more is not kept: names come and go.
        let class = client.identity.class();
        if state.clients.values().all(|other| other.identity.class() != class) {
            state.translated.remove(&class);
        }
    }
}

fn resources_for(
    mesh: &MeshSnapshot,
    identity: &ProxyIdentity,
    before: &HashMap<ProxyIdentity, Arc<ResourceMap>>,
    translated: &mut HashMap<ProxyIdentity, Arc<ResourceMap>>,
) -> Arc<ResourceMap> {
    // Replicas get the same: what is made for one is made for all of its class.
    let identity = &identity.class();
    if let Some(map) = translated.get(identity) {
        return map.clone();
    }
    let old = before.get(identity);
    let new = encode(&translate(mesh, identity), old.map(AsRef::as_ref));
    let map = match old {
        Some(old) if **old == new => old.clone(),
        _ => Arc::new(new),
    };
    translated.insert(identity.clone(), map.clone());
    map
}

/// Reads a resource as a proxy will. Documents are checked so that this cannot fail; where it does, what would be rejected is
/// refused by itself, instead of every proxy rejecting all that comes with it.
fn sound(type_url: &str, body: &[u8]) -> Result<(), serin_resources::Error> {
    let audit = &mut Audit::default();
    match type_url {
        type_url::CLUSTER => Cluster::decode(body, audit).map(drop),
        type_url::ENDPOINT => LoadAssignment::decode(body, audit).map(drop),
        type_url::LISTENER if ApiListener::is_one(body) => Ok(()),
        type_url::LISTENER => Listener::decode(body, audit).map(drop),
        type_url::ROUTE => RouteConfiguration::decode(body, audit).map(drop),
        _ => Ok(()),
    }
}

/// The same routes with those refused that proxies would reject.
fn mended(routes: &RouteConfiguration) -> RouteConfiguration {
    let mut mended = routes.clone();
    let alone = |host: VirtualHost| {
        let alone = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        sound(type_url::ROUTE, &alone.encode())
    };
    let mut taken = HashSet::new();
    for host in &mut mended.virtual_hosts {
        let name = host.name.clone();
        host.domains.retain(|domain| {
            let is_new = taken.insert(domain.to_ascii_lowercase());
            if !is_new {
                tracing::error!("domain '{domain}' of {name} is another host's already, and leads there");
            }
            is_new
        });
    }
    mended.virtual_hosts.retain(|host| !host.domains.is_empty());
    for host in &mut mended.virtual_hosts {
        if alone(host.clone()).is_ok() {
            continue;
        }
        let all = std::mem::take(&mut host.routes);
        for route in all {
            host.routes.push(route);
            let Err(error) = alone(host.clone()) else { continue };
            tracing::error!(
                "a rule of {} answers 503, because proxies would reject it: {error}",
                host.domains.first().map_or("", String::as_str)
            );
            let Some(last) = host.routes.last_mut() else { continue };
            let body = b"serin: this rule cannot be carried out".to_vec();
            *last = Route {
                name: last.name.clone(),
                matches: last.matches.clone(),
                action: Action::Respond(Respond { status: 503, body, format: None }),
                request_headers: HeaderEdits::default(),
                response_headers: HeaderEdits::default(),
                filters: PerRoutes::default(),
            };
            if alone(host.clone()).is_err() {
                // What it matches cannot be said either: from here on nothing of the host is certain.
                if let Some(last) = host.routes.last_mut() {
                    last.matches = RouteMatch::path(PathMatch::Prefix("/".to_owned()));
                }
            }
        }
    }
    mended
}

fn encode(set: &ResourceSet, old: Option<&ResourceMap>) -> ResourceMap {
    let mut map = ResourceMap::default();
    let same = |type_url: &str, name: &str, body: &[u8]| {
        let before = old.and_then(|o| o.of_type(type_url)).and_then(|t| t.get(name));
        // What has not changed was looked at when it was new.
        before.filter(|before| before.body == body).cloned()
    };
    let mut put = |type_url: &str, name: &str, body: Vec<u8>| {
        let resource = match same(type_url, name, &body) {
            Some(same) => same,
            None => match sound(type_url, &body) {
                Ok(()) => {
                    let version = format!("{:016x}", xxh64(&body, 0));
                    Arc::new(Resource { name: name.to_owned(), version, body: body.into() })
                }
                Err(error) => {
                    tracing::error!("what became of {name} would be rejected, it stays as it was: {error}");
                    let before = old.and_then(|o| o.of_type(type_url)).and_then(|t| t.get(name));
                    let Some(before) = before else { return };
                    before.clone()
                }
            },
        };
        map.types.entry(type_url.to_owned()).or_default().insert(name.to_owned(), resource);
    };
    let mut refused = HashSet::new();
    for cluster in &set.clusters {
        let body = cluster.encode();
        let known = same(type_url::CLUSTER, &cluster.name, &body).is_some();
        match if known { Ok(()) } else { sound(type_url::CLUSTER, &body) } {
            Ok(()) => put(type_url::CLUSTER, &cluster.name, body),
            Err(error) => {
                tracing::error!(
                    "{}: requests to it are refused, because proxies would reject it: {error}",
                    cluster.name
                );
                let mut empty = Cluster::new(cluster.name.clone(), Discovery::Eds(cluster.name.clone()));
                empty.panic_threshold = 0;
                empty.refused = Some(format!("proxies would reject its cluster: {error}"));
                put(type_url::CLUSTER, &cluster.name, empty.encode());
                let nobody = LoadAssignment { cluster: cluster.name.clone(), ..LoadAssignment::default() };
                put(type_url::ENDPOINT, &cluster.name, nobody.encode());
                refused.insert(cluster.name.clone());
            }
        }
    }
    for assignment in set.endpoints.iter().filter(|a| !refused.contains(&a.cluster)) {
        put(type_url::ENDPOINT, &assignment.cluster, assignment.encode());
    }
    for listener in &set.listeners {
        put(type_url::LISTENER, &listener.name, listener.encode());
    }
    for listener in &set.api_listeners {
        put(type_url::LISTENER, &listener.name, listener.encode());
    }
    for routes in &set.routes {
        let body = routes.encode();
        let known = same(type_url::ROUTE, &routes.name, &body).is_some();
        match if known { Ok(()) } else { sound(type_url::ROUTE, &body) } {
            Ok(()) => put(type_url::ROUTE, &routes.name, body),
            Err(_) => put(type_url::ROUTE, &routes.name, mended(routes).encode()),
        }
    }
    let versions: Vec<&str> = map.types.values().flat_map(|t| t.values()).map(|r| r.version.as_str()).collect();
    map.version = format!("{:016x}", xxh64(versions.concat().as_bytes(), 0));
    map
}
