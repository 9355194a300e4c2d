//! All resources of this proxy with their live state, and the making of snapshots from them.

mod certificates;
mod outliers;
mod sockets;
mod virtual_hosts;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serin_resources::bootstrap::Fixed;
use serin_resources::cluster::{Cluster, Discovery, Names};
use serin_resources::connection_manager::RouteSource;
use serin_resources::endpoint::LoadAssignment;
use serin_resources::listener::FilterChain;
use serin_resources::route::VirtualHost;
use serin_resources::tls::Secret;
use serin_resources::{Audit, Listener, RouteConfiguration, Runtime, type_url};
use serin_telemetry::istio::{Tallies, Tally};
use serin_traffic::balance::{HealthState, Zones};
use serin_traffic::router::RouteTable;
use tokio::sync::mpsc::UnboundedSender;

use super::listeners::Listeners;
use crate::error::Error;
use crate::peers::{self, Peer};
use crate::runtime::{ClusterEndpoint, ClusterRuntime, ClusterState, Endpoints, Host, Suspect};
use crate::snapshot::Snapshot;
use crate::worker::{Command, Shared};

/// The store behind a lock: it is used by the discovery stream, the admin interface and timers, never by requests.
pub(crate) type SharedStore = Arc<Mutex<Store>>;

/// A resource as it was received.
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) version: String,
    pub(crate) body: Bytes,
    pub(crate) since: SystemTime,
    /// From the bootstrap: discovery does not touch it.
    pub(crate) fixed: bool,
    /// Fields that are set and have no effect.
    pub(crate) ignored: Vec<String>,
}

use certificates::{has_same_tls, slots, tls_of};
pub(crate) use outliers::watch as watch_outliers;
use sockets::{inline, is_inline_of};
use virtual_hosts::VirtualHosts;

/// Everything.
pub(crate) struct Store {
    pub(crate) workers: usize,
    shared: Shared,
    pub(crate) clusters: BTreeMap<String, Held<Cluster>>,
    pub(crate) endpoints: BTreeMap<String, Held<LoadAssignment>>,
    pub(crate) routes: BTreeMap<String, Held<RouteConfiguration>>,
    virtual_hosts: VirtualHosts,
    pub(crate) listeners: BTreeMap<String, Held<Arc<Listener>>>,
    /// The newest rejection, by type and name.
    pub(crate) rejected: BTreeMap<(String, String), String>,
    /// Listeners whose port is taken; it is tried again.
    unbound: BTreeMap<String, Held<Arc<Listener>>>,
    /// Types of which a response was received.
    pub(crate) received: BTreeSet<String>,
    /// Updates accepted and rejected, by type.
    pub(crate) updates: BTreeMap<String, (u64, u64)>,
    resolved: HashMap<String, LoadAssignment>,
    /// Names of endpoints that the control plane does not have, or never sent: nobody waits for them.
    absent: HashSet<String>,
    states: HashMap<String, Arc<ClusterState>>,
    hosts: HashMap<String, HashMap<SocketAddr, Arc<Host>>>,
    built_clusters: HashMap<String, Arc<ClusterRuntime>>,
    built_tables: HashMap<String, Arc<RouteTable>>,
    /// Of listeners that route nothing.
    no_routes: Arc<RouteTable>,
    pub(crate) sockets: Listeners,
    suspects: UnboundedSender<Suspect>,
    /// Who this proxy is.
    pub(crate) own: Peer,
    /// Requests by who asked whom.
    pub(crate) tallies: Tallies,
    /// Counts what was published.
    generation: u64,
    /// The cluster of proxies like this one, and where this one is.
    pub(crate) local: (String, String),
    /// What decoders look up in the bootstrap's runtime.
    pub(crate) runtime: Runtime,
    /// Secrets of the bootstrap.
    fixed_secrets: BTreeSet<String>,
    /// True when discovery speaks the delta variant, without which there is no VHDS.
    pub(crate) is_incremental: bool,
}

