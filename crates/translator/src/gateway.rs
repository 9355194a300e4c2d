//! A proxy at a gateway: one listener for each port that Gateways open on it.

use std::collections::BTreeSet;

use serin_model::{
    Attachment, GatewayListener, HostFilter, Hostname, ListenerTls, MeshSnapshot, ObjectName, ProxyIdentity, RouteRules,
};
use serin_resources::connection_manager::{CertificateDetails, ClientCertificate, ForwardMode, RouteSource};
use serin_resources::http_filter::{Rbac, RbacAction, RbacRules};
use serin_resources::listener::{Direction, Filter, Listener, ListenerFilter};
use serin_resources::route::{RequireTls, Route, RouteConfiguration, VirtualHost};

use crate::destination::RouteScope;
use crate::gateway_port::GatewayPort;
use crate::plan::Plan;
use crate::{ResourceSet, RoutedHost, route, scope, sidecar, tls, virtual_host};

/// What upstreams are told of a client's certificate.
const CERTIFICATE_DETAILS: CertificateDetails =
    CertificateDetails { certificate: true, chain: false, subject: true, uri: true, dns: true, issuer: false };

/// Adds the listeners.
pub(crate) fn base(plan: &Plan, set: &mut ResourceSet) {
    for opened in &plan.gateway {
        let GatewayPort { port, address, routes: name, tls, closed, .. } = opened;
        set.routes.push(RouteConfiguration {
            name: name.clone(),
            ignore_port_in_host_matching: true,
            ..RouteConfiguration::default()
        });
        if let Some(because) = closed {
            set.virtual_hosts.push(RoutedHost { routes: name.clone(), host: route::refuse_all(because) });
        }
        let mut http = sidecar::manager(format!("outbound_{}_{port}", address.ip()), RouteSource::Rds(name.clone()));
        http.use_remote_address = true;
        // Istio: `buildGatewayConnectionManager`.
        http.client_certificate = ClientCertificate { mode: ForwardMode::Set, details: CERTIFICATE_DETAILS };
        let name = format!("{}_{port}", address.ip());
        let mut listener = Listener::new(name, *address, Direction::Outbound, Filter::http(http));
        if let Some(settings) = tls {
            listener.listener_filters = vec![ListenerFilter::TlsInspector];
            for chain in &mut listener.chains {
                match settings {
                    ListenerTls::On(settings) => chain.tls = Some(tls::server(settings)),
                    // Nobody is let in (Envoy: an `ALLOW` without policies).
                    ListenerTls::NotCarriedOut => chain.gates = vec![nobody()],
                }
                chain.matches.server_names = server_names(opened);
            }
        }
        match set.listeners.last_mut().filter(|before| before.name == listener.name) {
            Some(before) => before.chains.extend(listener.chains),
            None => set.listeners.push(listener),
        }
    }
}

/// A gate that lets nobody in.
fn nobody() -> Rbac {
    let rules = RbacRules { action: RbacAction::Allow, policies: Vec::new() };
    Rbac { rules: Some(rules), shadow: None, prefix: "not_carried_out".to_owned() }
}

/// The names that clients ask for; none where every name is served.
fn server_names(opened: &GatewayPort) -> Vec<String> {
    let hosts = || opened.servers.iter().flat_map(|(_, server)| &server.hosts).map(|filter| filter.host.to_string());
    if hosts().any(|host| host == "*") { Vec::new() } else { hosts().collect::<BTreeSet<_>>().into_iter().collect() }
}

/// Returns the hosts for which the ports have virtual hosts because of a host of rules or services.
pub(crate) fn hosts_for(plan: &Plan, host: &Hostname) -> BTreeSet<Hostname> {
    let servers = plan.gateway.iter().flat_map(|port| &port.servers);
    servers.flat_map(|(_, server)| &server.hosts).filter_map(|filter| filter.host.intersect(host)).collect()
}

