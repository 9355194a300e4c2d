//! Indexes of a snapshot: objects by their place, by the hosts they are for, and instances by what finds them.
//!
//! All of them are persistent: a changed copy shares what is unchanged with the one before.

use std::borrow::Borrow;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::name::Hostname;
use crate::object::{Kind, Object, ObjectKey, Provenance};

/// Takes a value from the set under a key, and the key away with the last one.
pub(super) fn take<K: Ord + Clone, V: Ord + Clone>(sets: &mut OrdMap<K, OrdSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

/// The place of an object among all: by creation, then by name, namespace and kind, as Istio orders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Arc<(Provenance, String, String, Kind)>);

impl Rank {
    pub(super) fn new(key: &ObjectKey, provenance: &Provenance) -> Self {
        Self(Arc::new((provenance.clone(), key.name.name.clone(), key.name.namespace.clone(), key.kind)))
    }
}

/// An object in its place. Two are the same when they are one object in memory at one place.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) rank: Rank,
    pub(super) key: ObjectKey,
    pub(super) object: Arc<Object>,
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object) && self.rank == other.rank
    }
}

/// Objects in the order of their places.
pub(super) type Ranked = OrdMap<Rank, Arc<Object>>;

/// Objects under a key, in the order of their places.
#[derive(Debug, Clone)]
pub(super) struct Lists<K: Ord>(OrdMap<K, Arc<[Placed]>>);

impl<K: Ord> Default for Lists<K> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone> Lists<K> {
    /// Returns the objects under a key.
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> &[Placed]
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(AsRef::as_ref).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts an object under a key, once.
    pub(super) fn add(&mut self, key: &K, placed: &Placed) {
        let mut list: Vec<Placed> = self.0.get(key).map(|list| list.to_vec()).unwrap_or_default();
        let Err(at) = list.binary_search_by(|other| other.rank.cmp(&placed.rank)) else { return };
        list.insert(at, placed.clone());
        self.0.insert(key.clone(), list.into());
    }

    /// Takes an object away from under a key.
    pub(super) fn remove(&mut self, key: &K, rank: &Rank) {
        let left: Vec<Placed> =
            self.0.get(key).into_iter().flat_map(|l| l.iter()).filter(|p| p.rank != *rank).cloned().collect();
        match left.is_empty() {
            true => self.0.remove(key),
            false => self.0.insert(key.clone(), left.into()),
        };
    }
}

/// Objects by the hosts that they are for.
#[derive(Debug, Clone, Default)]
pub(super) struct ByHost {
    exact: Lists<Hostname>,
    /// Wildcards, by what follows their `*`.
    wide: Lists<Arc<str>>,
}

impl ByHost {
    pub(super) fn add(&mut self, host: &Hostname, placed: &Placed) {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => self.wide.add(&suffix.into(), placed),
            None => self.exact.add(host, placed),
        }
    }

    pub(super) fn remove(&mut self, host: &Hostname, rank: &Rank) {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => self.wide.remove(&suffix.into(), rank),
            None => self.exact.remove(host, rank),
        }
    }

    /// Returns the objects for hosts that cover this one, in their order, each once.
    pub(super) fn covering(&self, host: &Hostname) -> Vec<&Placed> {
        let mut found: Vec<&Placed> = self.exact.get(host).iter().collect();
        if !self.wide.is_empty() {
            // Every wildcard that covers a host is a `*` before one of its ends.
            let name = host.as_str();
            let ends = (0..=name.len()).filter_map(|from| name.get(from..));
            found.extend(ends.flat_map(|end| self.wide.get(end)));
            found.sort_by(|a, b| a.rank.cmp(&b.rank));
            found.dedup_by(|a, b| a.rank == b.rank);
        }
        found
    }

    /// Returns the objects for this very host.
    pub(super) fn of(&self, host: &Hostname) -> &[Placed] {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => self.wide.get(suffix),
            None => self.exact.get(host),
        }
    }
}
