//! What one proxy sees: services, and the rules that apply to them.

use serin_model::{
    Attachment, BackendPolicy, HostFilter, Hostname, MeshSnapshot, ProxyIdentity, RouteRules, Service, Subset,
    TrafficPolicy, selects,
};

/// Returns whether one of the filters lets a service through.
pub(crate) fn lets_through(filters: &[HostFilter], service: &Service) -> bool {
    let short = service.host.service_parts().map(|(name, _)| name);
    filters.iter().any(|filter| {
        let namespace = filter.namespace.as_ref().is_none_or(|n| *n == service.namespace);
        namespace && (filter.host.covers(&service.host) || short == Some(filter.host.as_str()))
    })
}

/// The VirtualServices for a host, in the order in which sidecars ask them: those for the own namespace alone, for it by name, and for
/// all; then the oldest. The first that has a route here is obeyed, whole. Only rules for the narrowest host are asked: a wildcard's do
/// not step in where an exact host's have no route (Istio, `computeWildcardHostVirtualServiceIndex`).
pub(crate) fn mesh_rules<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity, host: &Hostname) -> Vec<&'a RouteRules> {
    let own = &proxy.name.namespace;
    let rules = mesh.route_rules_for(host).filter(|r| applies_to_mesh(r) && visible(r.export_to.as_deref(), own));
    let mut found: Vec<_> = rules
        .filter_map(|rule| {
            let narrowest = rule.hosts.iter().filter(|h| h.covers(host)).map(breadth).min()?;
            Some(((narrowest, audience(rule, own)), rule))
        })
        .collect();
    let narrowest = found.iter().map(|((breadth, _), _)| *breadth).min();
    found.retain(|((breadth, _), _)| Some(*breadth) == narrowest);
    // Those of equal rank stay in order of creation.
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, rule)| rule).collect()
}

/// For how many namespaces a rule is that is seen in this one.
pub(crate) fn audience(rule: &RouteRules, namespace: &str) -> u8 {
    match &rule.export_to {
        None => 2,
        Some(_) if rule.name.namespace == namespace => 0,
        Some(_) => 1,
    }
}

/// Returns the rule for a host that no service has, for callers that name it all the same.
pub(crate) fn mesh_rule_without_service<'a>(
    mesh: &'a MeshSnapshot,
    proxy: &ProxyIdentity,
    host: &Hostname,
) -> Option<&'a RouteRules> {
    let own = &proxy.name.namespace;
    let mut rules = mesh.route_rules_of(host);
    let rule = rules.find(|rule| applies_to_mesh(rule) && visible(rule.export_to.as_deref(), own))?;
    (host.as_str() != "*" && !mesh.has_service(host)).then_some(rule)
}

fn applies_to_mesh(rule: &RouteRules) -> bool {
    let in_match = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.attachments.as_ref());
    // One that routes connections alone leaves requests as they were.
    !rule.http.is_empty()
        && (rule.attachments.contains(&Attachment::Mesh) || in_match.flatten().any(|g| *g == Attachment::Mesh))
}

/// What the DestinationRules for a host say together.
#[derive(Debug, Default)]
pub(crate) struct Rules<'a> {
    rules: Vec<&'a BackendPolicy>,
}

impl<'a> Rules<'a> {
    /// The policy of the oldest that has one.
    pub(crate) fn policy(&self) -> TrafficPolicy {
        let said = self.rules.iter().map(|r| r.policy.as_ref()).find(|p| **p != TrafficPolicy::default());
        said.cloned().unwrap_or_default()
    }

    /// The subsets of all, by name the oldest.
    pub(crate) fn subsets(&self) -> Vec<&'a Subset> {
        let mut subsets: Vec<&Subset> = Vec::new();
        for subset in self.rules.iter().flat_map(|r| &r.subsets) {
            if subsets.iter().all(|s| s.name != subset.name) {
                subsets.push(subset);
            }
        }
        subsets
    }

    /// The subset of that name.
    pub(crate) fn subset(&self, name: &str) -> Option<&'a Subset> {
        self.rules.iter().flat_map(|r| &r.subsets).find(|s| s.name == name)
    }

    /// The policy for a port, and perhaps a subset.
    pub(crate) fn policy_of(&self, port: u16, subset: Option<&str>) -> TrafficPolicy {
        let wide = self.policy().for_port(port);
        match subset.and_then(|name| self.subset(name)) {
            Some(subset) => subset.policy.for_port(port).over(&wide),
            None => wide,
        }
    }
}

/// The DestinationRules for a service: those of the client's namespace, else of the service's, else of the root namespace, for the
/// narrowest host there. Rules that are one are yielded together, the oldest first (Istio: `PushContext.destinationRule`,
/// `SidecarScope.DestinationRule`).
pub(crate) fn backend_policies<'a>(mesh: &'a MeshSnapshot, proxy: &ProxyIdentity, service: &Service) -> Rules<'a> {
    let own = proxy.name.namespace.as_str();
    let covering = |namespace: &str| {
        let rules = mesh.backend_policies_for(&service.host).filter(|r| r.name.namespace == namespace);
        let here = |r: &&BackendPolicy| r.workloads.is_none() || namespace == own;
        let rules: Vec<&BackendPolicy> = rules.filter(here).collect();
        let narrowest = rules.iter().map(|r| breadth(&r.host)).min()?;
        let rules: Vec<&BackendPolicy> = rules.into_iter().filter(|r| breadth(&r.host) == narrowest).collect();
        rules.iter().any(|r| seen(r, own)).then_some(rules)
    };
    let places = [own, service.namespace.as_str(), mesh.root_namespace()];
    let Some(rules) = places.into_iter().find_map(covering) else { return Rules::default() };
    // Each group is one rule: the oldest, and those that were made part of it.
    let mut groups: Vec<Vec<&BackendPolicy>> = Vec::new();
    for rule in rules {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| first.takes_in(rule))) {
            Some(group) => group.push(rule),
            None => groups.push(vec![rule]),
        }
    }
    // What was made part of a rule is seen where that rule is.
    groups.retain(|group| group.first().is_some_and(|first| seen(first, own)));
    let first = |group: &Vec<&BackendPolicy>| group.first().and_then(|rule| rule.workloads.clone());
    let for_us = |group: &Vec<&BackendPolicy>| first(group).is_some_and(|workloads| selects(&workloads, &proxy.labels));
    let chosen = groups.iter().position(for_us).or_else(|| groups.iter().rposition(|group| first(group).is_none()));
    Rules { rules: chosen.map(|place| groups.swap_remove(place)).unwrap_or_default() }
}

/// How wide a host is: exact ones first, then the longest.
fn breadth(host: &Hostname) -> (bool, std::cmp::Reverse<usize>) {
    (host.is_wildcard(), std::cmp::Reverse(host.as_str().len()))
}

/// Whether a rule is for a namespace.
fn seen(rule: &BackendPolicy, namespace: &str) -> bool {
    visible(rule.export_to.as_deref(), namespace) || (rule.name.namespace == namespace && rule.workloads.is_some())
}

pub(crate) fn visible(export_to: Option<&[String]>, namespace: &str) -> bool {
    export_to.is_none_or(|list| list.iter().any(|n| n == namespace))
}
