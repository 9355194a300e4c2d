//! Rules of a VirtualService as routes, in order, for one proxy.

use serin_model::{
    Action, Destination, HashKey, HttpMatch, HttpRoute, MeshSnapshot, PathRedirect, ProxyIdentity, Rewrite, Service,
    VirtualService, selects,
};
use serin_resources::fault::FILTER as FAULT;
use serin_resources::http_filter::{CORS, FilterConfig, PerRoute, PerRoutes};
use serin_resources::matcher::RegexRewrite;
use serin_resources::route::{
    self, Forward, HashCookie, HashPolicy, HashSource, HostRewrite, Mirror, PathMatch, PathRewrite, Route, RouteMatch,
    WeightedCluster,
};

use crate::destination::{self, Place};
use crate::matches::route_match;
use crate::{naming, policy, release, scope};

/// The routes of a rule in this place; nothing follows a route that matches everything.
pub(crate) fn routes(rule: &VirtualService, place: &Place<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for http in &rule.http {
        if http.matches.is_empty() {
            if rule.gateways.contains(place.gateway) {
                routes.extend(route(http, None, place));
            }
        } else {
            let reachable = http.matches.iter().filter(|m| reaches(m, rule, place));
            routes.extend(reachable.flat_map(|m| route(http, Some(m), place)));
        }
        if let Some(last) = routes.iter().position(|r| r.matches.is_catch_all()) {
            routes.truncate(last + 1);
            break;
        }
    }
    routes
}

/// The route to a service that no rule speaks of.
pub(crate) fn default_route(host: &serin_model::Hostname, port: u16, hash: Option<HashPolicy>) -> Route {
    let forward = Forward {
        clusters: vec![WeightedCluster { name: naming::outbound(port, "", host), weight: 1, ..Default::default() }],
        retry: policy::retry(None),
        hash: hash.into_iter().collect(),
        cluster_not_found_status: 503,
        ..Forward::default()
    };
    plain("default", route::Action::Forward(Box::new(forward)))
}

/// A route for every request.
pub(crate) fn plain(name: &str, action: route::Action) -> Route {
    Route {
        name: name.to_owned(),
        matches: RouteMatch::path(PathMatch::Prefix("/".to_owned())),
        action,
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: PerRoutes::new(),
    }
}

/// Whether a match can hold at all here: gateway, port and source are known when routes are made.
fn reaches(condition: &HttpMatch, rule: &VirtualService, place: &Place<'_>) -> bool {
    if condition.port.is_some_and(|p| p != place.port) {
        return false;
    }
    match &condition.gateways {
        Some(own) => own.contains(place.gateway),
        None => {
            let namespace = condition.source_namespace.as_ref().is_none_or(|n| *n == place.proxy.name.namespace);
            rule.gateways.contains(place.gateway) && namespace && selects(&condition.source_labels, &place.proxy.labels)
        }
    }
}

fn route(http: &HttpRoute, condition: Option<&HttpMatch>, place: &Place<'_>) -> Vec<Route> {
    let matches = condition.map_or_else(|| RouteMatch::path(PathMatch::Prefix("/".to_owned())), route_match);
    let part = condition.map(|m| m.name.as_str()).filter(|n| !n.is_empty());
    let name =
        [Some(http.name.as_str()).filter(|n| !n.is_empty()), part].into_iter().flatten().collect::<Vec<_>>().join(".");
    let fault = match &http.action {
        Action::Forward { fault, .. } => policy::fault(fault.as_ref()),
        _ => None,
    };
    let route = Route {
        name,
        action: action(http, &matches, place),
        matches,
        request_headers: policy::headers(&http.headers.request),
        response_headers: policy::headers(&http.headers.response),
        filters: fault
            .map(|f| (FAULT.to_owned(), FilterConfig::Fault(f)))
            .into_iter()
            .chain(http.cors.as_ref().map(|c| (CORS.to_owned(), FilterConfig::Cors(policy::cors(c)))))
            .map(|(name, config)| (name, PerRoute::Config(config)))
            .collect(),
    };
    match &http.action {
        Action::Forward { destinations, .. } => release::applied(route, destinations, place),
        _ => vec![route],
    }
}

