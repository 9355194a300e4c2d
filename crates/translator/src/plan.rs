//! The listeners of a proxy and the services that it sees: the part of a translation that does not speak of one host.

use std::net::{Ipv4Addr, SocketAddr};

use serin_model::{
    Changes, EgressListener, HostFilter, Hostname, IngressListener, MeshSnapshot, ProxyIdentity, ProxyRole, Resolution,
    Service, Sidecar, selects,
};

use crate::gateway_port::{self, GatewayPort};
use crate::scope;

/// Where a proxy without a Sidecar takes its application's requests (Istio's outbound port).
const OUTBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

/// The inputs that all translations of single hosts for one proxy have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Listeners for what the application sends; none where the proxy is no sidecar.
    pub(crate) egress: Vec<Egress>,
    /// Listeners for what is sent to the application.
    pub(crate) ingress: Vec<IngressListener>,
    /// Ports that Gateways open.
    pub(crate) gateway: Vec<GatewayPort>,
    /// Services to which there are clusters; `None` is every visible one.
    pub(crate) reachable: Option<Vec<HostFilter>>,
}

/// A listener for what the application sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Egress {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its route configuration.
    pub(crate) routes: String,
    /// Services that are reached here.
    pub(crate) hosts: Vec<HostFilter>,
    /// Ports of them that are.
    pub(crate) ports: Ports,
}

/// Which services a listener serves, and by which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Every HTTP port of every service; `true` where clients name hosts as they do to a proxy (`HTTP_PROXY`), so that no port of
    /// theirs is known.
    Any(bool),
    /// The port of this number.
    Only(u16),
}

impl Plan {
    /// Makes the plan of a proxy.
    #[must_use]
    pub fn new(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> Self {
        match proxy.role {
            ProxyRole::Sidecar => Self::of_sidecar(mesh, proxy),
            ProxyRole::Gateway => {
                Self { gateway: gateway_port::ports(mesh, proxy), reachable: None, ..Self::default() }
            }
            ProxyRole::Grpc => Self { reachable: Some(vec![all_hosts()]), ..Self::default() },
        }
    }

    fn of_sidecar(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> Self {
        let sidecar = sidecar_of(mesh, proxy);
        let everything = [EgressListener { listen: None, any_port: true, hosts: vec![all_hosts()] }];
        let egress = sidecar.and_then(|s| s.egress.as_deref()).unwrap_or(&everything);
        let mut plan = Self {
            ingress: sidecar.map(|s| s.ingress.clone()).unwrap_or_default(),
            reachable: Some(egress.iter().flat_map(|listener| listener.hosts.clone()).collect()),
            ..Self::default()
        };
        for listener in egress {
            let address = listener.listen.unwrap_or(OUTBOUND);
            if plan.egress.iter().any(|other| other.address == address) {
                continue;
            }
            let name = address.port().to_string();
            let is_taken = plan.egress.iter().any(|other| other.routes == name);
            plan.egress.push(Egress {
                address,
                routes: if is_taken { address.to_string() } else { name },
                hosts: listener.hosts.clone(),
                ports: ports(mesh, proxy, listener, address.port()),
            });
        }
        plan
    }

    /// Returns whether a change makes the plan, or what is translated with it as a whole, another.
    #[must_use]
    pub fn is_changed_by(
        &self,
        changes: &Changes,
        before: &MeshSnapshot,
        after: &MeshSnapshot,
        proxy: &ProxyIdentity,
    ) -> bool {
        if changes.everything {
            return true;
        }
        let is_own = |service: &Service| {
            service.selector.as_ref().is_some_and(|own| !own.is_empty() && selects(own, &proxy.labels))
        };
        let has_own_address = !self.ingress.is_empty() || !self.gateway.is_empty();
        let concerns = |host: &Hostname| [before, after].iter().filter_map(|mesh| mesh.service(host)).any(is_own);
        let by_number = |egress: &Egress| !matches!(egress.ports, Ports::Any(false));
        (has_own_address && changes.services.iter().any(concerns))
            || (self.egress.iter().any(by_number) && *self != Self::new(after, proxy))
    }

    /// Returns whether there are clusters towards a service.
    pub(crate) fn reaches(&self, proxy: &ProxyIdentity, service: &Service) -> bool {
        let named = self.reachable.as_ref().is_none_or(|filters| scope::lets_through(filters, service));
        // gRPC resolves no names of endpoints the way these services want it.
        let is_usable = proxy.role != ProxyRole::Grpc || service.resolution == Resolution::Static;
        service.visible_in(&proxy.name.namespace) && named && is_usable
    }
}

/// Returns the Sidecar with the most specific selector in the proxy's namespace.
fn sidecar_of<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity) -> Option<&'a Sidecar> {
    mesh.sidecars()
        .filter(|s| s.name.namespace == proxy.name.namespace && selects(&s.selector, &proxy.labels))
        .max_by_key(|s| (!s.selector.is_empty(), s.selector.len(), std::cmp::Reverse(s.name.name.clone())))
}

fn all_hosts() -> HostFilter {
    HostFilter { namespace: None, host: Hostname::parse("*").unwrap_or_else(|_| unreachable!("'*' is a host name")) }
}

/// A port that services have is theirs; any other is a way to all of them by name.
fn ports(mesh: &MeshSnapshot, proxy: &ProxyIdentity, listener: &EgressListener, port: u16) -> Ports {
    let is_seen =
        |service: &Service| service.visible_in(&proxy.name.namespace) && scope::lets_through(&listener.hosts, service);
    match listener.listen {
        None => Ports::Any(false),
        Some(_) if listener.any_port || !mesh.services_with_port(port).any(is_seen) => Ports::Any(true),
        Some(_) => Ports::Only(port),
    }
}
