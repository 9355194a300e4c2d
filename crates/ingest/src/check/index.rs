//! Documents by what others find them by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serin_model::{Attachment, BackendPolicy, Hostname, Object, ObjectKey, ObjectName, Provenance, Service};

use crate::document::Document;
use crate::node::Position;
use crate::reference::Reference;

/// A document among others, of which several may have the same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(ObjectKey, Arc<str>, Position);

impl Id {
    pub(super) fn of(document: &Document) -> Self {
        Self(document.key.clone(), document.file.clone(), document.at)
    }

    pub(super) fn key(&self) -> &ObjectKey {
        &self.0
    }
}

/// The place of a document among others: by creation, then by name and namespace.
pub(super) fn order(document: &Document) -> (&Provenance, &str, &str) {
    (&document.provenance, &document.key.name.name, &document.key.name.namespace)
}

/// Returns whether documents register hosts or Gateways that those in their place do not, or the other way round.
pub(super) fn names_others<'a>(
    before: impl Iterator<Item = &'a Document>,
    after: impl Iterator<Item = &'a Document>,
) -> bool {
    fn registered<'a>(
        documents: impl Iterator<Item = &'a Document>,
    ) -> (BTreeSet<&'a Hostname>, BTreeSet<&'a ObjectName>) {
        let (mut hosts, mut gateways) = (BTreeSet::new(), BTreeSet::new());
        for document in documents {
            match document.object.as_ref() {
                Object::Services(list) => hosts.extend(list.iter().map(|service| &service.host)),
                Object::Gateway(gateway) => gateways.extend([&gateway.name]),
                _ => {}
            }
        }
        (hosts, gateways)
    }
    registered(before) != registered(after)
}

/// Documents under names.
type Under<K> = BTreeMap<K, BTreeSet<Id>>;

/// The documents of a set, and where each name of them stands.
#[derive(Debug, Default)]
pub(super) struct Index {
    documents: BTreeMap<Id, Document>,
    services: Under<Hostname>,
    gateways: Under<ObjectName>,
    rules: Under<Hostname>,
    policies: Under<Hostname>,
    /// Policies for hosts with a `*`.
    wide_policies: Under<Hostname>,
    /// Documents with a destination of that host.
    users: Under<Hostname>,
    gateway_users: HashMap<ObjectName, BTreeSet<Id>>,
}

/// The names by which a document is found.
struct Names {
    services: Vec<Hostname>,
    gateway: Option<ObjectName>,
    rules: Vec<Hostname>,
    policy: Option<Hostname>,
    uses: BTreeSet<Hostname>,
    uses_gateways: BTreeSet<ObjectName>,
}

impl Names {
    fn of(document: &Document) -> Self {
        let mut names = Self {
            services: Vec::new(),
            gateway: None,
            rules: Vec::new(),
            policy: None,
            uses: BTreeSet::new(),
            uses_gateways: BTreeSet::new(),
        };
        match document.object.as_ref() {
            Object::Services(list) => names.services.extend(list.iter().map(|service| service.host.clone())),
            Object::Gateway(gateway) => names.gateway = Some(gateway.name.clone()),
            Object::RouteRules(rule) => {
                names.rules.clone_from(&rule.hosts);
                names.uses.extend(rule.destinations().map(|destination| destination.host.clone()));
                let in_matches = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.attachments.as_ref());
                for gateway in rule.attachments.iter().chain(in_matches.flatten()) {
                    if let Attachment::Gateway(name) = gateway {
                        names.uses_gateways.insert(name.clone());
                    }
                }
            }
            Object::BackendPolicy(rule) => names.policy = Some(rule.host.clone()),
            _ => {}
        }
        for reference in &document.references {
            match reference {
                Reference::Destination { host, .. } => names.uses.insert(host.clone()),
                Reference::Gateway { name, .. } => names.uses_gateways.insert(name.clone()),
            };
        }
        names
    }
}

fn put<K: Ord>(under: &mut Under<K>, key: K, id: &Id) {
    under.entry(key).or_default().insert(id.clone());
}

fn take<K: Ord>(under: &mut Under<K>, key: &K, id: &Id) {
    if let Some(list) = under.get_mut(key) {
        list.remove(id);
        if list.is_empty() {
            under.remove(key);
        }
    }
}

impl Index {
    pub(super) fn add(&mut self, document: &Document) {
        let (id, names) = (Id::of(document), Names::of(document));
        names.services.into_iter().for_each(|host| put(&mut self.services, host, &id));
        names.gateway.into_iter().for_each(|name| put(&mut self.gateways, name, &id));
        names.rules.into_iter().for_each(|host| put(&mut self.rules, host, &id));
        names.uses.into_iter().for_each(|host| put(&mut self.users, host, &id));
        if let Some(host) = names.policy {
            put(if host.is_wildcard() { &mut self.wide_policies } else { &mut self.policies }, host, &id);
        }
        for name in names.uses_gateways {
            self.gateway_users.entry(name).or_default().insert(id.clone());
        }
        self.documents.insert(id, document.clone());
    }

