//! What a release makes of routes: destinations of its stable version are split between the versions, and cohorts go ahead.
//!
//! A destination is the stable version's when it names no subset, or one whose instances all are of the stable version, or of
//! one that was stable before it; what is sent to another subset on purpose goes there still. The user's documents stay as they are.

use serin_model::{Destination, HashKey, HttpMatch, Labels, MeshSnapshot, Overlay, ProxyIdentity, Service, selects};
use serin_resources::matcher::{HeaderMatcher, HeaderPredicate, StringMatch as Pattern, StringMatcher};
use serin_resources::route::{
    Action, Forward, HashCookie, HashPolicy, HashSource, Mirror, PathMatch, RandomSource, Route, RouteMatch,
    WeightedCluster,
};

use crate::destination::{self, Place};
use crate::matches::route_match;
use crate::scope;

/// Everything, in the parts that weights are divided into.
const ALL: u32 = 1_000_000;

/// Names of the subsets that a release needs and that no rule has.
const STABLE: &str = "release-stable";
const CANDIDATE: &str = "release-candidate";
const BASELINE: &str = "release-baseline";

/// The versions of a release, as subsets of a service: by the rule's own names where it has them.
pub(crate) struct Arms {
    pub(crate) stable: String,
    pub(crate) candidate: String,
    pub(crate) baseline: Option<String>,
}

pub(crate) fn arms(mesh: &MeshSnapshot, proxy: &ProxyIdentity, service: &Service, overlay: &Overlay) -> Arms {
    let rules = scope::destination_rules(mesh, proxy, service);
    let named = |labels: &Labels, otherwise: &str| {
        let subset = rules.iter().flat_map(|r| &r.subsets).find(|s| s.labels == *labels);
        subset.map_or_else(|| otherwise.to_owned(), |s| s.name.clone())
    };
    Arms {
        stable: named(&overlay.stable, STABLE),
        candidate: named(&overlay.candidate, CANDIDATE),
        baseline: overlay.baseline.as_ref().map(|labels| named(labels, BASELINE)),
    }
}

/// The subsets of a service that only its release knows, with their labels.
pub(crate) fn subsets(mesh: &MeshSnapshot, proxy: &ProxyIdentity, service: &Service) -> Vec<(String, Labels)> {
    let Some(overlay) = mesh.overlay(&service.host) else { return Vec::new() };
    let arms = arms(mesh, proxy, service, overlay);
    let all = [
        (arms.stable, Some(&overlay.stable)),
        (arms.candidate, Some(&overlay.candidate)),
        (arms.baseline.unwrap_or_default(), overlay.baseline.as_ref()),
    ];
    let own = [STABLE, CANDIDATE, BASELINE];
    all.into_iter()
        .filter(|(name, _)| own.contains(&name.as_str()))
        .filter_map(|(n, l)| Some((n, l?.clone())))
        .collect()
}

/// A destination that a release concerns.
struct Concerned<'a> {
    overlay: &'a Overlay,
    arms: Arms,
}

fn concerned<'a>(destination: &Destination, place: &Place<'a>) -> Option<Concerned<'a>> {
    let overlay = place.mesh.overlay(&destination.host)?;
    let service = place.mesh.service(&destination.host)?;
    let stable = match &destination.subset {
        None => true,
        Some(name) => {
            let rules = scope::destination_rules(place.mesh, place.proxy, service);
            let subset = rules.iter().flat_map(|r| &r.subsets).find(|s| s.name == *name);
            let mut stable = std::iter::once(&overlay.stable).chain(&overlay.former);
            subset.is_some_and(|s| stable.any(|labels| selects(labels, &s.labels)))
        }
    };
    stable.then(|| Concerned { overlay, arms: arms(place.mesh, place.proxy, service, overlay) })
}