impl Store {
    pub(crate) fn new(
        workers: usize,
        shared: Shared,
        commands: Vec<UnboundedSender<Command>>,
        access_log: Option<String>,
        suspects: UnboundedSender<Suspect>,
    ) -> Self {
        Self {
            workers,
            shared,
            clusters: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            virtual_hosts: VirtualHosts::default(),
            listeners: BTreeMap::new(),
            rejected: BTreeMap::new(),
            unbound: BTreeMap::new(),
            received: BTreeSet::new(),
            updates: BTreeMap::new(),
            resolved: HashMap::new(),
            absent: HashSet::new(),
            states: HashMap::new(),
            hosts: HashMap::new(),
            built_clusters: HashMap::new(),
            built_tables: HashMap::new(),
            no_routes: Arc::new(RouteTable::compile(&RouteConfiguration::default())),
            sockets: Listeners::new(workers, commands, access_log),
            suspects,
            own: Peer::default(),
            tallies: Tallies::default(),
            generation: 0,
            local: Default::default(),
            runtime: Runtime::default(),
            fixed_secrets: BTreeSet::new(),
            is_incremental: false,
        }
    }

    /// Takes resources of the bootstrap in; an error is final.
    pub(crate) fn add_static(
        &mut self,
        clusters: Vec<Fixed<Cluster>>,
        listeners: Vec<Fixed<Listener>>,
        secrets: Vec<Fixed<Secret>>,
    ) -> Result<(), Error> {
        for Fixed { value: Secret { name, value }, .. } in secrets {
            self.sockets.tls.put(&name, value);
            self.fixed_secrets.insert(name);
        }
        for Fixed { value, body, ignored } in clusters {
            self.check_fixed(&value)?;
            let name = value.name.clone();
            self.clusters.insert(name.clone(), held(value, "", body.into(), true, ignored));
            self.rebuild_cluster(&name);
        }
        for Fixed { value, body, ignored } in listeners {
            self.open_listener(held(Arc::new(value), "", body.into(), true, ignored))?;
        }
        self.publish();
        Ok(())
    }

    /// Takes one resource in, under the name that the protocol gives it; empty where it gives none.
    pub(crate) fn put(&mut self, type_url: &str, name: &str, version: &str, body: &Bytes) -> Result<String, Error> {
        let mut audit = Audit { runtime: self.runtime.clone(), ..Audit::default() };
        match type_url {
            type_url::CLUSTER => {
                let cluster = Cluster::decode(body, &mut audit)?;
                self.check_cluster(&cluster)?;
                let name = cluster.name.clone();
                if self.clusters.get(&name).is_some_and(|held| held.fixed) {
                    return Ok(kept(name));
                }
                if let Discovery::Eds(service) = &cluster.discovery
                    && !self.built_clusters.contains_key(&name)
                {
                    // A new cluster waits for its endpoints, whatever was said of an earlier one.
                    self.absent.remove(service);
                }
                self.clusters.insert(name.clone(), held(cluster, version, body.clone(), false, audit.ignored));
                self.rebuild_cluster(&name);
                Ok(name)
            }
            type_url::ENDPOINT => {
                let assignment = LoadAssignment::decode(body, &mut audit)?;
                let name = assignment.cluster.clone();
                self.absent.remove(&name);
                self.endpoints.insert(name.clone(), held(assignment, version, body.clone(), false, audit.ignored));
                for cluster in self.clusters_of_endpoints(&name) {
                    self.rebuild_cluster(&cluster);
                }
                Ok(name)
            }
            type_url::ROUTE => {
                let routes = RouteConfiguration::decode(body, &mut audit)?;
                if routes.has_vhds && !self.is_incremental {
                    return Err(Error::NoDelta);
                }
                let name = routes.name.clone();
                self.virtual_hosts.note(&name);
                self.routes.insert(name.clone(), held(routes, version, body.clone(), false, audit.ignored));
                Ok(name)
            }
            type_url::VIRTUAL_HOST => {
                let mut host = VirtualHost::decode(body, &mut audit)?;
                let (_, own) = name.rsplit_once('/').ok_or_else(|| Error::HostName(name.to_owned()))?;
                // A resource is named by its route configuration and itself, and Envoy wants the same of the virtual host in it.
                if host.name == name {
                    own.clone_into(&mut host.name);
                }
                self.virtual_hosts.put(name, held(host, version, body.clone(), false, audit.ignored));
                Ok(name.to_owned())
            }
            type_url::LISTENER => {
                let listener = Listener::decode(body, &mut audit)?;
                let name = listener.name.clone();
                if self.listeners.get(&name).is_some_and(|held| held.fixed) {
                    return Ok(kept(name));
                }
                self.sockets.check(&listener)?;
                self.unbound.remove(&name);
                let listener = held(Arc::new(listener), version, body.clone(), false, audit.ignored);
                if let Err(error) = self.sockets.open(&listener.value) {
                    self.unbound.insert(name, listener);
                    return Err(Error::Unbound(Box::new(error)));
                }
                self.open_listener(listener)?;
                Ok(name)
            }
            type_url::SECRET => {
                let Secret { name, value } = Secret::decode(body, &mut audit)?;
                if self.fixed_secrets.contains(&name) {
                    return Ok(kept(name));
                }
                self.sockets.tls.put(&name, value);
                Ok(name)
            }
            other => Err(Error::UnknownType(other.to_owned())),
        }
    }

