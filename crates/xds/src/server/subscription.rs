//! What one client wants of one type, and what it was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::names::Names;
use crate::message::{Resource, TypeMap};

/// State of one type on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Whether the client ever asked.
    pub(super) active: bool,
    /// Whether it wants everything.
    pub(super) wildcard: bool,
    /// True when a name stands for everything below it too.
    pub(super) is_on_demand: bool,
    /// What it wants by name.
    names: Names,
    /// The resources that it has. When that is all there is, the map is the target itself and costs nothing.
    pub(super) given: TypeMap,
    /// Names whose resource may differ from what the client has; true where they must be answered even if it does not.
    pending: BTreeMap<Arc<str>, bool>,
    /// True when every name may differ, as after the first request.
    all_pending: bool,
    /// Whether anything was ever sent.
    pub(super) answered: bool,
    /// The nonce that is not acknowledged yet.
    pub(super) outstanding: Option<String>,
    /// The newest nonce sent.
    pub(super) last_nonce: String,
    /// Version of the response that `last_nonce` belongs to.
    pub(super) sent_version: Arc<str>,
    /// Version of the newest acknowledged response.
    pub(super) acked_version: Arc<str>,
    /// Text of the newest rejection, until the next acknowledgement.
    pub(super) rejection: Option<String>,
    /// True when it was told how the client stands.
    pub(super) is_told: bool,
}

/// The content of a response of additions.
pub(super) struct Additions {
    /// Resources that the client lacks or has in another version.
    pub(super) changed: Vec<Arc<Resource>>,
    /// Names that it asked for and that do not exist.
    pub(super) absent: Vec<Arc<str>>,
}

impl Subscription {
    /// Returns whether the client wants the resource of that name.
    pub(super) fn wants(&self, name: &str) -> bool {
        let below = || name.rsplit_once('/').is_some_and(|(above, _)| self.names.contains(above));
        self.wildcard || self.names.contains(name) || (self.is_on_demand && below())
    }

    /// Takes over what a client says it has from an earlier stream.
    pub(super) fn remember(&mut self, versions: &BTreeMap<String, String>) {
        self.given = versions
            .iter()
            .map(|(name, version)| {
                let name: Arc<str> = name.as_str().into();
                let known = Resource { name: name.clone(), version: version.clone(), body: bytes::Bytes::new() };
                (name, Arc::new(known))
            })
            .collect();
    }

    /// Takes in a state-of-the-world request, which lists every name each time.
    pub(super) fn replace_names(&mut self, names: &[String], target: &TypeMap) {
        let first = !self.active;
        self.active = true;
        let wildcard = names.iter().any(|n| n == "*") || (names.is_empty() && (first || self.wildcard));
        let names: Names = names.iter().filter(|n| *n != "*").map(|n| shared(n, target)).collect();
        if !wildcard {
            let gone: Vec<Arc<str>> = self.names.without(&names).cloned().collect();
            gone.iter().for_each(|name| self.forget(name));
        }
        let added: Vec<Arc<str>> = names.without(&self.names).cloned().collect();
        self.names = names;
        added.into_iter().for_each(|name| self.force(name, target));
        self.all_pending |= wildcard && !self.wildcard;
        self.wildcard = wildcard;
    }

    /// Takes in a delta request, which says what changed.
    pub(super) fn change_names(&mut self, subscribe: &[String], unsubscribe: &[String], target: &TypeMap) {
        if !self.active && subscribe.is_empty() && unsubscribe.is_empty() {
            self.wildcard = true;
        }
        self.all_pending |= !self.active && (self.wildcard || !self.given.is_empty());
        self.active = true;
        if subscribe.iter().any(|name| name == "*") {
            self.all_pending |= !self.wildcard;
            self.wildcard = true;
        }
        let added: Vec<Arc<str>> = subscribe.iter().filter(|name| *name != "*").map(|n| shared(n, target)).collect();
        self.names.extend(added.iter().cloned());
        added.into_iter().for_each(|name| self.force(name, target));
        for name in unsubscribe {
            if name == "*" {
                self.wildcard = false;
                let unwanted: Vec<Arc<str>> = self.given.keys().filter(|n| !self.wants(n)).cloned().collect();
                for name in unwanted {
                    self.given.remove(&name);
                }
            } else {
                let name = shared(name, target);
                self.names.remove(&name);
                self.forget(&name);
                if self.wildcard {
                    self.force(name, target);
                }
            }
        }
    }

    /// Demands an answer about a name, and about everything below it where names stand for that.
    fn force(&mut self, name: Arc<str>, target: &TypeMap) {
        let mut below = below(&name, target, self.is_on_demand).peekable();
        if below.peek().is_some() {
            let below: Vec<Arc<str>> = below.cloned().collect();
            self.pending.extend(below.into_iter().map(|name| (name, true)));
            if !target.contains_key(&name) {
                return;
            }
        }
        self.pending.insert(name, true);
    }

