//! One client's stream as a state machine.
//!
//! Order is make before break: additions and changes go out in the order of the types (clusters, endpoints,
//! listeners, routes); listeners and routes wait until clusters and endpoints are acknowledged; removals go last. At most one
//! response of a type is unacknowledged, so a slow client holds no queue: it gets the newest state when it is ready.
//! A rejected resource is not sent again until its version changes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
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
    pub type_url: Cow<'static, str>,
    /// Its nonce.
    pub nonce: String,
    /// Version of the state it belongs to.
    pub version: Arc<str>,
    /// New or changed resources (all of them, in state of the world for full-state types).
    pub resources: Vec<Arc<Resource>>,
    /// Delta: names that are gone.
    pub removed: Vec<Arc<str>>,
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
    pub type_url: Cow<'static, str>,
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
    /// The types of a mesh in the order of additions.
    served: Vec<Served>,
    /// The places in `served` in the order of removals.
    removal: Vec<usize>,
    /// Types that take no part in the order: there is nothing of them.
    others: BTreeMap<String, Subscription>,
    resources: Arc<ResourceMap>,
    nonce: u64,
    /// New clusters whose endpoints the client has not asked for yet.
    awaited: HashSet<Arc<str>>,
    endpoint_wait: Option<Instant>,
}

/// A type of a mesh on a stream.
struct Served {
    spec: TypeSpec,
    /// The resources that the client should have.
    target: TypeMap,
    /// The names that it wants and the resources that it has; `None` before it asks.
    subscription: Option<Subscription>,
}

impl Session {
    /// Returns the variant of the protocol that its client speaks.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes a session that serves these types.
    #[must_use]
    pub fn new(mode: Mode, types: &[TypeSpec]) -> Self {
        let mut specs = types.to_vec();
        specs.sort_by_key(|spec| spec.addition);
        let mut removal: Vec<usize> = (0..specs.len()).collect();
        removal.sort_by_key(|place| specs.get(*place).map(|spec| spec.removal));
        let served = |spec| Served { spec, target: TypeMap::default(), subscription: None };
        Self {
            mode,
            served: specs.into_iter().map(served).collect(),
            removal,
            others: BTreeMap::new(),
            resources: Arc::default(),
            nonce: 0,
            awaited: HashSet::new(),
            endpoint_wait: None,
        }
    }

