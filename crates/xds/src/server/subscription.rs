//! What one client wants of one type, and what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::message::Resource;

/// State of one type on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Whether the client ever asked.
    pub(super) active: bool,
    /// Whether it wants everything.
    pub(super) wildcard: bool,
    /// What it wants by name.
    pub(super) names: BTreeSet<String>,
    /// What it has: version by name.
    pub(super) given: BTreeMap<String, String>,
    /// Bodies of what it has, kept while they may have to be sent again (full-state types).
    pub(super) bodies: BTreeMap<String, Arc<Resource>>,
    /// Names that must be answered even if the client should have them.
    pub(super) forced: BTreeSet<String>,
    /// Whether anything was ever sent.
    pub(super) answered: bool,
    /// The nonce that is not acknowledged yet.
    pub(super) outstanding: Option<String>,
    /// The newest nonce sent.
    pub(super) last_nonce: String,
    /// Version of the response that `last_nonce` belongs to.
    pub(super) sent_version: String,
    /// Version of the newest acknowledged response.
    pub(super) acked_version: String,
    /// Text of the newest rejection, until the next acknowledgement.
    pub(super) rejection: Option<String>,
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// A state-of-the-world request lists every name each time.
    pub(super) fn replace_names(&mut self, names: &[String]) {
        let first = !self.active;
        self.active = true;
        let wildcard = names.iter().any(|n| n == "*") || (names.is_empty() && (first || self.wildcard));
        let names: BTreeSet<String> = names.iter().filter(|n| *n != "*").cloned().collect();
        let gone: Vec<String> = self.names.difference(&names).cloned().collect();
        if !wildcard {
            for name in &gone {
                self.forget(name);
            }
        }
        let added: Vec<String> = names.difference(&self.names).cloned().collect();
        self.forced.extend(added);
        self.wildcard = wildcard;
        self.names = names;
    }

    /// A delta request says what changed.
    pub(super) fn change_names(&mut self, subscribe: &[String], unsubscribe: &[String]) {
        if !self.active && subscribe.is_empty() && unsubscribe.is_empty() {
            self.wildcard = true;
        }
        self.active = true;
        for name in subscribe {
            if name == "*" {
                self.wildcard = true;
            } else {
                self.names.insert(name.clone());
                self.forced.insert(name.clone());
            }
        }
        for name in unsubscribe {
            if name == "*" {
                self.wildcard = false;
                let names = self.names.clone();
                self.given.retain(|n, _| names.contains(n));
            } else {
                self.names.remove(name);
                self.forget(name);
                if self.wildcard {
                    self.forced.insert(name.clone());
                }
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.given.remove(name);
        self.bodies.remove(name);
        self.forced.remove(name);
    }
}