fn action(http: &HttpRoute, matches: &RouteMatch, place: &Place<'_>) -> route::Action {
    match &http.action {
        Action::Forward { destinations, rewrite, timeout, retries, .. } => {
            let single = destinations.len() == 1;
            let reachable = destinations.iter().filter(|d| single || d.weight > 0);
            let authority = rewrite.as_ref().and_then(|r| r.authority.clone());
            route::Action::Forward(Box::new(Forward {
                clusters: reachable.map(|d| cluster(d, place)).collect(),
                timeout: *timeout,
                retry: policy::retry(retries.as_ref()),
                path_rewrite: rewrite.as_ref().and_then(|r| path_rewrite(r, matches)),
                host_rewrite: authority.or_else(|| policy::authority(&http.headers.request)).map(HostRewrite::Literal),
                cluster_not_found_status: 503,
                hash: destinations.first().and_then(|d| hash(d, place)).into_iter().collect(),
                mirrors: http.mirrors.iter().map(|m| mirror(m, place)).collect(),
                ..Forward::default()
            }))
        }
        Action::Redirect(redirect) => route::Action::Redirect(route::Redirect {
            scheme: redirect.scheme.clone(),
            host: redirect.authority.clone(),
            port: redirect.port.filter(|p| !is_default_port(redirect.scheme.as_deref(), *p)),
            path: redirect.path.as_ref().map(|p| match p {
                PathRedirect::Full(p) => route::RedirectPath::Full(p.clone()),
                PathRedirect::Prefix(p) => route::RedirectPath::Prefix(p.clone()),
            }),
            status: redirect.status,
            strip_query: false,
        }),
        Action::Respond(respond) => {
            route::Action::Respond(route::Respond { status: respond.status, body: respond.body.clone(), format: None })
        }
    }
}

fn is_default_port(scheme: Option<&str>, port: u16) -> bool {
    matches!((scheme, port), (Some("http") | None, 80) | (Some("https"), 443))
}

fn mirror(mirror: &serin_model::Mirror, place: &Place<'_>) -> Mirror {
    Mirror { cluster: cluster(&mirror.destination, place).name, share: mirror.share.parts(), ..Mirror::default() }
}

/// What requests to a destination are hashed by, when its rule chooses instances so.
fn hash(destination: &Destination, place: &Place<'_>) -> Option<HashPolicy> {
    let service = place.mesh.service(&destination.host)?;
    let port = destination::port_of(destination, place);
    hash_policy(place.mesh, place.proxy, (service, port), destination.subset.as_deref())
}

/// The same for a service's port and perhaps a subset.
pub(crate) fn hash_policy(
    mesh: &MeshSnapshot,
    proxy: &ProxyIdentity,
    (service, port): (&Service, u16),
    subset: Option<&str>,
) -> Option<HashPolicy> {
    let rules = scope::destination_rules(mesh, proxy, service);
    let wide = rules.first()?.policy.for_port(port);
    let narrow = subset.and_then(|name| rules.iter().flat_map(|r| &r.subsets).find(|s| s.name == name));
    let policy = narrow.map_or_else(|| wide.clone(), |s| s.policy.for_port(port).over(&wide));
    let Some(serin_model::Balancer::Hash(hash)) = policy.balancer else { return None };
    let source = match hash.key {
        HashKey::Header(name) => HashSource::Header(name, None),
        HashKey::Query(name) => HashSource::Query(name),
        HashKey::SourceIp => HashSource::SourceIp,
        HashKey::Cookie { name, path, ttl } => {
            HashSource::Cookie(HashCookie { name, path, ttl, attributes: Vec::new() })
        }
    };
    Some(HashPolicy { source, terminal: false })
}

fn cluster(destination: &Destination, place: &Place<'_>) -> WeightedCluster {
    destination::cluster_of(destination, place, destination.subset.as_deref(), destination.weight)
}

fn path_rewrite(rewrite: &Rewrite, matches: &RouteMatch) -> Option<PathRewrite> {
    if let Some((pattern, substitution)) = &rewrite.regex {
        return Some(PathRewrite::Regex(RegexRewrite { pattern: pattern.clone(), substitution: substitution.clone() }));
    }
    let uri = rewrite.uri.as_ref()?;
    match &matches.path {
        PathMatch::Regex(pattern) => {
            Some(PathRewrite::Regex(RegexRewrite { pattern: pattern.clone(), substitution: uri.clone() }))
        }
        _ => Some(PathRewrite::Prefix(uri.clone())),
    }
}