    /// Demands that what the client has under this name is sent again.
    pub(super) fn resend(&mut self, name: &Arc<str>) {
        if self.given.contains_key(name) {
            self.pending.insert(name.clone(), true);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        let below: Vec<Arc<str>> = below(name, &self.given, self.is_on_demand).cloned().collect();
        for name in below.iter().chain([name]) {
            self.given.remove(name);
            self.pending.remove(name);
        }
    }

    /// Notes what changes from one target to the next.
    pub(super) fn note_changes(&mut self, before: &TypeMap, after: &TypeMap) {
        if !self.active || self.all_pending || before.ptr_eq(after) {
            return;
        }
        for difference in before.diff(after) {
            let (DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _)) =
                difference;
            if self.wants(name) || self.given.contains_key(name) {
                self.pending.entry(name.clone()).or_default();
            }
        }
    }

    /// Notes names that differ from one target to the next.
    pub(super) fn note_names<'a>(&mut self, changed: impl Iterator<Item = &'a Arc<str>>) {
        if !self.active || self.all_pending {
            return;
        }
        for name in changed {
            if self.wants(name) || self.given.contains_key(name) {
                self.pending.entry(name.clone()).or_default();
            }
        }
    }

    /// Takes what is to be added or changed; names that are to be removed stay pending.
    pub(super) fn take_additions(&mut self, target: &TypeMap, tells_absence: bool) -> Additions {
        let mut additions = Additions { changed: Vec::new(), absent: Vec::new() };
        let pending = std::mem::take(&mut self.pending);
        let is_all = std::mem::take(&mut self.all_pending);
        if is_all {
            let gone = self.given.keys().filter(|name| !target.contains_key(*name));
            self.pending = gone.map(|name| (name.clone(), false)).collect();
            for (name, resource) in target {
                let is_forced = pending.get(name).copied().unwrap_or_default();
                if self.wants(name) && (is_forced || self.lacks(resource)) {
                    additions.changed.push(resource.clone());
                }
            }
        }
        for (name, is_forced) in pending {
            match target.get(&name) {
                Some(_) if is_all => {}
                Some(resource) if is_forced || (self.wants(&name) && self.lacks(resource)) => {
                    additions.changed.push(resource.clone());
                }
                Some(_) => {}
                None => {
                    if is_forced && tells_absence {
                        additions.absent.push(name.clone());
                    }
                    self.pending.insert(name, is_forced);
                }
            }
        }
        additions
    }

    /// Returns whether the client does not have this version of a resource.
    fn lacks(&self, resource: &Resource) -> bool {
        self.given.get(&resource.name).is_none_or(|given| given.version != resource.version)
    }

    /// Notes that these were sent.
    pub(super) fn give(&mut self, additions: &Additions, target: &TypeMap) {
        for name in &additions.absent {
            self.given.remove(name);
            self.pending.remove(name);
        }
        // With these the client has all there is, mostly: the target itself says so without a copy of any part of a map.
        let is_new = |resource: &&Arc<Resource>| !self.given.contains_key(&resource.name);
        let known = self.given.len() + additions.changed.iter().filter(is_new).count();
        if self.is_settled() && known == target.len() {
            self.given = target.clone();
        } else {
            self.given.extend(additions.changed.iter().map(|resource| (resource.name.clone(), resource.clone())));
        }
    }

    /// Takes the names of what the client has and that is gone.
    pub(super) fn take_removals(&mut self, target: &TypeMap) -> Vec<Arc<str>> {
        let pending = self.pending.keys().filter(|name| !target.contains_key(*name) && self.given.contains_key(*name));
        let gone: Vec<Arc<str>> = pending.cloned().collect();
        self.pending.retain(|name, _| target.contains_key(name));
        for name in &gone {
            self.given.remove(name);
        }
        self.share(target);
        gone
    }

    /// Keeps one map for all clients that have everything: the target itself.
    fn share(&mut self, target: &TypeMap) {
        if self.pending.is_empty() && !self.all_pending && self.given.len() == target.len() {
            self.given = target.clone();
        }
    }

    /// Returns whether there is nothing to be sent, whatever the target.
    pub(super) fn is_settled(&self) -> bool {
        !self.all_pending && self.pending.is_empty()
    }

    /// Notes that a response is sent.
    pub(super) fn answer(&mut self, nonce: String, version: &Arc<str>) {
        self.pending.values_mut().for_each(|is_forced| *is_forced = false);
        self.answered = true;
        self.is_told = false;
        self.outstanding = Some(nonce.clone());
        self.last_nonce = nonce;
        self.sent_version = version.clone();
    }
}

/// The names below a name, where names stand for that.
fn below<'a>(name: &str, map: &'a TypeMap, is_on_demand: bool) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
    let start: Arc<str> = format!("{name}/").into();
    let prefix = start.clone();
    let names = is_on_demand.then(|| map.range(start..)).into_iter().flatten();
    names.map(|(name, _)| name).take_while(move |name| name.starts_with(&*prefix))
}

/// The name as the target has it, so that clients share one copy.
fn shared(name: &str, target: &TypeMap) -> Arc<str> {
    target.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
}
