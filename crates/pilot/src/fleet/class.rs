//! The resources of all proxies that get the same, made of parts: a change makes only those parts again that rest on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serin_model::{Changes, Hostname, Labels, MeshSnapshot, ObjectName, ProxyIdentity, ProxyRole};
use serin_resources::cluster::{Cluster, Discovery};
use serin_resources::route::{VirtualHost, append_virtual_hosts};
use serin_resources::{LoadAssignment, RouteConfiguration};
use serin_translator::{self as translator, Plan, ResourceSet, RoutedHost};
use serin_xds::type_spec::{CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST};
use serin_xds::{Resource, ResourceMap, Step, TypeMap};
use xxhash_rust::xxh64::xxh64;

use super::sound::{Encoded, mended};

/// The properties that decide which resources a proxy gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    /// The proxy without what makes no difference: its name, labels that nothing looks at, an address that no listener is bound to.
    identity: ProxyIdentity,
    /// True when virtual hosts are resources of their own, so that a change of one costs one.
    pub(super) has_vhds: bool,
}

impl ClassKey {
    pub(super) fn of(identity: &ProxyIdentity, has_vhds: bool, mesh: &MeshSnapshot) -> Self {
        let is_looked_at = |name: &String| mesh.looks_at_label(name);
        // A gateway is found among the instances of its service by all its labels.
        let keeps_all = identity.role == ProxyRole::Gateway;
        let labels: Labels = identity
            .labels
            .iter()
            .filter(|(name, _)| keeps_all || is_looked_at(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let name = ObjectName { name: String::new(), ..identity.name.clone() };
        let identity = ProxyIdentity { name, ip: identity.default_bind(), labels, ..identity.clone() };
        Self { identity, has_vhds }
    }
}

/// A part of a translation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    /// Listeners and what belongs to no host.
    Base,
    /// Clusters and endpoints of a service.
    Service(Hostname),
    /// Routes to a host.
    Routes(Hostname),
}

/// Type and name of a resource.
type Name = (&'static str, Arc<str>);

/// Proxies that get the same, and what they get.
pub(super) struct Class {
    key: ClassKey,
    plan: Plan,
    /// The resources that each part made.
    parts: HashMap<Part, Vec<Name>>,
    map: Arc<ResourceMap>,
    /// Virtual hosts that stand in their route configurations, by the names that they would have as resources.
    inline: TypeMap,
    /// Route configurations without the virtual hosts of hosts.
    routes: BTreeMap<String, RouteConfiguration>,
    /// Route configurations to be encoded again.
    stale: BTreeSet<String>,
    /// The number of parts that name each cluster of refused requests: several may.
    refused: BTreeMap<Arc<str>, usize>,
    /// Sum of the hashes of all resources, which is the version of the map.
    digest: u64,
    /// The resources that differ from those of the version of the map.
    changed: Vec<Name>,
    /// Since when no proxy is of this class.
    pub(super) unused_since: Option<Instant>,
}

impl Class {
    /// Translates the mesh for a class.
    pub(super) fn new(key: ClassKey, mesh: &MeshSnapshot, encoded: &Encoded) -> Self {
        let mut class = Self {
            key,
            plan: Plan::default(),
            parts: HashMap::new(),
            map: Arc::default(),
            inline: TypeMap::new(),
            routes: BTreeMap::new(),
            stale: BTreeSet::new(),
            refused: BTreeMap::new(),
            digest: 0,
            changed: Vec::new(),
            unused_since: None,
        };
        class.rebuild(mesh, encoded);
        class
    }

    /// The resources.
    pub(super) fn map(&self) -> &Arc<ResourceMap> {
        &self.map
    }

    /// Takes a change into account.
    pub(super) fn update(&mut self, before: &MeshSnapshot, after: &MeshSnapshot, changes: &Changes, encoded: &Encoded) {
        let identity = self.key.identity.clone();
        if self.plan.is_changed_by(changes, before, after, &identity) {
            return self.rebuild(after, encoded);
        }
        for host in &changes.services {
            let set = translator::service(after, &identity, &self.plan, host);
            self.put(Part::Service(host.clone()), &set, encoded);
        }
        let hosts: BTreeSet<Hostname> =
            changes.routes.iter().flat_map(|host| translator::hosts_for(&self.plan, &identity, host)).collect();
        for host in hosts {
            let set = translator::routes(after, &identity, &self.plan, &host);
            self.put(Part::Routes(host), &set, encoded);
        }
        self.finish(encoded);
    }

    /// Makes every part again. Resources that come out the same are the same.
    fn rebuild(&mut self, mesh: &MeshSnapshot, encoded: &Encoded) {
        let identity = self.key.identity.clone();
        self.plan = Plan::new(mesh, &identity);
        let base = translator::base(mesh, &identity, &self.plan);
        self.routes = base.routes.iter().map(|routes| (routes.name.clone(), routes.clone())).collect();
        self.stale.extend(self.routes.keys().cloned());
        self.put(Part::Base, &ResourceSet { routes: Vec::new(), ..base }, encoded);
        let hosts = translator::hosts(mesh, &identity, &self.plan);
        for host in &hosts {
            self.put(Part::Service(host.clone()), &translator::service(mesh, &identity, &self.plan, host), encoded);
            self.put(Part::Routes(host.clone()), &translator::routes(mesh, &identity, &self.plan, host), encoded);
        }
        let hosts: BTreeSet<Hostname> = hosts.into_iter().collect();
        let is_gone = |part: &&Part| match part {
            Part::Base => false,
            Part::Service(host) | Part::Routes(host) => !hosts.contains(host),
        };
        for part in self.parts.keys().filter(is_gone).cloned().collect::<Vec<_>>() {
            self.put(part, &ResourceSet::default(), encoded);
        }
        // The targets of gRPC clients are parts of hosts; other route configurations are not.
        if self.key.identity.role != ProxyRole::Grpc {
            let gone: Vec<Arc<str>> = self.names(ROUTE).filter(|name| !self.routes.contains_key(&**name)).collect();
            gone.iter().for_each(|name| self.remove(ROUTE, name));
        }
        self.finish(encoded);
    }

    fn names(&self, type_url: &str) -> impl Iterator<Item = Arc<str>> {
        self.map.of_type(type_url).into_iter().flat_map(|map| map.keys().cloned())
    }

    /// Puts a part in place of what it was.
    fn put(&mut self, part: Part, set: &ResourceSet, encoded: &Encoded) {
        let made = self.encode(set, encoded);
        let names: Vec<Name> = made.iter().map(|(type_url, resource)| (*type_url, resource.name.clone())).collect();
        let before = self.parts.remove(&part).unwrap_or_default();
        for (type_url, resource) in made {
            if is_refusal(&resource.name) && type_url == CLUSTER && !before.contains(&(CLUSTER, resource.name.clone()))
            {
                *self.refused.entry(resource.name.clone()).or_default() += 1;
            }
            self.insert(type_url, resource);
        }
        for (type_url, name) in before.iter().filter(|name| !names.contains(name)) {
            if is_refusal(name) && self.is_refused_elsewhere(type_url, name) {
                continue;
            }
            self.remove(type_url, name);
        }
        if !names.is_empty() {
            self.parts.insert(part, names);
        }
    }

    /// Counts a cluster of refused requests down; true where another part names it.
    fn is_refused_elsewhere(&mut self, type_url: &str, name: &Arc<str>) -> bool {
        let Some(count) = self.refused.get_mut(name) else { return false };
        if type_url == CLUSTER {
            *count -= 1;
        }
        let is_elsewhere = *count > 0;
        if !is_elsewhere {
            self.refused.remove(name);
        }
        is_elsewhere
    }

    fn insert(&mut self, type_url: &'static str, resource: Arc<Resource>) {
        if type_url == VIRTUAL_HOST && !self.key.has_vhds {
            let before = self.inline.insert(resource.name.clone(), resource.clone());
            if before.is_none_or(|before| *before != *resource) {
                self.mark_stale(&resource.name);
            }
            return;
        }
        let map = Arc::make_mut(&mut self.map).types.entry(type_url).or_default();
        let before = map.get(&resource.name);
        if before.is_some_and(|before| Arc::ptr_eq(before, &resource)) {
            return;
        }
        self.digest = self.digest.wrapping_sub(before.map_or(0, |before| weight(type_url, before)));
        self.digest = self.digest.wrapping_add(weight(type_url, &resource));
        self.changed.push((type_url, resource.name.clone()));
        map.insert(resource.name.clone(), resource);
    }

    fn remove(&mut self, type_url: &'static str, name: &Arc<str>) {
        if type_url == VIRTUAL_HOST && !self.key.has_vhds {
            self.inline.remove(name);
            self.mark_stale(name);
            return;
        }
        let Some(map) = Arc::make_mut(&mut self.map).types.get_mut(type_url) else { return };
        if let Some(before) = map.remove(name) {
            self.digest = self.digest.wrapping_sub(weight(type_url, &before));
            self.changed.push((type_url, name.clone()));
        }
    }

    fn mark_stale(&mut self, virtual_host: &str) {
        if let Some((routes, _)) = virtual_host.rsplit_once('/') {
            self.stale.insert(routes.to_owned());
        }
    }

    /// Completes the map after parts were put: route configurations, and its version.
    fn finish(&mut self, encoded: &Encoded) {
        self.put_fallbacks(encoded);
        for name in std::mem::take(&mut self.stale) {
            let Some(routes) = self.routes.get(&name) else { continue };
            let body = match self.key.has_vhds {
                true => RouteConfiguration { has_vhds: true, ..routes.clone() }.encode(),
                false => {
                    append_virtual_hosts(routes.encode(), below(&self.inline, &name).map(|host| host.body.as_ref()))
                }
            };
            match encoded.resource(ROUTE, &name, body) {
                Ok(resource) => self.insert(ROUTE, resource),
                Err(error) => tracing::error!("routes {name} would be rejected, they stay as they were: {error}"),
            }
        }
        let version = format!("{:016x}", self.digest);
        let changed = std::mem::take(&mut self.changed);
        if *self.map.version != *version {
            let map = Arc::make_mut(&mut self.map);
            map.step = Step { from: std::mem::replace(&mut map.version, version.into()), changed };
        }
    }

    /// A route configuration that has no virtual host gets the one that leads nowhere.
    fn put_fallbacks(&mut self, encoded: &Encoded) {
        for name in self.routes.keys().cloned().collect::<Vec<_>>() {
            let Some(fallback) = translator::fallback(&self.plan, &name) else { continue };
            let own: Arc<str> = format!("{name}/{}", fallback.name).into();
            let all = match self.key.has_vhds {
                true => self.map.of_type(VIRTUAL_HOST),
                false => Some(&self.inline),
            };
            let has_others = all.is_some_and(|all| below(all, &name).any(|host| host.name != own));
            let body = self.encode_host(fallback, &own);
            match encoded.resource(VIRTUAL_HOST, &own, body) {
                Ok(resource) if !has_others => self.insert(VIRTUAL_HOST, resource),
                _ => self.remove(VIRTUAL_HOST, &own),
            }
        }
    }

    /// Encodes a virtual host. As a resource of its own it is named as the resource is: Envoy finds the one to remove by that
    /// (`RouteConfigUpdateReceiverImpl::removeVhosts`).
    fn encode_host(&self, host: VirtualHost, name: &str) -> Vec<u8> {
        match self.key.has_vhds {
            true => VirtualHost { name: name.to_owned(), ..host }.encode(),
            false => host.encode(),
        }
    }

    /// Encodes what a part is made of; what proxies would reject is refused.
    fn encode(&self, set: &ResourceSet, encoded: &Encoded) -> Vec<(&'static str, Arc<Resource>)> {
        let mut made = Vec::new();
        let mut refused = BTreeSet::new();
        let mut take = |type_url: &'static str, name: &str, body: Vec<u8>| {
            let resource = encoded.resource(type_url, name, body);
            let kept = resource.or_else(|error| {
                tracing::error!("what became of {name} would be rejected, it stays as it was: {error}");
                self.map.of_type(type_url).and_then(|map| map.get(name)).cloned().ok_or(error)
            });
            made.extend(kept.ok().map(|resource| (type_url, resource)));
        };
        for cluster in &set.clusters {
            let body = cluster.encode();
            match encoded.resource(CLUSTER, &cluster.name, body.clone()) {
                Ok(_) => take(CLUSTER, &cluster.name, body),
                Err(error) => {
                    let name = &cluster.name;
                    tracing::error!("{name}: requests to it are refused, because proxies would reject it: {error}");
                    let mut empty = Cluster::new(name.clone(), Discovery::Eds(name.clone()));
                    empty.panic_threshold = 0;
                    empty.refused = Some(format!("proxies would reject its cluster: {error}"));
                    take(CLUSTER, name, empty.encode());
                    let nobody = LoadAssignment { cluster: name.clone(), ..LoadAssignment::default() };
                    take(ENDPOINT, name, nobody.encode());
                    refused.insert(name.clone());
                }
            }
        }
        for assignment in set.endpoints.iter().filter(|a| !refused.contains(&a.cluster)) {
            take(ENDPOINT, &assignment.cluster, assignment.encode());
        }
        set.listeners.iter().for_each(|listener| take(LISTENER, &listener.name, listener.encode()));
        set.api_listeners.iter().for_each(|listener| take(LISTENER, &listener.name, listener.encode()));
        for routes in &set.routes {
            let hosts = routes.virtual_hosts.iter().map(|host| mended_if_needed(&routes.name, host, encoded)).collect();
            let routes = RouteConfiguration { virtual_hosts: hosts, ..routes.clone() };
            take(ROUTE, &routes.name, routes.encode());
        }
        for RoutedHost { routes, host } in &set.virtual_hosts {
            let host = mended_if_needed(routes, host, encoded);
            let name = format!("{routes}/{}", host.name);
            take(VIRTUAL_HOST, &name, self.encode_host(host, &name));
        }
        made
    }
}

/// The virtual host as it is, or with those rules refused that proxies would reject.
fn mended_if_needed(routes: &str, host: &VirtualHost, encoded: &Encoded) -> VirtualHost {
    match encoded.resource(VIRTUAL_HOST, &format!("{routes}/{}", host.name), host.encode()) {
        Ok(_) => host.clone(),
        Err(_) => mended(host),
    }
}

/// Virtual hosts of a route configuration.
fn below<'a>(all: &'a TypeMap, routes: &str) -> impl Iterator<Item = &'a Arc<Resource>> + use<'a> {
    let start: Arc<str> = format!("{routes}/").into();
    let prefix = start.clone();
    all.range(start..).take_while(move |(name, _)| name.starts_with(&*prefix)).map(|(_, resource)| resource)
}

/// Returns whether a cluster is one of refused requests, which several parts may name.
fn is_refusal(name: &str) -> bool {
    name.starts_with(translator::REFUSED)
}

/// The number that a resource adds to the version of its map.
fn weight(type_url: &str, resource: &Resource) -> u64 {
    xxh64(resource.version.as_bytes(), xxh64(type_url.as_bytes(), 0))
}
