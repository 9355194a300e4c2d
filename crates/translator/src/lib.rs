//! For one proxy, what the mesh means in resources: a pure function of a snapshot and an identity.
//!
//! Those two arguments are all there is, so they are the cache key of its result. Names follow Istio's
//! (`outbound|9080|v1|reviews.default.svc.cluster.local`), so that dashboards and habits carry over.
//! Precedence is decided here: proxies take the first matching route and nothing is left for them to choose.

mod cluster;
mod destination;
mod gateway;
mod gateway_port;
mod grpc;
mod matches;
mod naming;
mod plan;
mod policy;
mod release;
mod route;
mod scope;
mod sidecar;
mod tls;
mod virtual_host;

use std::collections::BTreeSet;

pub use naming::REFUSED;
pub use plan::Plan;
use serin_model::{Hostname, MeshSnapshot, ProxyIdentity, ProxyRole};
use serin_resources::connection_manager::RouteSource;
use serin_resources::route::{Action, VirtualHost};
use serin_resources::{ApiListener, Cluster, Listener, LoadAssignment, RouteConfiguration};

/// Everything one proxy runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet {
    /// Listeners, by name.
    pub listeners: Vec<Listener>,
    /// What gRPC clients ask for instead, by target.
    pub api_listeners: Vec<ApiListener>,
    /// Route configurations that listeners ask for.
    pub routes: Vec<RouteConfiguration>,
    /// Virtual hosts that are not put into their route configurations.
    pub virtual_hosts: Vec<RoutedHost>,
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Endpoints of the clusters that ask for them.
    pub endpoints: Vec<LoadAssignment>,
}

/// A virtual host, with the route configuration that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedHost {
    /// Name of the route configuration.
    pub routes: String,
    /// The virtual host; its name is unique there.
    pub host: VirtualHost,
}

