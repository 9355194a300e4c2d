//! Rules of a VirtualService as routes, in order, for one proxy.

use serin_model::{
    Action, Destination, HttpMatch, HttpRoute, PathRedirect, RedirectPort, Rewrite, RouteRules, selects,
};
use serin_resources::http_filter::{CORS, FAULT, FilterConfig, PerRoute, PerRoutes};
use serin_resources::matcher::RegexRewrite;
use serin_resources::route::{
    self, Forward, GrpcTimeout, HashPolicy, HostRewrite, Mirror, PathMatch, PathRewrite, Route, RouteMatch,
    VirtualHost, WeightedCluster,
};

use std::time::Duration;

use crate::destination::{self, RouteScope};
use crate::matches::route_match;
use crate::{naming, policy, release, scope};

/// The routes of a rule in this place; nothing follows a route that matches everything.
pub(crate) fn routes(rule: &RouteRules, place: &RouteScope<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for http in &rule.http {
        if http.matches.is_empty() {
            if rule.attachments.contains(place.gateway) {
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
pub(crate) fn default_route(
    mesh: &serin_model::MeshSnapshot,
    host: &serin_model::Hostname,
    port: u16,
    hash: Option<HashPolicy>,
) -> Route {
    let forward = Forward {
        clusters: vec![WeightedCluster { name: naming::outbound(port, "", host), weight: 1, ..Default::default() }],
        // Another instance is looked for even where a hash chooses it, as Istio does for services without a rule.
        retry: policy::retry(mesh, None, false),
        hash: hash.into_iter().collect(),
        cluster_not_found_status: 503,
        grpc_timeout: GrpcTimeout::within(Duration::ZERO),
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
        buffers: Default::default(),
    }
}

/// Whether a match can hold at all here: gateway, port and source are known when routes are made.
fn reaches(condition: &HttpMatch, rule: &RouteRules, place: &RouteScope<'_>) -> bool {
    if condition.port.is_some_and(|p| p != place.port) {
        return false;
    }
    match &condition.attachments {
        Some(own) => own.contains(place.gateway),
        None => {
            let namespace = condition.source_namespace.as_ref().is_none_or(|n| *n == place.proxy.name.namespace);
            rule.attachments.contains(place.gateway)
                && namespace
                && selects(&condition.source_labels, &place.proxy.labels)
        }
    }
}

fn route(http: &HttpRoute, condition: Option<&HttpMatch>, place: &RouteScope<'_>) -> Vec<Route> {
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
        action: action(http, place),
        matches,
        request_headers: policy::headers(&http.headers.request),
        response_headers: policy::headers(&http.headers.response),
        filters: fault
            .map(|f| (FAULT.to_owned(), FilterConfig::Fault(f)))
            .into_iter()
            .chain(http.cors.as_ref().map(|c| (CORS.to_owned(), FilterConfig::Cors(policy::cors(c)))))
            .map(|(name, config)| (name, PerRoute::Config(config)))
            .collect(),
        buffers: Default::default(),
    };
    match &http.action {
        Action::Forward { destinations, .. } => release::applied(route, destinations, place),
        _ => vec![route],
    }
}

fn action(http: &HttpRoute, place: &RouteScope<'_>) -> route::Action {
    match &http.action {
        Action::Forward { destinations, rewrite, timeout, retries, .. } => {
            let single = destinations.len() == 1;
            let reachable = destinations.iter().filter(|d| single || d.weight > 0);
            // Each cluster has its own too, which goes before these; other clients than proxies know only these.
            let mut hashes: Vec<HashPolicy> = Vec::new();
            for found in reachable.clone().filter_map(|d| hash(d, place)) {
                if !hashes.contains(&found) {
                    hashes.push(found);
                }
            }
            let authority = rewrite.as_ref().and_then(|r| r.authority.clone());
            route::Action::Forward(Box::new(Forward {
                clusters: reachable.map(|d| cluster(d, place)).collect(),
                timeout: *timeout,
                grpc_timeout: GrpcTimeout::within(*timeout),
                retry: policy::retry(place.mesh, retries.as_ref(), single && !hashes.is_empty()),
                path_rewrite: rewrite.as_ref().and_then(path_rewrite),
                host_rewrite: authority.or_else(|| policy::authority(&http.headers.request)).map(HostRewrite::Literal),
                cluster_not_found_status: 503,
                hash: hashes,
                mirrors: http.mirrors.iter().map(|m| mirror(m, place)).collect(),
                ..Forward::default()
            }))
        }
        Action::Redirect(redirect) => route::Action::Redirect(route::Redirect {
            scheme: redirect.scheme.clone(),
            host: redirect.authority.clone(),
            port: redirect
                .port
                .map(|port| match port {
                    RedirectPort::Number(number) => number,
                    RedirectPort::OfRequest => place.port,
                })
                .filter(|p| !is_default_port(redirect.scheme.as_deref(), *p)),
            path: redirect.path.as_ref().map(|p| match p {
                PathRedirect::Full(p) => route::RedirectPath::Full(p.clone()),
                PathRedirect::Prefix(p) => route::RedirectPath::Prefix(p.clone()),
            }),
            status: redirect.status,
            strip_query: false,
        }),
        Action::Refuse(because) => refuse(because),
        Action::Respond(respond) => {
            route::Action::Respond(route::Respond { status: respond.status, body: respond.body.clone(), format: None })
        }
    }
}

/// Requests are refused, because of that.
pub(crate) fn refuse(because: &str) -> route::Action {
    let clusters = vec![WeightedCluster { name: naming::refused(because), weight: 1, ..Default::default() }];
    route::Action::Forward(Box::new(Forward { clusters, cluster_not_found_status: 503, ..Forward::default() }))
}

/// Routes of one virtual host that refuses every request.
pub(crate) fn refuse_all(because: &str) -> VirtualHost {
    VirtualHost {
        name: "refused".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![plain("refused", refuse(because))],
        ..VirtualHost::default()
    }
}

fn is_default_port(scheme: Option<&str>, port: u16) -> bool {
    matches!((scheme, port), (Some("http") | None, 80) | (Some("https"), 443))
}

fn mirror(mirror: &serin_model::Mirror, place: &RouteScope<'_>) -> Mirror {
    Mirror {
        cluster: cluster(&mirror.destination, place).name,
        share: mirror.share.parts(),
        plain_host: true,
        ..Mirror::default()
    }
}

/// What requests to a destination are hashed by, when its rule chooses instances so.
fn hash(destination: &Destination, place: &RouteScope<'_>) -> Option<HashPolicy> {
    let service = place.mesh.service(&destination.host)?;
    let rules = scope::backend_policies(place.mesh, place.proxy, service);
    policy::hash(&rules.policy_of(destination::port_of(destination, place), destination.subset.as_deref()))
}

fn cluster(destination: &Destination, place: &RouteScope<'_>) -> WeightedCluster {
    destination::cluster_of(destination, place, destination.subset.as_deref(), destination.weight)
}

fn path_rewrite(rewrite: &Rewrite) -> Option<PathRewrite> {
    if let Some((pattern, substitution)) = &rewrite.regex {
        return Some(PathRewrite::Regex(RegexRewrite { pattern: pattern.clone(), substitution: substitution.clone() }));
    }
    // After a regular expression, too, this replaces what was matched, which is the whole path then.
    rewrite.uri.clone().map(PathRewrite::Prefix)
}