    /// Takes a request in.
    pub fn on_request(&mut self, request: &Request) {
        let nothing = TypeMap::default();
        let served = self.served.iter_mut().find(|served| served.spec.url == request.type_url);
        let (spec, target, subscription) = match served {
            Some(served) => {
                (Some(served.spec), &served.target, served.subscription.get_or_insert_with(Subscription::default))
            }
            None => (None, &nothing, self.others.entry(request.type_url.clone()).or_default()),
        };
        subscription.is_on_demand = spec.is_some_and(|spec| spec.is_on_demand);
        let stale = !request.nonce.is_empty() && request.nonce != subscription.last_nonce;
        if self.mode == Mode::Sotw && stale {
            return;
        }
        subscription.is_told = false;
        if !request.nonce.is_empty() && !stale && subscription.outstanding.take().is_some() {
            match &request.error {
                Some(error) => subscription.rejection = Some(error.clone()),
                None => {
                    subscription.acked_version = subscription.sent_version.clone();
                    subscription.rejection = None;
                }
            }
        }
        match self.mode {
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
        let known = resources.changed_since(&self.resources.version);
        for served in &mut self.served {
            let nothing = TypeMap::default();
            let after = resources.of_type(served.spec.url).unwrap_or(&nothing);
            // Most of what all clients share has not changed: it is not touched.
            if served.target.ptr_eq(after) {
                continue;
            }
            let before = std::mem::replace(&mut served.target, after.clone());
            if served.spec.completes.is_some() && !self.awaited.is_empty() {
                self.awaited.retain(|name| served.target.contains_key(name));
            }
            let Some(subscription) = &mut served.subscription else { continue };
            match known {
                Some(changed) => {
                    let of_type = changed.iter().filter(|(type_url, _)| *type_url == served.spec.url);
                    subscription.note_names(of_type.map(|(_, name)| name));
                }
                None => subscription.note_changes(&before, &served.target),
            }
        }
        self.resources = resources;
    }

    /// Returns the next response to send; call again until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Response> {
        self.endpoint_wait = self.endpoint_wait.filter(|until| now < *until && !self.awaited.is_empty());
        for index in 0..self.served.len() {
            let spec = self.served.get(index)?.spec;
            match self.may_send(index) {
                true => {}
                // What completes a type does not wait for its acknowledgement, see `may_send`.
                false if self.served.get(index + 1).is_some_and(|next| next.spec.completes == Some(spec.url)) => {
                    continue;
                }
                false => return None,
            }
            if let Some(response) = self.additions(index, now) {
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

    /// Returns whether the client has confirmed all that it has asked for so far, and something at all.
    #[must_use]
    pub fn has_confirmed(&self) -> bool {
        let mut asked = self.served.iter().filter_map(|served| served.subscription.as_ref());
        let is_confirmed = |s: &Subscription| s.answered && s.outstanding.is_none() && s.is_settled();
        asked.clone().next().is_some() && asked.all(is_confirmed)
    }

    /// Tells how the client stands with the types for which that changed since the last call.
    pub fn take_status(&mut self) -> Vec<TypeStatus> {
        let served = self.served.iter_mut();
        let served = served.filter_map(|s| Some((Cow::Borrowed(s.spec.url), s.subscription.as_mut()?)));
        let others = self.others.iter_mut().map(|(type_url, s)| (Cow::Owned(type_url.clone()), s));
        let of = |(type_url, s): (_, &mut Subscription)| {
            let is_told = std::mem::replace(&mut s.is_told, true);
            (!is_told).then(|| TypeStatus {
                type_url,
                state: match (&s.rejection, &s.outstanding) {
                    (Some(_), _) => TypeState::Nacked,
                    (None, Some(_)) => TypeState::Stale,
                    (None, None) => TypeState::Synced,
                },
                sent: s.sent_version.clone(),
                acked: s.acked_version.clone(),
                error: s.rejection.clone(),
                resources: s.given.len(),
            })
        };
        served.chain(others).filter_map(of).collect()
    }

    /// Returns whether this type and those before it are settled. Endpoints do not wait for the clusters' acknowledgement: Envoy
    /// holds it back until new clusters are warm, and they get warm by their endpoints.
    fn may_send(&self, index: usize) -> bool {
        let Some(spec) = self.served.get(index).map(|served| served.spec) else { return false };
        let mut before = self.served.iter().take(index + 1).filter(|other| spec.completes != Some(other.spec.url));
        let settled = before.all(|other| other.subscription.as_ref().is_none_or(|s| s.outstanding.is_none()));
        let is_after_completion = self.served.iter().take(index).any(|other| other.spec.completes.is_some());
        settled && (!is_after_completion || self.endpoint_wait.is_none())
    }

    fn additions(&mut self, index: usize, now: Instant) -> Option<Response> {
        let Served { spec, target, subscription } = self.served.get_mut(index)?;
        let full = self.mode == Mode::Sotw && spec.is_full_state;
        let delta = self.mode == Mode::Delta;
        let subscription = subscription.as_mut().filter(|s| s.active)?;
        let first = !subscription.answered && (full || (delta && subscription.wildcard));
        if subscription.is_settled() && !first {
            return None;
        }
        let additions = subscription.take_additions(target, delta);
        let gone = if spec.is_exclusive && delta { subscription.take_removals(target) } else { Vec::new() };
        if additions.changed.is_empty() && additions.absent.is_empty() && gone.is_empty() && !first {
            return None;
        }
        let completing = self.completing(index);
        let Served { target, subscription, .. } = self.served.get_mut(index)?;
        let subscription = subscription.as_mut()?;
        let (mut updated, mut new) = (Vec::new(), Vec::new());
        if completing.is_some() {
            let names = additions.changed.iter().map(|resource| resource.name.clone());
            (updated, new) = names.partition(|name| subscription.given.contains_key(name));
        }
        subscription.give(&additions, target);
        let Additions { changed, mut absent } = additions;
        absent.extend(gone);
        let sent = if full { subscription.given.values().cloned().collect() } else { changed };
        if let Some(completing) = completing {
            self.after_completed(completing, &updated, new, now);
        }
        Some(self.respond(index, sent, absent))
    }

    /// The place of the type that completes this one.
    fn completing(&self, index: usize) -> Option<usize> {
        let url = self.served.get(index)?.spec.url;
        self.served.iter().position(|other| other.spec.completes == Some(url))
    }

    /// A changed cluster asks for its endpoints anew; a new one is waited for.
    fn after_completed(&mut self, completing: usize, updated: &[Arc<str>], new: Vec<Arc<str>>, now: Instant) {
        let Some(Served { target: there, subscription, .. }) = self.served.get_mut(completing) else { return };
        let asked = |name: &Arc<str>| subscription.as_ref().is_some_and(|s| s.wants(name));
        let lacks = |name: &Arc<str>| there.contains_key(name) && !asked(name);
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
        let waits = |s: &Subscription| s.active && !s.answered && (self.mode == Mode::Delta || s.wildcard);
        let (type_url, subscription) = self.others.iter_mut().find(|(_, subscription)| waits(subscription))?;
        self.nonce += 1;
        subscription.answer(self.nonce.to_string(), &self.resources.version);
        Some(Response {
            type_url: Cow::Owned(type_url.clone()),
            nonce: self.nonce.to_string(),
            version: self.resources.version.clone(),
            resources: Vec::new(),
            removed: Vec::new(),
        })
    }

    fn removals(&mut self) -> Option<Response> {
        for place in 0..self.removal.len() {
            let index = *self.removal.get(place)?;
            let Served { spec, target, subscription } = self.served.get_mut(index)?;
            let Some(subscription) = subscription else { continue };
            if subscription.outstanding.is_some() {
                return None;
            }
            if subscription.is_settled() {
                continue;
            }
            let gone = subscription.take_removals(target);
            if gone.is_empty() {
                continue;
            }
            if self.mode == Mode::Delta {
                return Some(self.respond(index, Vec::new(), gone));
            }
            if spec.is_full_state {
                let left = subscription.given.values().cloned().collect();
                return Some(self.respond(index, left, Vec::new()));
            }
        }
        None
    }

    fn respond(&mut self, index: usize, resources: Vec<Arc<Resource>>, removed: Vec<Arc<str>>) -> Response {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let version = self.resources.version.clone();
        let served = self.served.get_mut(index);
        let type_url = served.map_or("", |served| {
            if let Some(subscription) = &mut served.subscription {
                subscription.answer(nonce.clone(), &version);
            }
            served.spec.url
        });
        Response { type_url: Cow::Borrowed(type_url), nonce, version, resources, removed }
    }
}
