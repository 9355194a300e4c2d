//! What one proxy sees: services, and the rules that apply to them.

use serin_model::{
    DestinationRule, GatewayRef, HostFilter, Hostname, MeshSnapshot, ProxyIdentity, Service, VirtualService,
};

/// The services that a list of host filters lets through.
pub(crate) fn services<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity, filters: &[HostFilter]) -> Vec<&'a Service> {
    mesh.services()
        .filter(|service| service.visible_in(&proxy.name.namespace))
        .filter(|service| filters.iter().any(|f| lets_through(f, service)))
        .collect()
}

fn lets_through(filter: &HostFilter, service: &Service) -> bool {
    let namespace = filter.namespace.as_ref().is_none_or(|n| *n == service.namespace);
    let short = service.host.service_parts().is_some_and(|(name, _)| name == filter.host.as_str());
    namespace && (filter.host.covers(&service.host) || short)
}

/// The VirtualService that sidecars obey for a host: own namespace first, then the narrowest host.
pub(crate) fn mesh_rule<'a>(
    mesh: &'a MeshSnapshot,
    proxy: &ProxyIdentity,
    host: &Hostname,
) -> Option<&'a VirtualService> {
    let own = &proxy.name.namespace;
    mesh.virtual_services()
        .filter(|rule| applies_to_mesh(rule) && visible(rule.export_to.as_deref(), own))
        .filter_map(|rule| {
            let narrowest = rule.hosts.iter().filter(|h| h.covers(host)).map(|h| h.as_str().len()).max()?;
            let exact = rule.hosts.contains(host);
            Some(((exact, narrowest, rule.name.namespace == *own), rule))
        })
        .fold(None, |best: Option<((bool, usize, bool), &VirtualService)>, candidate| match best {
            Some(best) if best.0 >= candidate.0 => Some(best),
            _ => Some(candidate),
        })
        .map(|(_, rule)| rule)
}

/// Rules for hosts that no service has, for callers that name them all the same.
pub(crate) fn mesh_rules_without_service<'a>(
    mesh: &'a MeshSnapshot,
    proxy: &ProxyIdentity,
) -> Vec<(&'a Hostname, &'a VirtualService)> {
    let own = &proxy.name.namespace;
    let mut found: Vec<(&Hostname, &VirtualService)> = Vec::new();
    for rule in mesh.virtual_services().filter(|r| applies_to_mesh(r) && visible(r.export_to.as_deref(), own)) {
        for host in &rule.hosts {
            let known = mesh.services().any(|s| host.covers(&s.host));
            if !known && host.as_str() != "*" && !found.iter().any(|(h, _)| *h == host) {
                found.push((host, rule));
            }
        }
    }
    found
}

fn applies_to_mesh(rule: &VirtualService) -> bool {
    let in_match = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.gateways.as_ref());
    rule.gateways.contains(&GatewayRef::Mesh) || in_match.flatten().any(|g| *g == GatewayRef::Mesh)
}

/// The DestinationRules for a host: client's namespace, then the service's, then others; narrow before wide.
pub(crate) fn destination_rules<'a>(
    mesh: &'a MeshSnapshot,
    proxy: &ProxyIdentity,
    service: &Service,
) -> Vec<&'a DestinationRule> {
    let own = &proxy.name.namespace;
    let mut rules: Vec<&DestinationRule> = mesh
        .destination_rules()
        .filter(|r| r.host.covers(&service.host) && visible(r.export_to.as_deref(), own))
        .collect();
    rules.sort_by_key(|r| {
        let distance = match &r.name.namespace {
            n if n == own => 0,
            n if *n == service.namespace => 1,
            _ => 2,
        };
        (distance, std::cmp::Reverse(r.host.as_str().len()), r.host.is_wildcard(), r.name.name.clone())
    });
    rules
}

pub(crate) fn visible(export_to: Option<&[String]>, namespace: &str) -> bool {
    export_to.is_none_or(|list| list.iter().any(|n| n == namespace))
}
