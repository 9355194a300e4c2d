//! A proxy beside a workload: listeners from its Sidecar, or one that reaches every service when there is none.

use std::net::{Ipv4Addr, SocketAddr};

use serin_model::{
    EgressListener, Guarded, HostFilter, Hostname, IngressListener, Labels, MeshSnapshot, ProxyIdentity, Service,
    Sidecar, selects,
};
use serin_resources::connection_manager::{HttpConnectionManager, RouteSource, Timeouts};
use serin_resources::http_filter::HttpFilter;
use serin_resources::listener::{Direction, Filter, Listener};
use serin_resources::route::{Action, Forward, RouteConfiguration, VirtualHost, WeightedCluster};
use std::time::Duration;

use crate::virtual_host::{self, Ports};
use crate::{ResourceSet, cluster, naming, route, scope};

/// Where a proxy without a Sidecar takes its application's requests (Istio's outbound port).
const OUTBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

pub(crate) fn translate(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> ResourceSet {
    let mut set = ResourceSet::default();
    let sidecar = sidecar_of(mesh, proxy);
    let everything = [EgressListener { listen: None, any_port: true, hosts: vec![all_hosts()] }];
    let egress = sidecar.and_then(|s| s.egress.as_deref()).unwrap_or(&everything);
    let filters: Vec<HostFilter> = egress.iter().flat_map(|e| e.hosts.clone()).collect();
    cluster::outbound(mesh, proxy, &scope::services(mesh, proxy, &filters), &mut set);
    for listener in egress {
        outbound(mesh, proxy, listener, &mut set);
    }
    for listener in sidecar.map(|s| s.ingress.as_slice()).unwrap_or_default() {
        inbound(mesh, proxy, listener, &mut set);
    }
    set
}

/// The Sidecar with the most specific selector in the proxy's namespace.
fn sidecar_of<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity) -> Option<&'a Sidecar> {
    mesh.sidecars()
        .filter(|s| s.name.namespace == proxy.name.namespace && selects(&s.selector, &proxy.labels))
        .max_by_key(|s| (!s.selector.is_empty(), s.selector.len(), std::cmp::Reverse(s.name.name.clone())))
}

pub(crate) fn all_hosts() -> HostFilter {
    HostFilter { namespace: None, host: Hostname::parse("*").unwrap_or_else(|_| unreachable!("'*' is a host name")) }
}

fn outbound(mesh: &MeshSnapshot, proxy: &ProxyIdentity, listener: &EgressListener, set: &mut ResourceSet) {
    let address = listener.listen.unwrap_or(OUTBOUND);
    let services = scope::services(mesh, proxy, &listener.hosts);
    let name = address.port().to_string();
    let virtual_hosts = virtual_host::outbound(mesh, proxy, &services, ports(listener, address.port(), &services));
    if set.listeners.iter().any(|l| l.address == address) {
        return;
    }
    let name = if set.routes.iter().any(|r| r.name == name) { address.to_string() } else { name };
    set.routes.push(RouteConfiguration { name: name.clone(), virtual_hosts, ..RouteConfiguration::default() });
    let prefix = format!("outbound_{}_{}", address.ip(), address.port());
    set.listeners.push(Listener {
        name: format!("{}_{}", address.ip(), address.port()),
        address,
        direction: Direction::Outbound,
        gates: Vec::new(),
        filter: Filter::http(manager(prefix, RouteSource::Rds(name))),
    });
}

/// A port that services have is theirs; any other is a way to all of them by name.
fn ports(listener: &EgressListener, port: u16, services: &[&Service]) -> Ports {
    let shared = services.iter().any(|s| s.port(port).is_some());
    match listener.listen {
        None => Ports::Any(false),
        Some(_) if listener.any_port || !shared => Ports::Any(true),
        Some(_) => Ports::Only(port),
    }
}

fn inbound(mesh: &MeshSnapshot, proxy: &ProxyIdentity, listener: &IngressListener, set: &mut ResourceSet) {
    let bind = listener.bind.unwrap_or_else(|| proxy.default_bind());
    let cluster = naming::inbound(listener.port);
    let is_own = |s: &&Service| {
        let selects = |own: &Labels| !own.is_empty() && selects(own, &proxy.labels);
        s.namespace == proxy.name.namespace && s.selector.as_ref().is_some_and(selects)
    };
    let service = mesh.services().find(is_own).map(|s| s.host.to_string()).unwrap_or_default();
    set.clusters.push(cluster::inbound(service, (listener.port, listener.protocol), listener.application));
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
    set.listeners.push(Listener {
        name: format!("{bind}_{}", listener.port),
        address: SocketAddr::new(bind, listener.port),
        direction: Direction::Inbound,
        gates: Vec::new(),
        filter: Filter::http(manager(format!("inbound_{bind}_{}", listener.port), RouteSource::Inline(routes))),
    });
}

/// Istio's settings: streams may be idle as long as they like, WebSocket passes.
pub(crate) fn manager(stat_prefix: String, routes: RouteSource) -> HttpConnectionManager {
    HttpConnectionManager {
        timeouts: Timeouts { stream_idle: Duration::ZERO, ..Timeouts::default() },
        websocket: true,
        filters: vec![HttpFilter::cors(), HttpFilter::fault()],
        ..HttpConnectionManager::new(stat_prefix, routes)
    }
}
