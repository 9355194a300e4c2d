//! Which ports Gateways open on a proxy, and where it listens for them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serin_model::{GatewayListener, Guarded, MeshSnapshot, ObjectName, ProxyIdentity, TargetPort, selects};

/// A port that Gateways open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayPort {
    /// Port that clients use.
    pub(crate) port: u16,
    /// Where the proxy listens for it.
    pub(crate) address: SocketAddr,
    /// The servers on it, with the Gateways that they are of.
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
        if ports.iter().any(|other| other.address == address) {
            continue;
        }
        let (namespace, labels) = (proxy.name.namespace.as_str(), &proxy.labels);
        let (port_behind, root) = (Some(address.port()), mesh.root_namespace());
        let guarded = Guarded { namespace, labels, port: port_behind, is_gateway: true, is_partly_known: false, root };
        let closed = mesh.closed_by(&guarded).map(ToString::to_string);
        ports.push(GatewayPort { port, address, servers, closed });
    }
    ports
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
