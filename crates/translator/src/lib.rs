//! For one proxy, what the mesh means in resources: a pure function of a snapshot and an identity.
//!
//! Those two arguments are all there is, so they are the cache key of its result. Names follow Istio's
//! (`outbound|9080|v1|reviews.default.svc.cluster.local`), so that dashboards and habits carry over.
//! Precedence is decided here: proxies take the first matching route and nothing is left for them to choose.

mod cluster;
mod destination;
mod gateway;
mod grpc;
mod matches;
mod naming;
mod policy;
mod release;
mod route;
mod scope;
mod sidecar;
mod virtual_host;

use serin_model::{MeshSnapshot, ProxyIdentity, ProxyRole};
use std::collections::BTreeSet;

use serin_resources::connection_manager::RouteSource;
use serin_resources::route::Action;
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
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Endpoints of the clusters that ask for them.
    pub endpoints: Vec<LoadAssignment>,
}

/// Translates the mesh for one proxy.
#[must_use]
pub fn translate(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> ResourceSet {
    let mut set = match proxy.role {
        ProxyRole::Sidecar => sidecar::translate(mesh, proxy),
        ProxyRole::Gateway => gateway::translate(mesh, proxy),
        ProxyRole::Grpc => grpc::translate(mesh, proxy),
    };
    refusals(&mut set);
    set.listeners.sort_by(|a, b| a.name.cmp(&b.name));
    set.routes.sort_by(|a, b| a.name.cmp(&b.name));
    set.clusters.sort_by(|a, b| a.name.cmp(&b.name));
    set.clusters.dedup_by(|a, b| a.name == b.name);
    set.endpoints.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    set.endpoints.dedup_by(|a, b| a.cluster == b.cluster);
    set
}

/// Adds the clusters that routes name because their requests are refused.
fn refusals(set: &mut ResourceSet) {
    let inline = set.listeners.iter().filter_map(|l| match l.filter.routes() {
        Some(RouteSource::Inline(routes)) => Some(routes),
        _ => None,
    });
    let hosts = set.routes.iter().chain(inline).flat_map(|r| &r.virtual_hosts);
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