    /// Takes a resource out.
    pub(crate) fn remove(&mut self, type_url: &str, name: &str) {
        match type_url {
            type_url::CLUSTER if self.clusters.get(name).is_some_and(|held| held.fixed) => {}
            type_url::LISTENER if self.listeners.get(name).is_some_and(|held| held.fixed) => {}
            type_url::SECRET => self.sockets.tls.remove(name),
            type_url::CLUSTER => {
                self.clusters.remove(name);
                self.built_clusters.remove(name);
                self.states.remove(name);
                self.hosts.remove(name);
                self.resolved.remove(name);
            }
            type_url::ENDPOINT => {
                self.endpoints.remove(name);
                self.wait_no_more_for(name);
            }
            type_url::ROUTE => {
                self.routes.remove(name);
                self.built_tables.remove(name);
                self.virtual_hosts.forget(name);
            }
            type_url::VIRTUAL_HOST => self.virtual_hosts.remove(name),
            type_url::LISTENER => {
                self.listeners.remove(name);
                self.unbound.remove(name);
                self.built_tables.retain(|table, _| !is_inline_of(table, name));
                self.sockets.close(name);
            }
            _ => {}
        }
        self.rejected.remove(&(type_url.to_owned(), name.to_owned()));
    }

    fn clusters_of_endpoints(&self, name: &str) -> Vec<String> {
        let uses = |held: &Held<Cluster>| matches!(&held.value.discovery, Discovery::Eds(n) if n == name);
        self.clusters.iter().filter(|(_, held)| uses(held)).map(|(cluster, _)| cluster.clone()).collect()
    }

    /// Clusters whose endpoints are names, with those names and how often to look them up.
    pub(crate) fn dns_clusters(&self) -> Vec<(String, Names)> {
        self.clusters
            .values()
            .filter_map(|held| match &held.value.discovery {
                Discovery::Dns(names) => Some((held.value.name.clone(), names.clone())),
                _ => None,
            })
            .collect()
    }

    /// The addresses of a DNS cluster as they were found last.
    pub(crate) fn last_resolved(&self, cluster: &str) -> Option<LoadAssignment> {
        self.resolved.get(cluster).cloned()
    }

    /// Takes addresses of a DNS cluster in.
    pub(crate) fn resolved(&mut self, cluster: &str, assignment: LoadAssignment) {
        if self.resolved.get(cluster) == Some(&assignment) || !self.clusters.contains_key(cluster) {
            return;
        }
        self.resolved.insert(cluster.to_owned(), assignment);
        self.rebuild_cluster(cluster);
        self.publish();
    }

    /// Clusters that use these endpoints and have none yet are complete without them.
    fn wait_no_more_for(&mut self, endpoints: &str) {
        self.absent.insert(endpoints.to_owned());
        for cluster in self.clusters_of_endpoints(endpoints) {
            if !self.built_clusters.contains_key(&cluster) {
                self.rebuild_cluster(&cluster);
            }
        }
    }

