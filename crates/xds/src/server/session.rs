//! One client's stream as a state machine.
//!
//! Order is make before break: additions and changes go out in the order of the types (clusters, endpoints,
//! listeners, routes); listeners and routes wait until clusters and endpoints are acknowledged; removals go last. At most one
//! response of a type is unacknowledged, so a slow client holds no queue: it gets the newest state when it is ready.
//! A rejected resource is not sent again until its version changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::{Resource, ResourceMap, TypeMap};
use crate::server::subscription::{Additions, Subscription};
use crate::type_spec::TypeSpec;

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
    pub type_url: Arc<str>,
    /// Where it stands.
    pub state: TypeState,
    /// Version of the newest response.
    pub sent: Arc<str>,
    /// Version of the newest acknowledged response.
    pub acked: Arc<str>,
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
    /// The types in the order of additions.
    specs: Vec<TypeSpec>,
    subscriptions: BTreeMap<Arc<str>, Subscription>,
    resources: Arc<ResourceMap>,
    nonce: u64,
    /// New clusters whose endpoints the client has not asked for yet.
    awaited: BTreeSet<Arc<str>>,
    endpoint_wait: Option<Instant>,
}

impl Session {
    /// Makes a session that serves these types.
    #[must_use]
    pub fn new(mode: Mode, types: &[TypeSpec]) -> Self {
        let mut specs = types.to_vec();
        specs.sort_by_key(|spec| spec.addition);
        Self {
            mode,
            specs,
            subscriptions: BTreeMap::new(),
            resources: Arc::default(),
            nonce: 0,
            awaited: BTreeSet::new(),
            endpoint_wait: None,
        }
    }

    /// Takes a request in.
    pub fn on_request(&mut self, request: &Request) {
        let mode = self.mode;
        let spec = self.specs.iter().find(|spec| spec.url == request.type_url);
        let subscription = self.subscriptions.entry(request.type_url.as_str().into()).or_default();
        subscription.is_on_demand = spec.is_some_and(|spec| spec.is_on_demand);
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
        let nothing = TypeMap::default();
        let target = self.resources.of_type(&request.type_url).unwrap_or(&nothing);
        match mode {
            Mode::Sotw => subscription.replace_names(&request.names, target),
            Mode::Delta => {
                if !subscription.active {
                    subscription.remember(&request.initial_versions);
                }
                subscription.change_names(&request.subscribe, &request.unsubscribe, target);
            }
        }
        if spec.is_some_and(|spec| spec.completes.is_some()) {
            match subscription.wildcard {
                true => self.awaited.clear(),
                false => request.subscribe.iter().chain(&request.names).for_each(|name| {
                    self.awaited.remove(name.as_str());
                }),
            }
        }
    }

    /// Sets what the client should have.
    pub fn set_resources(&mut self, resources: Arc<ResourceMap>) {
        let nothing = TypeMap::default();
        for (type_url, subscription) in &mut self.subscriptions {
            let before = self.resources.of_type(type_url).unwrap_or(&nothing);
            subscription.note_changes(before, resources.of_type(type_url).unwrap_or(&nothing));
        }
        let completing = self.specs.iter().find(|spec| spec.completes.is_some());
        let completing = completing.and_then(|spec| resources.of_type(spec.url));
        self.awaited.retain(|name| completing.is_some_and(|there| there.contains_key(name)));
        self.resources = resources;
    }

