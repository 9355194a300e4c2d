//! Which ports Gateways open on a proxy, and where it listens for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serin_model::{
    GatewayListener, Guarded, Hostname, ListenerTls, MeshSnapshot, ObjectName, ProxyIdentity, TargetPort, selects,
};

use crate::naming;

/// The servers on a port that have one route configuration: all servers without TLS, or one where it ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayPort {
    /// Port that clients use.
    pub(crate) port: u16,
    /// Where the proxy listens for it.
    pub(crate) address: SocketAddr,
    /// The name of the route configuration.
    pub(crate) routes: String,
    /// The end of TLS; `None` is plain text.
    pub(crate) tls: Option<ListenerTls>,
    /// The servers, with the Gateways that they are of.
    pub(crate) servers: Vec<(ObjectName, GatewayListener)>,
    /// The policy that closes it, in words.
    pub(crate) closed: Option<String>,
}

/// Returns the ports that Gateways open on a proxy.
pub(crate) fn ports(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> Vec<GatewayPort> {
    let mut by_port: BTreeMap<u16, Vec<(ObjectName, GatewayListener)>> = BTreeMap::new();
    for gateway in mesh.gateways().filter(|g| selects(&g.selector, &proxy.labels)) {
        for server in &gateway.listeners {
            by_port.entry(server.port).or_default().push((gateway.name.clone(), server.clone()));
        }
    }
    let mut ports: Vec<GatewayPort> = Vec::new();
    for (port, servers) in by_port {
        let address = listen_address(mesh, proxy, port, &servers);
        if ports.iter().any(|other| other.address == address && other.port != port) {
            continue;
        }
        let (namespace, labels) = (proxy.name.namespace.as_str(), &proxy.labels);
        let (port_behind, root) = (Some(address.port()), mesh.root_namespace());
        let guarded = Guarded { namespace, labels, port: port_behind, is_gateway: true, is_partly_known: false, root };
        let closed = mesh.closed_by(&guarded).map(ToString::to_string);
        for (routes, tls, servers) in apart(port, servers) {
            ports.push(GatewayPort { port, address, routes, tls, servers, closed: closed.clone() });
        }
    }
    ports
}

type Servers = Vec<(ObjectName, GatewayListener)>;

/// Puts the servers of a port together that have one route configuration. The oldest says whether TLS ends on the port; of servers where
/// it does, the oldest has a host. Istio leaves a server out whose host is taken (`mergeGateways`); here it keeps its other hosts, which
/// another server with a wider name would have otherwise. A port of which no server is carried out is not opened.
fn apart(port: u16, servers: Servers) -> Vec<(String, Option<ListenerTls>, Servers)> {
    let is_secure = servers.first().is_some_and(|(_, server)| server.tls.is_some());
    let (secure, plain): (Servers, Servers) = servers.into_iter().partition(|(_, server)| server.tls.is_some());
    if !is_secure {
        return vec![(naming::gateway_routes(port), None, plain)];
    }
    if !secure.iter().any(|(_, server)| matches!(server.tls, Some(ListenerTls::On(_)))) {
        return Vec::new();
    }
    let (mut taken, mut names, mut all) = (BTreeSet::<Hostname>::new(), BTreeSet::new(), Vec::new());
    for (gateway, mut server) in secure {
        server.hosts.retain(|filter| !taken.contains(&filter.host));
        if server.hosts.is_empty() {
            continue;
        }
        taken.extend(server.hosts.iter().map(|filter| filter.host.clone()));
        let mut routes = naming::secure_routes(&server, &gateway);
        while !names.insert(routes.clone()) {
            routes.push('~');
        }
        all.push((routes, server.tls.clone(), vec![(gateway, server)]));
    }
    all
}

/// The port behind the gateway's own service, when it has one with this number; else the number itself.
fn listen_address(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    port: u16,
    servers: &[(ObjectName, GatewayListener)],
) -> SocketAddr {
    let bind = servers.iter().find_map(|(_, s)| s.bind.as_ref()?.parse::<IpAddr>().ok());
    let behind = mesh.services().find_map(|service| {
        let selector = service.selector.as_ref().filter(|s| !s.is_empty() && selects(s, &proxy.labels))?;
        let service_port = service.port(port)?;
        let own = mesh.endpoints(&service.host, service_port, selector).find(|(e, _)| e.labels == proxy.labels);
        own.map(|(_, number)| number).or(match service_port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        })
    });
    SocketAddr::new(bind.unwrap_or_else(|| proxy.default_bind()), behind.unwrap_or(port))
}
