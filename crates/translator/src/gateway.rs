//! A proxy at an entrance: one listener for each port that Gateways open on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serin_model::{
    Gateway, GatewayRef, GatewayServer, Guarded, HostFilter, Hostname, MeshSnapshot, ProxyIdentity, TargetPort,
    VirtualService, selects,
};
use serin_resources::connection_manager::RouteSource;
use serin_resources::listener::{Direction, Filter, Listener};
use serin_resources::route::{RequireTls, Route, RouteConfiguration, VirtualHost};

use crate::destination::RouteScope;
use crate::{ResourceSet, cluster, naming, route, scope, sidecar, virtual_host};

pub(crate) fn translate(mesh: &MeshSnapshot, proxy: &ProxyIdentity) -> ResourceSet {
    let mut set = ResourceSet::default();
    let services: Vec<_> = mesh.services().filter(|s| s.visible_in(&proxy.name.namespace)).collect();
    cluster::outbound(mesh, proxy, &services, &mut set);
    let mut by_port: BTreeMap<u16, Vec<(&Gateway, &GatewayServer)>> = BTreeMap::new();
    for gateway in mesh.gateways().filter(|g| selects(&g.selector, &proxy.labels)) {
        for server in &gateway.servers {
            by_port.entry(server.port).or_default().push((gateway, server));
        }
    }
    for (port, servers) in by_port {
        let address = listen_address(mesh, proxy, port, &servers);
        if set.listeners.iter().any(|l| l.address == address) {
            continue;
        }
        let name = naming::gateway_routes(port);
        let (namespace, labels) = (proxy.name.namespace.as_str(), &proxy.labels);
        let (port_behind, root) = (Some(address.port()), mesh.root_namespace());
        let guarded = Guarded { namespace, labels, port: port_behind, is_gateway: true, is_partly_known: false, root };
        let virtual_hosts = match mesh.closed_by(&guarded) {
            Some(guard) => vec![route::refuse_all(&guard.to_string())],
            None => virtual_hosts(mesh, proxy, port, &servers),
        };
        set.routes.push(RouteConfiguration {
            name: name.clone(),
            virtual_hosts,
            ignore_port_in_host_matching: true,
            ..RouteConfiguration::default()
        });
        let mut http = sidecar::manager(format!("outbound_{}_{port}", address.ip()), RouteSource::Rds(name));
        http.use_remote_address = true;
        set.listeners.push(Listener {
            name: format!("{}_{port}", address.ip()),
            address,
            direction: Direction::Outbound,
            gates: Vec::new(),
            filter: Filter::http(http),
        });
    }
    set
}

/// The port behind the gateway's own service, when it has one with this number; else the number itself.
fn listen_address(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    port: u16,
    servers: &[(&Gateway, &GatewayServer)],
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

/// One virtual host for each host: routes of all its rules, the oldest first, those that match everything moved last. A server that
/// redirects to https does so for its hosts without rules too (Istio: `buildGatewayHTTPRouteConfig`).
fn virtual_hosts(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    port: u16,
    servers: &[(&Gateway, &GatewayServer)],
) -> Vec<VirtualHost> {
    let mut hosts: BTreeMap<String, Bound<'_>> = BTreeMap::new();
    for (gateway, server) in servers {
        let reference = GatewayRef::Named(gateway.name.clone());
        let place = RouteScope { mesh, proxy, port, gateway: &reference, any_port: true };
        let own = &proxy.name.namespace;
        let mut rules: Vec<&VirtualService> =
            mesh.virtual_services().filter(|r| scope::visible(r.export_to.as_deref(), own)).collect();
        rules.sort_by_key(|rule| scope::audience(rule, own));
        for rule in rules {
            let bound = hosts_of(rule, &reference, gateway, server);
            let routes = if bound.is_empty() { Vec::new() } else { route::routes(rule, &place) };
            // A rule without a route here leaves its hosts as if it were not there.
            for host in bound.into_iter().filter(|_| !routes.is_empty()) {
                let entry = hosts.entry(host.to_string()).or_default();
                entry.routes.extend(routes.iter().cloned());
                entry.redirects |= server.https_redirect;
                entry.rules.push(rule);
            }
        }
        for filter in server.hosts.iter().filter(|_| server.https_redirect) {
            hosts.entry(filter.host.to_string()).or_default().redirects = true;
        }
    }
    let mut list: Vec<VirtualHost> = hosts
        .into_iter()
        .map(|(host, Bound { mut routes, redirects, rules })| {
            routes.sort_by_key(|r| r.matches.is_catch_all());
            let name = Hostname::parse(&host).ok();
            VirtualHost {
                outdated: name.map(|name| virtual_host::outdated(mesh, &rules, &name)).unwrap_or_default(),
                name: format!("{host}:{port}"),
                domains: vec![host],
                routes,
                require_tls: if redirects { RequireTls::All } else { RequireTls::No },
                ..VirtualHost::default()
            }
        })
        .collect();
    if list.is_empty() {
        let domains = vec!["*".to_owned()];
        list.push(VirtualHost { name: format!("blackhole:{port}"), domains, ..VirtualHost::default() });
    }
    list
}

/// What a host has at a gateway's port.
#[derive(Default)]
struct Bound<'a> {
    routes: Vec<Route>,
    /// Whether its server redirects to https.
    redirects: bool,
    /// The rules that its routes are from.
    rules: Vec<&'a VirtualService>,
}

fn hosts_of(rule: &VirtualService, reference: &GatewayRef, gateway: &Gateway, server: &GatewayServer) -> Vec<Hostname> {
    let in_match = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.gateways.as_ref());
    let bound = rule.gateways.contains(reference) || in_match.flatten().any(|g| g == reference);
    if !bound {
        return Vec::new();
    }
    let allowed = |filter: &&HostFilter| match &filter.namespace {
        None => true,
        Some(own) if own == "." => rule.name.namespace == gateway.name.namespace,
        Some(own) => *own == rule.name.namespace,
    };
    let mut hosts = Vec::new();
    for filter in server.hosts.iter().filter(allowed) {
        for host in &rule.hosts {
            if let Some(common) = filter.host.intersect(host)
                && !hosts.contains(&common)
            {
                hosts.push(common);
            }
        }
    }
    hosts
}