/// The route with what releases make of it: cohorts first, then the split.
pub(crate) fn applied(mut route: Route, destinations: &[Destination], place: &Place<'_>) -> Vec<Route> {
    let Action::Forward(forward) = &route.action else { return vec![route] };
    let parts: Vec<(&Destination, Option<Concerned<'_>>)> =
        destinations.iter().map(|d| (d, concerned(d, place))).collect();
    if parts.iter().all(|(_, c)| c.is_none()) {
        return vec![route];
    }
    let mut routes = Vec::new();
    for cohort in parts.iter().filter_map(|(_, c)| c.as_ref()).flat_map(|c| &c.overlay.cohorts) {
        if !destination::reaches_here(cohort, place) {
            continue;
        }
        let ahead = split(forward, &parts, place, true);
        let name = format!("{}{}cohort", route.name, if route.name.is_empty() { "" } else { "." });
        let matches = both(&route.matches, cohort);
        routes.push(Route { name, matches, action: Action::Forward(Box::new(ahead)), ..route.clone() });
    }
    route.action = Action::Forward(Box::new(split(forward, &parts, place, false)));
    routes.push(route);
    routes
}

/// The same forwarding, split between the versions; `ahead` sends everything to the candidate.
fn split(
    forward: &Forward,
    parts: &[(&Destination, Option<Concerned<'_>>)],
    place: &Place<'_>,
    ahead: bool,
) -> Forward {
    let single = parts.len() == 1;
    let total: u64 = parts.iter().map(|(d, _)| u64::from(if single { 1 } else { d.weight })).sum();
    // Weights of a split add up to what fits into 32 bits.
    let scale = ALL.min((u64::from(u32::MAX) / total.max(1)).try_into().unwrap_or(ALL));
    let (mut first, mut rest, mut mirrors) = (Vec::new(), Vec::new(), forward.mirrors.clone());
    let mut sticky = None;
    for (destination, concerned) in parts {
        let weight = if single { 1 } else { destination.weight };
        let part = |parts: u32| (u64::from(weight) * u64::from(scale) * u64::from(parts) / u64::from(ALL)) as u32;
        let Some(Concerned { overlay, arms }) = concerned else {
            // A cohort gets the candidate, whatever the rule shares with other versions of the same host.
            let same = parts.iter().any(|(d, c)| c.is_some() && d.host == destination.host);
            if !(ahead && same) {
                let subset = destination.subset.as_deref();
                rest.push(destination::cluster_of(destination, place, subset, part(ALL)));
            }
            continue;
        };
        let share = if ahead { ALL } else { overlay.weight.parts() };
        let compared = if ahead || arms.baseline.is_none() { 0 } else { share.min(ALL - share) };
        first.push(destination::cluster_of(destination, place, Some(&arms.candidate), part(share)));
        if let Some(baseline) = &arms.baseline {
            rest.push(destination::cluster_of(destination, place, Some(baseline), part(compared)));
        }
        rest.push(destination::cluster_of(destination, place, Some(&arms.stable), part(ALL - share - compared)));
        if overlay.mirror.parts() > 0 && !ahead {
            let cluster = destination::cluster_of(destination, place, Some(&arms.candidate), 1).name;
            mirrors.push(Mirror { cluster, share: overlay.mirror.parts(), ..Mirror::default() });
        }
        sticky = sticky.or(overlay.stickiness.as_ref());
    }
    // The candidate stands first: whoever has it keeps it when its weight rises.
    first.extend(rest);
    first.retain(|c: &WeightedCluster| c.weight > 0);
    if let [only] = first.as_mut_slice() {
        only.weight = 1;
    }
    let mut forward = Forward { clusters: first, mirrors, ..forward.clone() };
    if let Some(key) = sticky.filter(|_| forward.clusters.len() > 1) {
        forward.hash = vec![HashPolicy { source: source(key), terminal: false }];
        forward.random = RandomSource::Hash;
    }
    forward
}

fn source(key: &HashKey) -> HashSource {
    match key {
        HashKey::Header(name) => HashSource::Header(name.clone(), None),
        HashKey::Query(name) => HashSource::Query(name.clone()),
        HashKey::SourceIp => HashSource::SourceIp,
        HashKey::Cookie { name, path, ttl } => HashSource::Cookie(HashCookie {
            name: name.clone(),
            path: path.clone(),
            ttl: ttl.or(Some(std::time::Duration::from_secs(7 * 24 * 3600))),
            attributes: Vec::new(),
        }),
    }
}

/// What must hold of the route and of the cohort.
fn both(own: &RouteMatch, cohort: &HttpMatch) -> RouteMatch {
    let other = route_match(cohort);
    let mut both = own.clone();
    both.headers.extend(other.headers.clone());
    both.query.extend(other.query.clone());
    let anywhere = |path: &PathMatch| matches!(path, PathMatch::Prefix(p) if p == "/" || p.is_empty());
    if anywhere(&both.path) {
        both.path = other.path.clone();
        both.case_sensitive = other.case_sensitive;
    } else if !anywhere(&other.path) {
        both.headers.push(path_header(&other));
    }
    both
}

/// A condition on the path as one on the header that it is in HTTP/2.
fn path_header(condition: &RouteMatch) -> HeaderMatcher {
    let exactly = |path: &str| format!("{}(\\?.*)?", escaped(path));
    let pattern = match &condition.path {
        PathMatch::Exact(path) => Pattern::Regex(exactly(path)),
        PathMatch::Prefix(path) => Pattern::Prefix(path.clone()),
        PathMatch::PathPrefix(path) => Pattern::Regex(format!("{}([/?].*)?", escaped(path))),
        PathMatch::Regex(path) => Pattern::Regex(format!("({path})(\\?.*)?")),
    };
    let value = StringMatcher { ignore_case: !condition.case_sensitive, ..StringMatcher::new(pattern) };
    HeaderMatcher {
        name: ":path".to_owned(),
        predicate: HeaderPredicate::Value(value),
        invert: false,
        missing_is_empty: false,
    }
}

/// The text as a regular expression that matches only it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && c.is_ascii() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The routes to a service that no rule speaks of.
pub(crate) fn without_rule(service: &Service, port: u16, route: Route, place: &Place<'_>) -> Vec<Route> {
    let destination = Destination {
        host: service.host.clone(),
        subset: None,
        port: Some(port),
        weight: 1,
        headers: serin_model::Headers::default(),
    };
    applied(route, &[destination], place)
}
