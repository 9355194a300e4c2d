//! One client's stream as a state machine.
//!
//! Order is make before break: additions and changes go out in the order of the types (clusters, endpoints,
//! listeners, routes); listeners and routes wait until clusters and endpoints are acknowledged; removals go last. At most one
//! response of a type is unacknowledged, so a slow client holds no queue: it gets the newest state when it is ready.
//! A rejected resource is not sent again until its version changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::{Resource, ResourceMap};
use crate::server::subscription::Subscription;

/// Which variant of the protocol a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Changes only.
    Delta,
    /// State of the world.
    Sotw,
}

/// A request of either variant.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which type it speaks of.
    pub type_url: String,
    /// The nonce it answers, empty for none.
    pub nonce: String,
    /// Why the response of that nonce was rejected.
    pub error: Option<String>,
    /// State of the world: every name wanted.
    pub names: Vec<String>,
    /// Delta: names wanted from now on.
    pub subscribe: Vec<String>,
    /// Delta: names not wanted any more.
    pub unsubscribe: Vec<String>,
    /// Delta, first request of a type: what the client still has from before.
    pub initial_versions: BTreeMap<String, String>,
}

/// A response of either variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The type.
    pub type_url: String,
    /// Its nonce.
    pub nonce: String,
    /// Version of the state it belongs to.
    pub version: String,
    /// New or changed resources (all of them, in state of the world for full-state types).
    pub resources: Vec<Arc<Resource>>,
    /// Delta: names that are gone.
    pub removed: Vec<String>,
}

/// How a client stands with one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeState {
    /// It has what it should have.
    Synced,
    /// Something is on its way.
    Stale,
    /// It rejected the newest response.
    Nacked,
}

/// How a client stands with one type, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeStatus {
    /// The type.
    pub type_url: String,
    /// Where it stands.
    pub state: TypeState,
    /// Version of the newest response.
    pub sent: String,
    /// Version of the newest acknowledged response.
    pub acked: String,
    /// The rejection.
    pub error: Option<String>,
    /// Number of resources it has.
    pub resources: usize,
}

/// How long listeners and routes wait for a client to ask for the endpoints of clusters it was just given.
const ENDPOINT_WAIT: Duration = Duration::from_secs(1);

/// One stream.
pub struct Session {
    mode: Mode,
    order: Vec<String>,
    full_state: BTreeSet<String>,
    subscriptions: BTreeMap<String, Subscription>,
    resources: Arc<ResourceMap>,
    nonce: u64,
    endpoint_wait: Option<Instant>,
}

impl Session {
    /// A session that pushes types in `order`. The first type names what the second completes (clusters and their
    /// endpoints); the first and third are full-state types, of which absence means removal.
    #[must_use]
    pub fn new(mode: Mode, order: &[&str]) -> Self {
        let full_state = order.iter().step_by(2).map(|t| (*t).to_owned()).collect();
        Self {
            mode,
            order: order.iter().map(|t| (*t).to_owned()).collect(),
            full_state,
            subscriptions: BTreeMap::new(),
            resources: Arc::default(),
            nonce: 0,
            endpoint_wait: None,
        }
    }

    /// Takes a request in.
    pub fn on_request(&mut self, request: &Request) {
        let mode = self.mode;
        let subscription = self.subscriptions.entry(request.type_url.clone()).or_default();
        let stale = !request.nonce.is_empty() && request.nonce != subscription.last_nonce;
        if mode == Mode::Sotw && stale {
            return;
        }
        if !request.nonce.is_empty() && !stale && subscription.outstanding.take().is_some() {
            match &request.error {
                Some(error) => subscription.rejection = Some(error.clone()),
                None => {
                    subscription.acked_version = subscription.sent_version.clone();
                    subscription.rejection = None;
                }
            }
        }
        match mode {
            Mode::Sotw => subscription.replace_names(&request.names),
            Mode::Delta => {
                if !subscription.active {
                    subscription.given = request.initial_versions.clone();
                }
                subscription.change_names(&request.subscribe, &request.unsubscribe);
            }
        }
    }

    /// Sets what the client should have.
    pub fn set_resources(&mut self, resources: Arc<ResourceMap>) {
        self.resources = resources;
    }