/// Translates the mesh for one proxy.
///
/// It is the sum of its parts, [`base`], [`service`] and [`routes`], each of which a pilot makes again only when something changed
/// that it rests on.
#[must_use]
pub fn translate(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> ResourceSet {
    let plan = Plan::new(mesh, proxy);
    let mut set = ResourceSet::default();
    let hosts = hosts(mesh, proxy, &plan);
    hosts.iter().for_each(|host| set.extend(service(mesh, proxy, &plan, host)));
    hosts.iter().for_each(|host| set.extend(routes(mesh, proxy, &plan, host)));
    set.extend(base(mesh, proxy, &plan));
    for RoutedHost { routes, host } in std::mem::take(&mut set.virtual_hosts) {
        if let Some(configuration) = set.routes.iter_mut().find(|r| r.name == routes) {
            configuration.virtual_hosts.push(host);
        }
    }
    for configuration in set.routes.iter_mut().filter(|routes| routes.virtual_hosts.is_empty()) {
        configuration.virtual_hosts.extend(fallback(&plan, &configuration.name));
    }
    set.listeners.sort_by(|a, b| a.name.cmp(&b.name));
    set.routes.sort_by(|a, b| a.name.cmp(&b.name));
    set.clusters.sort_by(|a, b| a.name.cmp(&b.name));
    set.clusters.dedup_by(|a, b| a.name == b.name);
    set.endpoints.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    set.endpoints.dedup_by(|a, b| a.cluster == b.cluster);
    set
}

/// Returns the hosts that have a part in the translation for a proxy: services first, then hosts that only rules speak of.
#[must_use]
pub fn hosts(mesh: &MeshSnapshot, proxy: &ProxyIdentity, plan: &Plan) -> Vec<Hostname> {
    let mut hosts: Vec<Hostname> = mesh.services().map(|service| service.host.clone()).collect();
    let more: Vec<Hostname> = match proxy.role {
        ProxyRole::Sidecar => mesh.route_rules().flat_map(|rule| rule.hosts.iter().cloned()).collect(),
        ProxyRole::Gateway => gateway::hosts(mesh, plan).into_iter().collect(),
        ProxyRole::Grpc => Vec::new(),
    };
    let mut known: BTreeSet<Hostname> = hosts.iter().cloned().collect();
    hosts.extend(more.into_iter().filter(|host| known.insert(host.clone())));
    hosts
}

/// Returns the hosts whose part of the routes changes for a proxy when those of this host do.
#[must_use]
pub fn hosts_for(plan: &Plan, proxy: &ProxyIdentity, host: &Hostname) -> BTreeSet<Hostname> {
    match proxy.role {
        ProxyRole::Gateway => gateway::hosts_for(plan, host),
        ProxyRole::Sidecar | ProxyRole::Grpc => BTreeSet::from([host.clone()]),
    }
}

/// Translates what belongs to no host: listeners, and route configurations without the virtual hosts of hosts.
#[must_use]
pub fn base(mesh: &MeshSnapshot, proxy: &ProxyIdentity, plan: &Plan) -> ResourceSet {
    let mut set = ResourceSet::default();
    match proxy.role {
        ProxyRole::Sidecar => sidecar::base(mesh, proxy, plan, &mut set),
        ProxyRole::Gateway => gateway::base(plan, &mut set),
        ProxyRole::Grpc => {}
    }
    refusals(&mut set);
    set
}

/// Translates a service into clusters and endpoints.
#[must_use]
pub fn service(mesh: &MeshSnapshot, proxy: &ProxyIdentity, plan: &Plan, host: &Hostname) -> ResourceSet {
    let mut set = ResourceSet::default();
    if let Some(service) = mesh.service(host).filter(|service| plan.reaches(proxy, service)) {
        cluster::outbound(mesh, proxy, service, &mut set);
        if proxy.role == ProxyRole::Grpc {
            grpc::adapt(&mut set);
        }
    }
    set
}

/// Translates the routes to a host: virtual hosts, or targets of a gRPC client.
#[must_use]
pub fn routes(mesh: &MeshSnapshot, proxy: &ProxyIdentity, plan: &Plan, host: &Hostname) -> ResourceSet {
    let mut set = ResourceSet::default();
    match proxy.role {
        ProxyRole::Sidecar => virtual_host::outbound(mesh, proxy, plan, host, &mut set),
        ProxyRole::Gateway => gateway::virtual_hosts(mesh, proxy, plan, host, &mut set),
        ProxyRole::Grpc => {
            if let Some(service) = mesh.service(host).filter(|service| plan.reaches(proxy, service)) {
                grpc::targets(mesh, proxy, service, &mut set);
            }
        }
    }
    refusals(&mut set);
    set
}

/// Returns the virtual host of a route configuration that has none.
#[must_use]
pub fn fallback(plan: &Plan, routes: &str) -> Option<VirtualHost> {
    gateway::blackhole(plan, routes)
}

impl ResourceSet {
    fn extend(&mut self, other: Self) {
        let Self { listeners, api_listeners, routes, virtual_hosts, clusters, endpoints } = other;
        self.listeners.extend(listeners);
        self.api_listeners.extend(api_listeners);
        self.routes.extend(routes);
        self.virtual_hosts.extend(virtual_hosts);
        self.clusters.extend(clusters);
        self.endpoints.extend(endpoints);
    }
}

/// Adds the clusters that routes name because their requests are refused.
fn refusals(set: &mut ResourceSet) {
    let inline = set.listeners.iter().flat_map(Listener::route_sources).filter_map(|routes| match routes {
        RouteSource::Inline(routes) => Some(routes),
        RouteSource::Rds(_) => None,
    });
    let hosts = set.routes.iter().chain(inline).flat_map(|r| &r.virtual_hosts);
    let hosts = hosts.chain(set.virtual_hosts.iter().map(|routed| &routed.host));
    let actions = hosts.flat_map(|h| &h.routes).filter_map(|r| match &r.action {
        Action::Forward(forward) => Some(&forward.clusters),
        _ => None,
    });
    let names: BTreeSet<String> = actions.flatten().map(|c| c.name.clone()).collect();
    for name in names {
        if let Some(because) = naming::because(&name).map(str::to_owned) {
            cluster::refuse(name, because, set);
        }
    }
}
