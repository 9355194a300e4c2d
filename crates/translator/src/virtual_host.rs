//! Virtual hosts for callers inside the mesh.

use std::collections::BTreeSet;

use serin_model::{
    Action, Attachment, DOMAIN, Hostname, MeshSnapshot, Object, Outdated, ProxyIdentity, RouteRules, Service,
};
use serin_resources::route::{self as wire, Respond, VirtualHost};

use crate::destination::RouteScope;
use crate::plan::{Egress, Plan, Ports};
use crate::{ResourceSet, RoutedHost, naming, policy, release, route, scope};

/// Adds what the listeners of a sidecar have for a host: that of a service, or one that only rules speak of.
pub(crate) fn outbound(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    plan: &Plan,
    host: &Hostname,
    set: &mut ResourceSet,
) {
    for listener in &plan.egress {
        let here = ListenerScope { mesh, proxy, listener };
        let hosts = match mesh.service(host) {
            Some(service) => here.of_service(service),
            None => here.of_rule(host).into_iter().collect(),
        };
        let hosts = hosts.into_iter().filter(|host| !host.domains.is_empty());
        set.virtual_hosts.extend(hosts.map(|host| RoutedHost { routes: listener.routes.clone(), host }));
    }
}

/// A listener of a sidecar, with what it knows.
#[derive(Clone, Copy)]
struct ListenerScope<'a> {
    mesh: &'a MeshSnapshot,
    proxy: &'a ProxyIdentity,
    listener: &'a Egress,
}

impl ListenerScope<'_> {
    /// The ports of a service that are reached here, and the one that is meant where callers say none.
    fn ports(&self, service: &Service) -> (Vec<u16>, Option<u16>) {
        let is_seen =
            service.visible_in(&self.proxy.name.namespace) && scope::lets_through(&self.listener.hosts, service);
        let mut ports: Vec<u16> = service.ports.iter().filter(|p| p.protocol.is_http()).map(|p| p.number).collect();
        if !is_seen {
            ports.clear();
        }
        let primary = match self.listener.ports {
            Ports::Only(only) => {
                ports.retain(|port| *port == only);
                ports.first().copied()
            }
            Ports::Any(_) => ports.iter().copied().find(|port| *port == 80).or(ports.first().copied()),
        };
        (ports, primary)
    }

    fn of_service(&self, service: &Service) -> Vec<VirtualHost> {
        let (ports, primary) = self.ports(service);
        let any_port = matches!(self.listener.ports, Ports::Any(true));
        let of_port = |port: u16| {
            let domains = self.domains(&service.host, port, primary == Some(port));
            let target = Target { service, port, any_port };
            service_host(self.mesh, self.proxy, target, domains)
        };
        ports.into_iter().map(of_port).collect()
    }

    /// The virtual host of a host that no service has.
    fn of_rule(&self, host: &Hostname) -> Option<VirtualHost> {
        let Self { mesh, proxy, listener } = *self;
        if !matches!(listener.ports, Ports::Any(_) | Ports::Only(80)) {
            return None;
        }
        let rule = scope::mesh_rule_without_service(mesh, proxy, host)?;
        let place = RouteScope { mesh, proxy, port: 80, gateway: &Attachment::Mesh, any_port: false };
        let routes = route::routes(rule, &place);
        let domains = self.domains(host, 80, true);
        let of_rule = VirtualHost { name: format!("{host}:80"), domains, routes, ..VirtualHost::default() };
        (!of_rule.routes.is_empty()).then_some(of_rule)
    }

    /// Names with port, and without where this is the host's main port; a name that another host has is left out.
    fn domains(&self, host: &Hostname, port: u16, is_primary: bool) -> Vec<String> {
        let mut domains = Vec::new();
        for alias in naming::aliases(host, &self.proxy.name.namespace) {
            let others = self.others(&alias, host);
            if !others.iter().any(|other| self.has(other, host, Some(port))) {
                domains.push(format!("{alias}:{port}"));
            }
            if is_primary && !others.iter().any(|other| self.has(other, host, None)) {
                domains.push(alias);
            }
        }
        domains
    }

    /// Hosts besides this one that may be called by the same name.
    fn others(&self, alias: &str, host: &Hostname) -> Vec<Hostname> {
        let namespace = &self.proxy.name.namespace;
        let whole = match alias.split('.').count() {
            1 => format!("{alias}.{namespace}.svc.{DOMAIN}"),
            2 => format!("{alias}.svc.{DOMAIN}"),
            3 if alias.ends_with(".svc") => format!("{alias}.{DOMAIN}"),
            _ => String::new(),
        };
        let names = [alias, &whole].into_iter().filter(|name| *name != host.as_str());
        names.filter_map(|name| self.mesh.known_host(name)).collect()
    }

    /// Returns whether a name that two hosts have is the other's: services go before rules, then the order of hosts decides.
    fn has(&self, other: &Hostname, host: &Hostname, port: Option<u16>) -> bool {
        let is_service = self.mesh.service(host).is_some();
        match self.mesh.service(other) {
            Some(service) => {
                let (ports, primary) = self.ports(service);
                let serves = port.map_or(primary.is_some(), |port| ports.contains(&port));
                serves && (!is_service || other < host)
            }
            None => !is_service && other < host && self.of_rule(other).is_some(),
        }
    }
}

/// A port of a service, as a target of requests.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: u16,
    /// True when requests come by any port, see [`RouteScope::any_port`].
    pub(crate) any_port: bool,
}

/// The virtual host of one port of a service.
pub(crate) fn service_host(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    target: Target<'_>,
    domains: Vec<String>,
) -> VirtualHost {
    let Target { service, port, any_port } = target;
    let place = RouteScope { mesh, proxy, port, gateway: &Attachment::Mesh, any_port };
    let rules = scope::mesh_rules(mesh, proxy, &service.host);
    let outdated = outdated(mesh, &rules, &service.host);
    let routes = rules.iter().map(|rule| route::routes(rule, &place)).find(|routes| !routes.is_empty());
    let routes = routes.unwrap_or_else(|| {
        let hash = policy::hash(&scope::backend_policies(mesh, proxy, service).policy_of(port, None));
        release::without_rule(service, port, route::default_route(mesh, &service.host, port, hash), &place)
    });
    VirtualHost { name: format!("{}:{port}", service.host), domains, routes, outdated, ..VirtualHost::default() }
}

/// Which of the documents that requests to a host rest on are older than what stands in their files, in words; empty when none is.
pub(crate) fn outdated(mesh: &MeshSnapshot, rules: &[&RouteRules], host: &Hostname) -> String {
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
        Object::RouteRules(rule) => rules.iter().any(|r| r.name == rule.name),
        Object::BackendPolicy(rule) => concerned(&rule.host),
        Object::Release(release) => concerned(&release.host),
        Object::Services(services) => services.iter().any(|service| concerned(&service.host)),
        Object::Guard(_) | Object::MeshConfig(_) | Object::Workload(_) | Object::EndpointSlice(_) => true,
        Object::Gateway(_) | Object::Sidecar(_) => false,
    };
    let said = mesh.outdated().iter().filter(concerns).map(|o| format!("{}: {}", o.key, o.why));
    said.collect::<Vec<_>>().join("; ")
}

/// What a caller gets that names no service: nothing in the mesh is called that.
pub(crate) fn block_all() -> VirtualHost {
    let respond =
        Respond { status: 502, body: b"serin: no service of this name is known to the mesh\n".to_vec(), format: None };
    VirtualHost {
        name: "block_all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route::plain("block_all", wire::Action::Respond(respond))],
        ..VirtualHost::default()
    }
}