    /// The next response to send; call again until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Response> {
        self.endpoint_wait = self.endpoint_wait.filter(|until| now < *until);
        for index in 0..self.order.len() {
            match self.may_send(index) {
                true => {}
                false if index == 0 => continue,
                false => return None,
            }
            let type_url = self.order.get(index).cloned()?;
            if let Some(response) = self.additions(&type_url, now) {
                return Some(response);
            }
        }
        self.other_types().or_else(|| self.removals())
    }

    /// When [`Session::poll`] should be called again although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.endpoint_wait
    }

    /// How the client stands, by type.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.resources.version
    }

    /// How the client stands, by type.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        let of = |(type_url, s): (&String, &Subscription)| TypeStatus {
            type_url: type_url.clone(),
            state: match (&s.rejection, &s.outstanding) {
                (Some(_), _) => TypeState::Nacked,
                (None, Some(_)) => TypeState::Stale,
                (None, None) => TypeState::Synced,
            },
            sent: s.sent_version.clone(),
            acked: s.acked_version.clone(),
            error: s.rejection.clone(),
            resources: s.given.len(),
        };
        self.subscriptions.iter().map(of).collect()
    }

    /// Whether this type and those before it are settled. Endpoints do not wait for the clusters' acknowledgement: Envoy
    /// holds it back until new clusters are warm, and they get warm by their endpoints.
    fn may_send(&mut self, index: usize) -> bool {
        let settled = self
            .order
            .iter()
            .take(index + 1)
            .skip(usize::from(index == 1))
            .all(|t| self.subscriptions.get(t).is_none_or(|s| s.outstanding.is_none()));
        if !settled || index < 2 {
            return settled;
        }
        if self.endpoints_asked_for() {
            self.endpoint_wait = None;
        }
        self.endpoint_wait.is_none()
    }

    /// Whether the client asked for the endpoints of every cluster.
    fn endpoints_asked_for(&self) -> bool {
        let Some(type_url) = self.order.get(1) else { return true };
        let Some(endpoints) = self.resources.of_type(type_url) else { return true };
        let subscription = self.subscriptions.get(type_url);
        endpoints.keys().all(|name| subscription.is_some_and(|s| s.wants(name)))
    }

    fn additions(&mut self, type_url: &str, now: Instant) -> Option<Response> {
        let resources = self.resources.of_type(type_url).cloned().unwrap_or_default();
        let full = self.mode == Mode::Sotw && self.full_state.contains(type_url);
        let delta = self.mode == Mode::Delta;
        let subscription = self.subscriptions.get_mut(type_url).filter(|s| s.active)?;
        let mut changed: Vec<Arc<Resource>> = Vec::new();
        for (name, resource) in resources.iter().filter(|(name, _)| subscription.wants(name)) {
            let known = subscription.given.get(name) == Some(&resource.version);
            if !known || subscription.forced.contains(name) {
                changed.push(resource.clone());
            }
        }
        let absent: Vec<String> =
            subscription.forced.iter().filter(|n| delta && !resources.contains_key(*n)).cloned().collect();
        let first = !subscription.answered && (full || (delta && subscription.wildcard));
        if changed.is_empty() && absent.is_empty() && !first {
            return None;
        }
        let updated: Vec<String> =
            changed.iter().map(|r| r.name.clone()).filter(|n| subscription.given.contains_key(n)).collect();
        let any_new = changed.iter().any(|r| !subscription.given.contains_key(&r.name));
        for resource in &changed {
            subscription.given.insert(resource.name.clone(), resource.version.clone());
            if full {
                subscription.bodies.insert(resource.name.clone(), resource.clone());
            }
        }
        for name in &absent {
            subscription.given.remove(name);
        }
        let sent = if full { subscription.bodies.values().cloned().collect() } else { changed };
        if self.order.first().is_some_and(|t| t == type_url) {
            self.after_clusters(&updated, any_new, now);
        }
        Some(self.respond(type_url, sent, absent))
    }

    /// A changed cluster asks for its endpoints anew; a new one is waited for.
    fn after_clusters(&mut self, updated: &[String], any_new: bool, now: Instant) {
        if any_new {
            self.endpoint_wait = Some(now + ENDPOINT_WAIT);
        }
        if let Some(endpoints) = self.order.get(1).and_then(|t| self.subscriptions.get_mut(t)) {
            let again = updated.iter().filter(|n| endpoints.given.contains_key(*n)).cloned().collect::<Vec<_>>();
            endpoints.forced.extend(again);
        }
    }

    /// Types that take no part in the order are answered by what there is: nothing.
    fn other_types(&mut self) -> Option<Response> {
        let waiting = self.subscriptions.iter().find(|(type_url, s)| {
            s.active && !s.answered && !self.order.contains(type_url) && (self.mode == Mode::Delta || s.wildcard)
        });
        let type_url = waiting.map(|(type_url, _)| type_url.clone())?;
        Some(self.respond(&type_url, Vec::new(), Vec::new()))
    }

    fn removals(&mut self) -> Option<Response> {
        for type_url in self.order.iter().rev().cloned().collect::<Vec<_>>() {
            let resources = self.resources.of_type(&type_url).cloned().unwrap_or_default();
            let Some(subscription) = self.subscriptions.get_mut(&type_url) else { continue };
            if subscription.outstanding.is_some() {
                return None;
            }
            let gone: Vec<String> =
                subscription.given.keys().filter(|n| !resources.contains_key(*n)).cloned().collect();
            if gone.is_empty() {
                continue;
            }
            for name in &gone {
                subscription.given.remove(name);
                subscription.bodies.remove(name);
            }
            if self.mode == Mode::Delta {
                return Some(self.respond(&type_url, Vec::new(), gone));
            }
            if self.full_state.contains(&type_url) {
                let left = subscription.bodies.values().cloned().collect();
                return Some(self.respond(&type_url, left, Vec::new()));
            }
        }
        None
    }

    fn respond(&mut self, type_url: &str, resources: Vec<Arc<Resource>>, removed: Vec<String>) -> Response {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let subscription = self.subscriptions.entry(type_url.to_owned()).or_default();
        subscription.forced.clear();
        subscription.answered = true;
        subscription.outstanding = Some(nonce.clone());
        subscription.last_nonce = nonce.clone();
        subscription.sent_version = self.resources.version.clone();
        Response { type_url: type_url.to_owned(), nonce, version: self.resources.version.clone(), resources, removed }
    }
}