/// Returns all hosts for which the ports may have virtual hosts.
pub(crate) fn hosts(mesh: &MeshSnapshot, plan: &Plan) -> BTreeSet<Hostname> {
    let servers = || plan.gateway.iter().flat_map(|port| &port.servers).map(|(_, server)| server);
    let redirected = servers().filter(|server| server.https_redirect).flat_map(|server| &server.hosts);
    let mut hosts: BTreeSet<Hostname> = redirected.map(|filter| filter.host.clone()).collect();
    if !plan.gateway.is_empty() {
        let routed = mesh.route_rules().flat_map(|rule| &rule.hosts);
        hosts.extend(routed.flat_map(|host| hosts_for(plan, host)));
    }
    hosts
}

/// The virtual host of a port that leads nowhere, so that there is one where no rule makes any.
pub(crate) fn blackhole(plan: &Plan, routes: &str) -> Option<VirtualHost> {
    let port = plan.gateway.iter().find(|port| port.routes == routes)?.port;
    let domains = vec!["*".to_owned()];
    Some(VirtualHost { name: format!("blackhole:{port}"), domains, ..VirtualHost::default() })
}

/// Adds the virtual hosts of a host: routes of all its rules, the oldest first, those that match everything moved last. A server that
/// redirects to https does so for its hosts without rules too (Istio: `buildGatewayHTTPRouteConfig`).
pub(crate) fn virtual_hosts(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    plan: &Plan,
    host: &Hostname,
    set: &mut ResourceSet,
) {
    for opened in plan.gateway.iter().filter(|port| port.closed.is_none()) {
        let bound = bind(mesh, proxy, opened, host);
        if bound.rules.is_empty() && !bound.redirects {
            continue;
        }
        let Bound { mut routes, redirects, rules } = bound;
        routes.sort_by_key(|r| r.matches.is_catch_all());
        let made = VirtualHost {
            outdated: virtual_host::outdated(mesh, &rules, host),
            name: format!("{host}:{}", opened.port),
            domains: vec![host.to_string()],
            routes,
            require_tls: if redirects { RequireTls::All } else { RequireTls::No },
            ..VirtualHost::default()
        };
        set.virtual_hosts.push(RoutedHost { routes: opened.routes.clone(), host: made });
    }
}

/// What a host has at a gateway's port.
#[derive(Default)]
struct Bound<'a> {
    routes: Vec<Route>,
    /// Whether its server redirects to https.
    redirects: bool,
    /// The rules that its routes are from.
    rules: Vec<&'a RouteRules>,
}

/// Finds what a host has at a port.
fn bind<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity, opened: &GatewayPort, host: &Hostname) -> Bound<'a> {
    let own = &proxy.name.namespace;
    let mut bound = Bound::default();
    for (gateway, server) in &opened.servers {
        let reference = Attachment::Gateway(gateway.clone());
        let place = RouteScope { mesh, proxy, port: opened.port, gateway: &reference, any_port: true };
        let is_servers = server.hosts.iter().any(|filter| filter.host == *host);
        // A rule's wildcard is narrowed to the server's host; any other host of a server is one that a rule names.
        let named: Vec<&RouteRules> = match is_servers {
            true => mesh.route_rules_for(host).collect(),
            false => mesh.route_rules_of(host).collect(),
        };
        let mut rules: Vec<&RouteRules> =
            named.into_iter().filter(|rule| scope::visible(rule.export_to.as_deref(), own)).collect();
        rules.sort_by_key(|rule| scope::audience(rule, own));
        for rule in rules {
            if !hosts_of(rule, &reference, gateway, server).contains(host) {
                continue;
            }
            let routes = route::routes(rule, &place);
            // A rule without a route here leaves its hosts as if it were not there.
            if !routes.is_empty() {
                bound.routes.extend(routes);
                bound.redirects |= server.https_redirect;
                bound.rules.push(rule);
            }
        }
        bound.redirects |= server.https_redirect && is_servers;
    }
    bound
}

fn hosts_of(
    rule: &RouteRules,
    reference: &Attachment,
    gateway: &ObjectName,
    server: &GatewayListener,
) -> Vec<Hostname> {
    let in_match = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.attachments.as_ref());
    let bound = rule.attachments.contains(reference) || in_match.flatten().any(|g| g == reference);
    if !bound {
        return Vec::new();
    }
    let allowed = |filter: &&HostFilter| match &filter.namespace {
        None => true,
        Some(own) if own == "." => rule.name.namespace == gateway.namespace,
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