    pub(super) fn remove(&mut self, document: &Document) {
        let (id, names) = (Id::of(document), Names::of(document));
        names.services.iter().for_each(|host| take(&mut self.services, host, &id));
        names.gateway.iter().for_each(|name| take(&mut self.gateways, name, &id));
        names.rules.iter().for_each(|host| take(&mut self.rules, host, &id));
        names.uses.iter().for_each(|host| take(&mut self.users, host, &id));
        if let Some(host) = names.policy {
            take(if host.is_wildcard() { &mut self.wide_policies } else { &mut self.policies }, &host, &id);
        }
        for name in names.uses_gateways {
            if let Some(users) = self.gateway_users.get_mut(&name) {
                users.remove(&id);
            }
        }
        self.documents.remove(&id);
    }

    /// Adds the documents that rest on this one, and itself.
    pub(super) fn concerned_by(&self, document: &Document, concerned: &mut BTreeSet<Id>) {
        let names = Names::of(document);
        concerned.insert(Id::of(document));
        let mut add = |ids: Option<&BTreeSet<Id>>| concerned.extend(ids.into_iter().flatten().cloned());
        for host in &names.services {
            add(self.users.get(host));
            add(self.policies.get(host));
            self.wide_policies.iter().filter(|(wide, _)| wide.covers(host)).for_each(|(_, ids)| add(Some(ids)));
        }
        names.rules.iter().for_each(|host| add(self.rules.get(host)));
        if let Some(host) = &names.policy {
            add(self.policies.get(host));
            add(self.wide_policies.get(host));
            match host.is_wildcard() {
                true => self.users.iter().filter(|(user, _)| host.covers(user)).for_each(|(_, ids)| add(Some(ids))),
                false => add(self.users.get(host)),
            }
        }
        if let Some(name) = &names.gateway {
            add(self.gateway_users.get(name));
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Id> {
        self.documents.keys()
    }

    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.values()
    }

    pub(super) fn document(&self, id: &Id) -> Option<&Document> {
        self.documents.get(id)
    }

    /// The number of hosts that services have.
    pub(super) fn hosts(&self) -> usize {
        self.services.len()
    }

    pub(super) fn service_hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.services.keys()
    }

    pub(super) fn service(&self, host: &Hostname) -> Option<&Service> {
        let document = self.documents.get(self.services.get(host)?.last()?)?;
        match document.object.as_ref() {
            Object::Services(list) => list.iter().find(|service| service.host == *host),
            _ => None,
        }
    }

    /// Returns whether a service has a host that this one covers.
    pub(super) fn has_service(&self, host: &Hostname) -> bool {
        match host.is_wildcard() {
            true => self.services.keys().any(|service| host.covers(service)),
            false => self.services.contains_key(host),
        }
    }

    pub(super) fn has_gateway(&self, name: &ObjectName) -> bool {
        self.gateways.contains_key(name)
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = &ObjectName> {
        self.gateways.keys()
    }

    /// The ports that a Gateway opens.
    pub(super) fn gateway_ports(&self, name: &ObjectName) -> impl Iterator<Item = u16> {
        let documents = self.gateways.get(name).into_iter().flatten().filter_map(|id| self.documents.get(id));
        documents.flat_map(|document| match document.object.as_ref() {
            Object::Gateway(gateway) => gateway.listeners.iter().map(|server| server.port).collect(),
            _ => Vec::new(),
        })
    }

    /// The VirtualServices for a host that are older than a document, the oldest first.
    pub(super) fn rules_of<'a>(&'a self, host: &Hostname, than: &Document) -> impl Iterator<Item = &'a Document> {
        self.older(self.rules.get(host), than)
    }

    /// The DestinationRules of the same namespace for the same host that are older than a document, the oldest first.
    pub(super) fn policies_of<'a>(
        &'a self,
        rule: &BackendPolicy,
        than: &Document,
    ) -> impl Iterator<Item = &'a Document> {
        let all = if rule.host.is_wildcard() { &self.wide_policies } else { &self.policies };
        let namespace = rule.name.namespace.clone();
        self.older(all.get(&rule.host), than).filter(move |other| other.key.name.namespace == namespace)
    }

    fn older(&self, ids: Option<&BTreeSet<Id>>, than: &Document) -> impl Iterator<Item = &Document> + use<'_> {
        let own = Id::of(than);
        let all = ids.into_iter().flatten().filter(|id| **id != own).filter_map(|id| self.documents.get(id));
        let mut older: Vec<&Document> = all.filter(|d| (order(d), Id::of(d)) < (order(than), own.clone())).collect();
        older.sort_by_key(|document| (order(document), Id::of(document)));
        older.into_iter()
    }

    /// The DestinationRules whose host covers this one.
    pub(super) fn policies_over<'a>(&'a self, host: &'a Hostname) -> impl Iterator<Item = &'a BackendPolicy> {
        let wide = self.wide_policies.iter().filter(|(wide, _)| wide.covers(host)).flat_map(|(_, ids)| ids);
        let ids = self.policies.get(host).into_iter().flatten().chain(wide);
        ids.filter_map(|id| match self.documents.get(id)?.object.as_ref() {
            Object::BackendPolicy(rule) => Some(rule),
            _ => None,
        })
    }
}