    /// Returns the next response to send; call again until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Response> {
        self.endpoint_wait = self.endpoint_wait.filter(|until| now < *until && !self.awaited.is_empty());
        for index in 0..self.specs.len() {
            let spec = *self.specs.get(index)?;
            match self.may_send(index) {
                true => {}
                // What completes a type does not wait for its acknowledgement, see `may_send`.
                false if self.specs.get(index + 1).is_some_and(|next| next.completes == Some(spec.url)) => continue,
                false => return None,
            }
            if let Some(response) = self.additions(spec, now) {
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

    /// The version of what the client should have.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.resources.version
    }

    /// Returns whether the client asked for all that there is for it and has confirmed it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let has = |spec: &TypeSpec| {
            let subscription = self.subscriptions.get(spec.url);
            let there = self.resources.of_type(spec.url).is_some_and(|map| !map.is_empty());
            subscription.map_or(!there, |s| s.outstanding.is_none() && s.is_settled())
        };
        self.specs.iter().all(has)
    }

    /// How the client stands, by type.
    #[must_use]
    pub fn status(&self) -> Vec<TypeStatus> {
        let of = |(type_url, s): (&Arc<str>, &Subscription)| TypeStatus {
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

    /// Returns whether this type and those before it are settled. Endpoints do not wait for the clusters' acknowledgement: Envoy
    /// holds it back until new clusters are warm, and they get warm by their endpoints.
    fn may_send(&self, index: usize) -> bool {
        let Some(spec) = self.specs.get(index) else { return false };
        let concerns = |other: &&TypeSpec| spec.completes != Some(other.url);
        let settled = self
            .specs
            .iter()
            .take(index + 1)
            .filter(concerns)
            .all(|other| self.subscriptions.get(other.url).is_none_or(|s| s.outstanding.is_none()));
        let is_after_completion = self.specs.iter().take(index).any(|other| other.completes.is_some());
        settled && (!is_after_completion || self.endpoint_wait.is_none())
    }

    fn additions(&mut self, spec: TypeSpec, now: Instant) -> Option<Response> {
        let full = self.mode == Mode::Sotw && spec.is_full_state;
        let delta = self.mode == Mode::Delta;
        let subscription = self.subscriptions.get_mut(spec.url).filter(|s| s.active)?;
        let first = !subscription.answered && (full || (delta && subscription.wildcard));
        if subscription.is_settled() && !first {
            return None;
        }
        let target = self.resources.of_type(spec.url).cloned().unwrap_or_default();
        let additions = subscription.take_additions(&target, delta);
        if additions.changed.is_empty() && additions.absent.is_empty() && !first {
            return None;
        }
        let (updated, new): (Vec<Arc<str>>, Vec<Arc<str>>) =
            additions.changed.iter().map(|r| r.name.clone()).partition(|name| subscription.given.contains_key(name));
        subscription.give(&additions, &target);
        let Additions { changed, absent } = additions;
        let sent = if full { subscription.given.values().cloned().collect() } else { changed };
        if let Some(completing) = self.specs.iter().find(|other| other.completes == Some(spec.url)).copied() {
            self.after_completed(completing, &updated, new, now);
        }
        Some(self.respond(spec.url, sent, &absent))
    }

    /// A changed cluster asks for its endpoints anew; a new one is waited for.
    fn after_completed(&mut self, completing: TypeSpec, updated: &[Arc<str>], new: Vec<Arc<str>>, now: Instant) {
        let there = self.resources.of_type(completing.url);
        let subscription = self.subscriptions.get_mut(completing.url);
        let asked = |name: &Arc<str>| subscription.as_ref().is_some_and(|s| s.wants(name));
        let lacks = |name: &Arc<str>| there.is_some_and(|there| there.contains_key(name)) && !asked(name);
        let has_new = !new.is_empty();
        self.awaited.extend(new.into_iter().filter(lacks));
        if has_new && !self.awaited.is_empty() {
            self.endpoint_wait = Some(now + ENDPOINT_WAIT);
        }
        if let Some(endpoints) = subscription {
            updated.iter().for_each(|name| endpoints.resend(name));
        }
    }

    /// Types that take no part in the order are answered by what there is: nothing.
    fn other_types(&mut self) -> Option<Response> {
        let known = |type_url: &Arc<str>| self.specs.iter().any(|spec| spec.url == &**type_url);
        let waiting = self.subscriptions.iter().find(|(type_url, s)| {
            s.active && !s.answered && !known(type_url) && (self.mode == Mode::Delta || s.wildcard)
        });
        let type_url = waiting.map(|(type_url, _)| type_url.clone())?;
        Some(self.respond(&type_url, Vec::new(), &[]))
    }

    fn removals(&mut self) -> Option<Response> {
        let mut specs = self.specs.clone();
        specs.sort_by_key(|spec| spec.removal);
        for spec in specs {
            let Some(subscription) = self.subscriptions.get_mut(spec.url) else { continue };
            if subscription.outstanding.is_some() {
                return None;
            }
            if subscription.is_settled() {
                continue;
            }
            let target = self.resources.of_type(spec.url).cloned().unwrap_or_default();
            let gone = subscription.take_removals(&target);
            if gone.is_empty() {
                continue;
            }
            if self.mode == Mode::Delta {
                return Some(self.respond(spec.url, Vec::new(), &gone));
            }
            if spec.is_full_state {
                let left = subscription.given.values().cloned().collect();
                return Some(self.respond(spec.url, left, &[]));
            }
        }
        None
    }

    fn respond(&mut self, type_url: &str, resources: Vec<Arc<Resource>>, removed: &[Arc<str>]) -> Response {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let version = self.resources.version.clone();
        let subscription = self.subscriptions.entry(type_url.into()).or_default();
        subscription.answer();
        subscription.outstanding = Some(nonce.clone());
        subscription.last_nonce = nonce.clone();
        subscription.sent_version = version.clone();
        let removed = removed.iter().map(ToString::to_string).collect();
        Response { type_url: type_url.to_owned(), nonce, version: version.to_string(), resources, removed }
    }
}
