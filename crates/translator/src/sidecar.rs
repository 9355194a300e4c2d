//! A proxy beside a workload: listeners from its Sidecar, or one that reaches every service when there is none.

use std::net::SocketAddr;
use std::time::Duration;

use serin_model::{Guarded, IngressListener, Labels, MeshSnapshot, ProxyIdentity, Service, selects};
use serin_resources::connection_manager::{HttpConnectionManager, RouteSource, Timeouts};
use serin_resources::http_filter::HttpFilter;
use serin_resources::listener::{Direction, Filter, Listener};
use serin_resources::route::{Action, Forward, RouteConfiguration, VirtualHost, WeightedCluster};
use serin_resources::upgrade::Upgrade;

use crate::plan::{Egress, Plan};
use crate::{ResourceSet, RoutedHost, cluster, naming, route, virtual_host};

/// Adds the listeners, and what their route configurations have whatever the services are.
pub(crate) fn base(mesh: &MeshSnapshot, proxy: &ProxyIdentity, plan: &Plan, set: &mut ResourceSet) {
    for listener in &plan.egress {
        outbound(listener, set);
    }
    for listener in &plan.ingress {
        inbound(mesh, proxy, listener, set);
    }
}

fn outbound(listener: &Egress, set: &mut ResourceSet) {
    let (address, name) = (listener.address, listener.routes.clone());
    set.routes.push(RouteConfiguration { name: name.clone(), ..RouteConfiguration::default() });
    set.virtual_hosts.push(RoutedHost { routes: name.clone(), host: virtual_host::block_all() });
    let prefix = format!("outbound_{}_{}", address.ip(), address.port());
    set.listeners.push(Listener::new(
        format!("{}_{}", address.ip(), address.port()),
        address,
        Direction::Outbound,
        Filter::http(manager(prefix, RouteSource::Rds(name))),
    ));
}

fn inbound(mesh: &MeshSnapshot, proxy: &ProxyIdentity, listener: &IngressListener, set: &mut ResourceSet) {
    let bind = listener.bind.unwrap_or_else(|| proxy.default_bind());
    let cluster = naming::inbound(listener.port);
    let own = mesh.services_selecting(&proxy.name.namespace, &proxy.labels);
    let is_own = |s: &&&Service| s.selector.as_ref().is_some_and(|own: &Labels| selects(own, &proxy.labels));
    let service = own.iter().find(is_own).map(|s| s.host.to_string()).unwrap_or_default();
    set.clusters.push(cluster::inbound(service, listener));
    let forward = Forward {
        clusters: vec![WeightedCluster { name: cluster.clone(), weight: 1, ..Default::default() }],
        cluster_not_found_status: 503,
        ..Forward::default()
    };
    let own = VirtualHost {
        name: format!("inbound|http|{}", listener.port),
        domains: vec!["*".to_owned()],
        routes: vec![route::plain("default", Action::Forward(Box::new(forward)))],
        ..VirtualHost::default()
    };
    let (namespace, labels) = (proxy.name.namespace.as_str(), &proxy.labels);
    let port = Some(listener.application.port());
    let closed = mesh.closed_by(&Guarded {
        namespace,
        labels,
        port,
        is_gateway: false,
        is_partly_known: false,
        root: mesh.root_namespace(),
    });
    let closed = closed.map(ToString::to_string);
    let refused = listener.refused.clone().filter(|_| mesh.is_enforced());
    let host = closed.or(refused).map_or(own, |because| route::refuse_all(&because));
    let routes = RouteConfiguration { name: cluster, virtual_hosts: vec![host], ..RouteConfiguration::default() };
    set.listeners.push(Listener::new(
        format!("{bind}_{}", listener.port),
        SocketAddr::new(bind, listener.port),
        Direction::Inbound,
        Filter::http(manager(format!("inbound_{bind}_{}", listener.port), RouteSource::Inline(routes))),
    ));
}

/// Istio's settings: streams may be idle as long as they like, WebSocket passes.
pub(crate) fn manager(stat_prefix: String, routes: RouteSource) -> HttpConnectionManager {
    HttpConnectionManager {
        timeouts: Timeouts { stream_idle: Duration::ZERO, ..Timeouts::default() },
        upgrades: vec![Upgrade::to("websocket")],
        filters: vec![HttpFilter::cors(), HttpFilter::fault()],
        ..HttpConnectionManager::new(stat_prefix, routes)
    }
}