    /// Puts into use what waited for `limit` in vain: clusters without endpoints, listeners without routes
    /// (Envoy: `initial_fetch_timeout`). True when something changed.
    pub(crate) fn give_up_waiting(&mut self, limit: Duration) -> bool {
        let old = |since: SystemTime| since.elapsed().is_ok_and(|waited| waited >= limit);
        let waiting = self.clusters.iter().filter(|(name, c)| old(c.since) && !self.built_clusters.contains_key(*name));
        let endpoints: Vec<String> = waiting
            .filter_map(|(_, held)| match &held.value.discovery {
                Discovery::Eds(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let listeners = self.listeners.values().filter(|held| old(held.since));
        let routes: Vec<String> = listeners
            .flat_map(|held| held.value.route_sources())
            .filter_map(|routes| match routes {
                RouteSource::Rds(name) if !self.built_tables.contains_key(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        for name in &endpoints {
            tracing::warn!("no endpoints of '{name}' came: going on without");
            self.wait_no_more_for(name);
        }
        for name in &routes {
            tracing::warn!("no routes '{name}' came: going on without");
            let none = RouteConfiguration { name: name.clone(), ..RouteConfiguration::default() };
            self.built_tables.insert(name.clone(), Arc::new(RouteTable::compile(&none)));
        }
        !(endpoints.is_empty() && routes.is_empty())
    }

    /// Builds a cluster anew; one whose endpoints are not known yet keeps what it had, or stays out of use.
    fn rebuild_cluster(&mut self, name: &str) {
        let Some(held) = self.clusters.get(name) else { return };
        let none = LoadAssignment::default();
        let assignment = match &held.value.discovery {
            Discovery::Static(assignment) => Some(assignment),
            Discovery::Eds(service) => {
                let given = self.endpoints.get(service).map(|h| &h.value);
                given.or_else(|| self.absent.contains(service).then_some(&none))
            }
            Discovery::Dns(..) => self.resolved.get(name),
        };
        let Some(assignment) = assignment else { return };
        let workers = self.workers;
        let new = || Arc::new(ClusterState::new(workers, self.suspects.clone()));
        let before = self.built_clusters.get(name);
        let slots = match before.filter(|before| has_same_tls(&before.config, &held.value)) {
            Some(before) => before.tls.clone(),
            None => {
                self.hosts.remove(name);
                slots(&self.sockets.tls, &held.value)
            }
        };
        let state = self.states.entry(name.to_owned()).or_insert_with(new);
        let hosts = self.hosts.entry(name.to_owned()).or_default();
        let mut members = Vec::with_capacity(assignment.endpoints.len());
        for endpoint in &assignment.endpoints {
            let Ok(ip) = endpoint.host.parse() else {
                tracing::warn!(cluster = name, host = endpoint.host, "endpoint is not an IP address");
                continue;
            };
            let address = SocketAddr::new(ip, endpoint.port);
            let host = hosts.entry(address).or_insert_with(|| Arc::new(Host::new(address, workers))).clone();
            let tally = tally(&self.tallies, &self.own, workers, &held.value, &endpoint.workload);
            let matching = held.value.tls_matches.iter().position(|matching| matching.is_for(&endpoint.transport));
            let tls = slots.get(matching.unwrap_or(held.value.tls_matches.len())).cloned().flatten();
            members.push(ClusterEndpoint { host, endpoint: endpoint.clone(), tally, tls });
        }
        let judged = held.value.outlier.is_some();
        members.iter().for_each(|m| m.host.health.is_checked(held.value.health_check.is_some()));
        hosts.retain(|address, host| {
            let kept = members.iter().any(|m| m.host.address == *address);
            if !kept || !judged {
                outliers::pardon(state, host);
            }
            kept
        });
        let unknown = tally(&self.tallies, &self.own, workers, &held.value, "");
        let endpoints = Endpoints { members, overprovisioning: assignment.overprovisioning };
        let zones = zones(&self.local.0, &self.local.1, &self.built_clusters);
        let mut runtime = ClusterRuntime::new(held.value.clone(), state.clone(), endpoints, unknown, &zones);
        runtime.tls = slots;
        self.built_clusters.insert(name.to_owned(), Arc::new(runtime));
        if name == self.local.0 {
            // Who prefers the own zone does so by where its neighbours are.
            let aware = |c: &&Arc<ClusterRuntime>| c.config.zone_aware.is_some() && c.config.name != name;
            let others: Vec<String> =
                self.built_clusters.values().filter(aware).map(|c| c.config.name.clone()).collect();
            others.iter().for_each(|other| self.rebuild_cluster(other));
        }
    }

    /// Takes a change in the health of a cluster's endpoints into use.
    pub(crate) fn refresh_cluster(&mut self, name: &str) {
        self.rebuild_cluster(name);
        self.publish();
    }

    /// Counts what was published.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Clusters that requests can go to.
    pub(crate) fn clusters_in_use(&self) -> impl Iterator<Item = &Arc<ClusterRuntime>> {
        self.built_clusters.values()
    }

    /// Whether every endpoint that is to be checked was.
    pub(crate) fn is_checked(&self) -> bool {
        let mut checked = self.built_clusters.values().filter(|c| c.config.health_check.is_some());
        checked.all(|c| c.members.iter().all(|m| m.host.health.was_checked()))
    }

    /// Publishes what there is, in one store.
    pub(crate) fn publish(&mut self) {
        self.build_tables();
        let mut snapshot = Snapshot { clusters: self.built_clusters.clone(), ..Snapshot::default() };
        for (name, held) in &self.listeners {
            let table = |(number, chain): (usize, &FilterChain)| match chain.filter.routes() {
                Some(RouteSource::Rds(routes)) => self.built_tables.get(routes).cloned(),
                Some(RouteSource::Inline(_)) => self.built_tables.get(&inline(name, number)).cloned(),
                None => Some(self.no_routes.clone()),
            };
            // A listener accepts when the routes of all its chains are known.
            let Some(tables) = held.value.all_chains().enumerate().map(table).collect() else { continue };
            snapshot.listeners.insert(name.clone(), self.sockets.runtime(&held.value, tables));
        }
        let ready: Vec<String> = snapshot.listeners.keys().cloned().collect();
        self.shared.snapshot.store(Arc::new(snapshot));
        self.generation += 1;
        self.sockets.accept(&ready);
    }

    /// What is published.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Whether everything that was announced is in use.
    pub(crate) fn is_warm(&self) -> bool {
        let current = self.current();
        let listeners = self.listeners.keys().all(|name| current.listeners.contains_key(name));
        let clusters = self.clusters.keys().all(|name| current.clusters.contains_key(name));
        listeners && clusters
    }
}

/// The name of a resource that the bootstrap fixed: discovery does not change it (as Envoy does not).
fn kept(name: String) -> String {
    tracing::warn!("'{name}' is part of the bootstrap: what discovery sent under that name is not used");
    name
}

fn held<T>(value: T, version: &str, body: Bytes, fixed: bool, ignored: Vec<String>) -> Held<T> {
    for field in &ignored {
        tracing::debug!("{field} is set and has no effect");
    }
    Held { value, version: version.to_owned(), body, since: SystemTime::now(), fixed, ignored }
}

/// Where the members of the own cluster are.
fn zones(cluster: &str, own: &str, built: &HashMap<String, Arc<ClusterRuntime>>) -> Zones {
    let mut zones = Zones { own: own.to_owned(), members: BTreeMap::new() };
    let members = built.get(cluster).map(|c| c.members.as_slice()).unwrap_or_default();
    for member in members.iter().filter(|m| m.health_state() == HealthState::Healthy) {
        *zones.members.entry(member.endpoint.locality.clone()).or_default() += 1;
    }
    zones
}

/// The tally of requests to an endpoint of a cluster, in a mesh.
fn tally(all: &Tallies, own: &Peer, workers: usize, cluster: &Cluster, workload: &str) -> Option<Arc<Tally>> {
    Some(all.of(peers::labels(own, &cluster.name, &cluster.service, workload)?, workers))
}

#[cfg(test)]
mod tests;
