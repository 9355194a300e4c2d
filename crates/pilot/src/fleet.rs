//! The proxies that are connected, and what each of them should have.
//!
//! Proxies that get the same are one class and share one map of resources, which is made of parts ([`class`]). A change makes the
//! parts again that rest on it, and what comes out the same keeps its version and its memory. Translation happens outside the lock
//! that streams use.

mod class;
mod sound;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serin_delivery::Applied;
use serin_model::{MeshSnapshot, ProxyIdentity, ProxyRole};
use serin_xds::server::{self, Control, Feed, Mode, TypeState, TypeStatus};
use serin_xds::{Error, ResourceMap};
use tokio::sync::watch;

use class::{Class, ClassKey};
use sound::Encoded;

/// All connected proxies.
#[derive(Default)]
pub(crate) struct Fleet {
    /// Held while a mesh is translated. Whoever takes both locks takes this one first.
    translation: Mutex<Translation>,
    state: Mutex<State>,
    next: AtomicU64,
}

/// The translations of the mesh, one for each class.
#[derive(Default)]
struct Translation {
    mesh: Arc<MeshSnapshot>,
    classes: HashMap<ClassKey, Class>,
    encoded: Encoded,
}

#[derive(Default)]
struct State {
    mesh: Arc<MeshSnapshot>,
    clients: BTreeMap<u64, Client>,
}

/// How long a client may take to confirm anything at all, until nothing waits for it.
const SILENCE: Duration = Duration::from_secs(60);

/// The time for which a class is kept whose last proxy left: proxies come back, all at once when a connection between them and the pilot was cut.
const RETURN: Duration = Duration::from_secs(60);

/// One stream.
pub(crate) struct Client {
    pub(crate) identity: ProxyIdentity,
    pub(crate) node_id: String,
    pub(crate) agent: String,
    pub(crate) peer: String,
    pub(crate) status: Vec<TypeStatus>,
    class: ClassKey,
    connected: Instant,
    /// Whether it has confirmed anything yet.
    has_confirmed: bool,
    /// The version of what its session should have brought it when it told how it stands.
    known: Arc<str>,
    sender: watch::Sender<Arc<ResourceMap>>,
}

impl Fleet {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes a new mesh to everybody whom it concerns.
    pub(crate) fn publish(&self, mesh: MeshSnapshot) {
        let mut translation = self.translation.lock().unwrap_or_else(PoisonError::into_inner);
        let mesh = Arc::new(mesh);
        let before = std::mem::replace(&mut translation.mesh, mesh.clone());
        self.lock().mesh = mesh.clone();
        let changes = mesh.changes_since(&before);
        if changes.is_empty() {
            return;
        }
        let Translation { classes, encoded, .. } = &mut *translation;
        classes.retain(|_, class| class.unused_since.is_none_or(|since| since.elapsed() < RETURN));
        if changes.everything {
            // Which labels are looked at may be another question now.
            let keys: Vec<ClassKey> = self.classify(&mesh);
            classes.retain(|key, _| keys.contains(key));
            let new: Vec<ClassKey> = keys.into_iter().filter(|key| !classes.contains_key(key)).collect();
            classes.extend(new.into_iter().map(|key| (key.clone(), Class::new(key, &mesh, encoded))));
        }
        in_parallel(classes.values_mut().collect(), changes.everything, |class| {
            class.update(&before, &mesh, &changes, encoded);
        });
        for client in self.lock().clients.values() {
            let Some(class) = classes.get(&client.class) else { continue };
            client.sender.send_if_modified(|current| {
                let is_new = !Arc::ptr_eq(current, class.map());
                *current = class.map().clone();
                is_new
            });
        }
    }

    /// Finds the class of every client anew; returns the classes that there are.
    fn classify(&self, mesh: &MeshSnapshot) -> Vec<ClassKey> {
        let mut keys = Vec::new();
        for client in self.lock().clients.values_mut() {
            client.class = ClassKey::of(&client.identity, client.class.has_vhds, mesh);
            if !keys.contains(&client.class) {
                keys.push(client.class.clone());
            }
        }
        keys
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
    fn connect(&self, client: &server::Client) -> Result<Feed, Error> {
        let node = &client.node;
        let mut identity =
            ProxyIdentity::parse(&node.id, node.labels.clone()).map_err(|error| Error::Refused(error.to_string()))?;
        if node.generator == "grpc" {
            identity.role = ProxyRole::Grpc;
        }
        // Incremental clients that are proxies take virtual hosts one by one.
        let has_vhds = client.mode == Mode::Delta && identity.role != ProxyRole::Grpc;
        let stream = self.next.fetch_add(1, Relaxed);
        let mut translation = self.translation.lock().unwrap_or_else(PoisonError::into_inner);
        let Translation { mesh, classes, encoded } = &mut *translation;
        let key = ClassKey::of(&identity, has_vhds, mesh);
        let class = classes.entry(key.clone()).or_insert_with(|| Class::new(key.clone(), mesh, encoded));
        class.unused_since = None;
        let (sender, resources) = watch::channel(class.map().clone());
        let client = Client {
            identity,
            node_id: node.id.clone(),
            agent: node.user_agent.clone(),
            peer: client.peer.address.clone(),
            status: Vec::new(),
            class: key,
            connected: Instant::now(),
            has_confirmed: false,
            known: Arc::default(),
            sender,
        };
        tracing::info!("{} connected from {}", client.identity.name, client.peer);
        self.lock().clients.insert(stream, client);
        Ok(Feed { resources, stream })
    }

    fn status(&self, stream: u64, known: &Arc<str>, changed: Vec<TypeStatus>) {
        let mut state = self.lock();
        let Some(client) = state.clients.get_mut(&stream) else { return };
        for new in changed {
            if let Some(error) = new.error.as_deref()
                && !client.status.iter().any(|old| old.error.as_deref() == Some(error))
            {
                tracing::warn!("{} rejected {}: {error}", client.identity.name, new.type_url);
            }
            client.has_confirmed |= !new.acked.is_empty();
            match client.status.iter_mut().find(|old| old.type_url == new.type_url) {
                Some(old) => *old = new,
                None => {
                    client.status.push(new);
                    client.status.sort_by(|a, b| a.type_url.cmp(&b.type_url));
                }
            }
        }
        if client.known != *known {
            client.known = known.clone();
        }
    }

    fn disconnect(&self, stream: u64) {
        let Some(client) = self.lock().clients.remove(&stream) else { return };
        tracing::info!("{} disconnected", client.identity.name);
        let mut translation = self.translation.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().clients.values().all(|other| other.class != client.class)
            && let Some(unused) = translation.classes.get_mut(&client.class)
        {
            unused.unused_since = Some(Instant::now());
        }
    }
}

/// Does the same to all, on several cores where each takes long.
fn in_parallel<T: Send>(all: Vec<T>, takes_long: bool, act: impl Fn(T) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if !takes_long || cores == 1 || all.len() < 2 {
        return all.into_iter().for_each(act);
    }
    let waiting = Mutex::new(all);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(next) = next else { return };
                    act(next);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests;
