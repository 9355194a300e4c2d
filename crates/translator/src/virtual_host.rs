//! Virtual hosts for callers inside the mesh.

use std::collections::BTreeSet;

use serin_model::{
    Action, GatewayRef, Hostname, MeshSnapshot, Object, Outdated, ProxyIdentity, Service, VirtualService,
};
use serin_resources::route::{self as wire, Respond, VirtualHost};

use crate::destination::RouteScope;
use crate::route;
use crate::{naming, policy, release, scope};

/// Which services a listener serves, and by which port.
#[derive(Clone, Copy)]
pub(crate) enum Ports {
    /// Every HTTP port of every service; `true` where clients name hosts as they do to a proxy (`HTTP_PROXY`), so that no port of
    /// theirs is known.
    Any(bool),
    /// The port of this number.
    Only(u16),
}

/// The virtual hosts of an outbound listener, the catch-all last.
pub(crate) fn outbound(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    services: &[&Service],
    ports: Ports,
) -> Vec<VirtualHost> {
    let mut hosts = Vec::new();
    let mut taken = BTreeSet::new();
    for service in services {
        let candidates: Vec<u16> = service.ports.iter().filter(|p| p.protocol.is_http()).map(|p| p.number).collect();
        let primary = match ports {
            Ports::Only(port) => Some(port),
            Ports::Any(_) => candidates.iter().copied().find(|p| *p == 80).or(candidates.first().copied()),
        };
        for port in candidates {
            if matches!(ports, Ports::Only(only) if only != port) {
                continue;
            }
            let domains = domains(&naming::aliases(&service.host, &proxy.name.namespace), port, primary, &mut taken);
            let any_port = matches!(ports, Ports::Any(true));
            hosts.push(service_host(mesh, proxy, (service, port, any_port), domains));
        }
    }
    if matches!(ports, Ports::Any(_) | Ports::Only(80)) {
        hosts.extend(rules_without_service(mesh, proxy, &mut taken));
    }
    hosts.retain(|h| !h.domains.is_empty());
    hosts.push(block_all());
    hosts
}

/// The virtual host of one port of a service.
pub(crate) fn service_host(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    (service, port, any_port): (&Service, u16, bool),
    domains: Vec<String>,
) -> VirtualHost {
    let place = RouteScope { mesh, proxy, port, gateway: &GatewayRef::Mesh, any_port };
    let rules = scope::mesh_rules(mesh, proxy, &service.host);
    let outdated = outdated(mesh, &rules, &service.host);
    let routes = rules.iter().map(|rule| route::routes(rule, &place)).find(|routes| !routes.is_empty());
    let routes = routes.unwrap_or_else(|| {
        let hash = policy::hash(&scope::destination_rules(mesh, proxy, service).policy_of(port, None));
        release::without_rule(service, port, route::default_route(mesh, &service.host, port, hash), &place)
    });
    VirtualHost { name: format!("{}:{port}", service.host), domains, routes, outdated, ..VirtualHost::default() }
}

/// Which of the documents that requests to a host rest on are older than what stands in their files, in words; empty when none is.
pub(crate) fn outdated(mesh: &MeshSnapshot, rules: &[&VirtualService], host: &Hostname) -> String {
    if mesh.outdated().is_empty() {
        return String::new();
    }
    let targets = rules.iter().flat_map(|rule| &rule.http).filter_map(|http| match &http.action {
        Action::Forward { destinations, .. } => Some(destinations.iter().map(|d| &d.host)),
        Action::Redirect(_) | Action::Respond(_) | Action::Refuse(_) => None,
    });
    let hosts: BTreeSet<&Hostname> = targets.flatten().chain([host]).collect();
    let concerned = |of: &Hostname| hosts.iter().any(|host| of.covers(host));
    let concerns = |outdated: &&Outdated| match outdated.object.as_ref() {
        Object::VirtualService(rule) => rules.iter().any(|r| r.name == rule.name),
        Object::DestinationRule(rule) => concerned(&rule.host),
        Object::Release(release) => concerned(&release.host),
        Object::Services(services) => services.iter().any(|service| concerned(&service.host)),
        Object::Guard(_) | Object::MeshConfig(_) | Object::Workload(_) | Object::EndpointSlice(_) => true,
        Object::Gateway(_) | Object::Sidecar(_) => false,
    };
    let said = mesh.outdated().iter().filter(concerns).map(|o| format!("{}: {}", o.key, o.why));
    said.collect::<Vec<_>>().join("; ")
}

fn rules_without_service(mesh: &MeshSnapshot, proxy: &ProxyIdentity, taken: &mut BTreeSet<String>) -> Vec<VirtualHost> {
    let place = RouteScope { mesh, proxy, port: 80, gateway: &GatewayRef::Mesh, any_port: false };
    scope::mesh_rules_without_service(mesh, proxy)
        .into_iter()
        .map(|(host, rule)| VirtualHost {
            name: format!("{host}:80"),
            domains: domains(&naming::aliases(host, &proxy.name.namespace), 80, Some(80), taken),
            routes: route::routes(rule, &place),
            ..VirtualHost::default()
        })
        .filter(|host| !host.routes.is_empty())
        .collect()
}

/// Names with port, and without where this is the host's main port; a name that is taken is left out.
fn domains(aliases: &[String], port: u16, primary: Option<u16>, taken: &mut BTreeSet<String>) -> Vec<String> {
    let mut domains = Vec::new();
    for alias in aliases {
        domains.push(format!("{alias}:{port}"));
        if primary == Some(port) {
            domains.push(alias.clone());
        }
    }
    domains.retain(|d| taken.insert(d.clone()));
    domains
}

/// What a caller gets that names no service: nothing in the mesh is called that.
fn block_all() -> VirtualHost {
    let respond =
        Respond { status: 502, body: b"serin: no service of this name is known to the mesh\n".to_vec(), format: None };
    VirtualHost {
        name: "block_all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route::plain("block_all", wire::Action::Respond(respond))],
        ..VirtualHost::default()
    }
}
