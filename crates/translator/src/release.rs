//! What a release makes of routes: destinations of its stable version are split between the versions, and cohorts go ahead.
//!
//! A destination with a subset keeps what the subset asks for besides the version: `{version: v1, role: admin}` becomes
//! `{version: v2, role: admin}`. A destination is the stable version's when it names no subset, or one whose instances all are of the stable version, or of
//! one that was stable before it; what is sent to another subset on purpose goes there still. The user's documents stay as they are.

use serin_model::{Destination, HashKey, HttpMatch, Labels, MeshSnapshot, Overlay, ProxyIdentity, Service, selects};
use serin_resources::matcher::{
    HeaderMatcher, HeaderPredicate, QueryMatcher, QueryPredicate, RegexRewrite, StringMatch as Pattern, StringMatcher,
};
use serin_resources::route::{
    Action, Forward, HashCookie, HashPolicy, HashSource, Mirror, PathMatch, RandomSource, Route, RouteMatch,
    WeightedCluster,
};

use crate::destination::{self, RouteScope};
use crate::matches::route_match;
use crate::scope::{self, Rules};

/// Everything, in the parts that weights are divided into.
const ALL: u32 = 1_000_000;

/// Names of the subsets that a release needs and that no rule has; of a destination with a subset, the subset's name stands behind.
const STABLE: &str = "release-stable";
const CANDIDATE: &str = "release-candidate";
const BASELINE: &str = "release-baseline";

/// A version of a destination, as a subset of its service.
struct Arm {
    name: String,
    labels: Labels,
}

/// A subset that a release needs and no rule has.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    /// The rule's subset whose policy it has.
    pub(crate) like: Option<String>,
}

/// A destination that a release concerns, with its versions.
struct Concerned<'a> {
    overlay: &'a Overlay,
    stable: Arm,
    /// `None` where no instance of it is: the destination stays with the stable version.
    candidate: Option<Arm>,
    baseline: Option<Arm>,
}

/// The versions of a subset of a service, or of all of it, when a release concerns it.
fn versions<'a>(
    mesh: &'a MeshSnapshot,
    rules: &Rules<'_>,
    service: &Service,
    subset: Option<&str>,
) -> Option<Concerned<'a>> {
    let overlay = mesh.overlay(&service.host)?;
    let labels = match subset {
        None => overlay.stable.clone(),
        Some(name) => rules.subset(name)?.labels.clone(),
    };
    let arm = |version: &Labels, made: &str| {
        let labels = overlay.in_version(&labels, version)?;
        let name = match (rules.subsets().iter().find(|s| s.labels == labels), subset) {
            (Some(same), _) => same.name.clone(),
            // What a subset adds nothing to is the version itself.
            (None, Some(subset)) if labels != *version => format!("{made}-{subset}"),
            (None, _) => made.to_owned(),
        };
        Some(Arm { name, labels })
    };
    let narrower = |labels: &Labels, version: &Labels| labels != version;
    let candidate = arm(&overlay.candidate, CANDIDATE)?;
    let has_instances = mesh.instances(&service.host).iter().any(|e| e.ready && selects(&candidate.labels, &e.labels));
    // Of the version as a whole the release itself looks after.
    let usable = has_instances || !narrower(&candidate.labels, &overlay.candidate);
    Some(Concerned {
        overlay,
        stable: arm(&overlay.stable, STABLE)?,
        candidate: Some(candidate).filter(|_| usable),
        baseline: overlay.baseline.as_ref().and_then(|labels| arm(labels, BASELINE)),
    })
}

/// The subsets of a service that only its release knows.
pub(crate) fn subsets(mesh: &MeshSnapshot, proxy: &ProxyIdentity, service: &Service) -> Vec<Made> {
    if mesh.overlay(&service.host).is_none() {
        return Vec::new();
    }
    let rules = scope::backend_policies(mesh, proxy, service);
    let all = std::iter::once(None).chain(rules.subsets().into_iter().map(|s| Some(s.name.as_str())));
    let mut made: Vec<Made> = Vec::new();
    for subset in all {
        let Some(Concerned { stable, candidate, baseline, .. }) = versions(mesh, &rules, service, subset) else {
            continue;
        };
        for arm in [Some(stable), candidate, baseline].into_iter().flatten() {
            let is_made = [STABLE, CANDIDATE, BASELINE].iter().any(|own| arm.name.starts_with(own));
            if is_made && rules.subset(&arm.name).is_none() && made.iter().all(|m| m.name != arm.name) {
                made.push(Made { name: arm.name, labels: arm.labels, like: subset.map(str::to_owned) });
            }
        }
    }
    made
}

fn concerned<'a>(destination: &Destination, place: &RouteScope<'a>) -> Option<Concerned<'a>> {
    let service = place.mesh.service(&destination.host)?;
    let rules = scope::backend_policies(place.mesh, place.proxy, service);
    versions(place.mesh, &rules, service, destination.subset.as_deref())
}

/// The route with what releases make of it: cohorts first, then the split.
pub(crate) fn applied(mut route: Route, destinations: &[Destination], place: &RouteScope<'_>) -> Vec<Route> {
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
    let shared = split(forward, &parts, place, false);
    if let [HashPolicy { source: HashSource::Query(name), .. }, _] = shared.hash.as_slice()
        && shared.random == RandomSource::Hash
    {
        let by_chance = Forward { hash: Vec::new(), random: RandomSource::Draw, ..shared.clone() };
        let mut with = route.clone();
        with.matches.query.push(QueryMatcher { name: name.clone(), value: QueryPredicate::Present(true) });
        with.action = Action::Forward(Box::new(shared));
        route.action = Action::Forward(Box::new(by_chance));
        routes.extend([with, route]);
        return routes;
    }
    route.action = Action::Forward(Box::new(shared));
    routes.push(route);
    routes
}

/// The same forwarding, split between the versions; `ahead` sends everything to the candidate.
fn split(
    forward: &Forward,
    parts: &[(&Destination, Option<Concerned<'_>>)],
    place: &RouteScope<'_>,
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
        let Some(Concerned { overlay, stable, candidate, baseline }) = concerned else {
            // A cohort gets the candidate, whatever the rule shares with other versions of the same host.
            let same = parts.iter().any(|(d, c)| c.is_some() && d.host == destination.host);
            if !(ahead && same) {
                let subset = destination.subset.as_deref();
                rest.push(destination::cluster_of(destination, place, subset, part(ALL)));
            }
            continue;
        };
        let Some(candidate) = candidate else {
            rest.push(destination::cluster_of(destination, place, Some(&stable.name), part(ALL)));
            continue;
        };
        let share = if ahead { ALL } else { overlay.weight.parts() };
        let compared = if ahead || baseline.is_none() { 0 } else { share.min(ALL - share) };
        first.push(destination::cluster_of(destination, place, Some(&candidate.name), part(share)));
        if let Some(baseline) = baseline {
            rest.push(destination::cluster_of(destination, place, Some(&baseline.name), part(compared)));
        }
        rest.push(destination::cluster_of(destination, place, Some(&stable.name), part(ALL - share - compared)));
        if overlay.mirror.parts() > 0 && !ahead {
            let cluster = destination::cluster_of(destination, place, Some(&candidate.name), 1).name;
            mirrors.push(Mirror { cluster, share: overlay.mirror.parts(), plain_host: true, ..Mirror::default() });
        }
        sticky = sticky.or(overlay.stickiness.as_ref().map(|key| (key, overlay.salt.as_str())));
    }
    // The candidate stands first: whoever has it keeps it when its weight rises.
    first.extend(rest);
    first.retain(|c: &WeightedCluster| c.weight > 0);
    if let [only] = first.as_mut_slice() {
        only.weight = 1;
    }
    let mut forward = Forward { clusters: first, mirrors, ..forward.clone() };
    if let Some((key, salt)) = sticky.filter(|_| forward.clusters.len() > 1) {
        // Which instance is another question: where a hash answers it, the cluster has its own.
        forward.hash = salted(key, salt);
        forward.random = RandomSource::Hash;
    }
    forward
}

/// What keeps a user with one version. The salt makes the draws of two releases independent: a header's value is hashed behind it;
/// with what every request has, or is given, a constant is mixed in (Envoy combines hashes by `xor`). A query parameter that is
/// missing must leave the choice to chance, so requests that have it have a route of their own, see [`applied`].
fn salted(key: &HashKey, salt: &str) -> Vec<HashPolicy> {
    let policy = |source| HashPolicy { source, terminal: false };
    if salt.is_empty() {
        return vec![policy(source(key))];
    }
    let anything = "^(.*)$".to_owned();
    if let HashKey::Header(name) = key {
        let rewrite = RegexRewrite { pattern: anything, substitution: format!("{salt}-\\1") };
        return vec![policy(HashSource::Header(name.clone(), Some(rewrite)))];
    }
    let constant = RegexRewrite { pattern: anything, substitution: salt.to_owned() };
    vec![policy(source(key)), policy(HashSource::Header(":method".to_owned(), Some(constant)))]
}

fn source(key: &HashKey) -> HashSource {
    match key {
        HashKey::Header(name) => HashSource::Header(name.clone(), None),
        HashKey::Query(name) => HashSource::Query(name.clone()),
        HashKey::SourceIp => HashSource::SourceIp,
        HashKey::Cookie { name, path, ttl, .. } => HashSource::Cookie(HashCookie {
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
        // Nothing that has a path.
        PathMatch::Connect => Pattern::Exact(String::new()),
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
pub(crate) fn without_rule(service: &Service, port: u16, route: Route, place: &RouteScope<'_>) -> Vec<Route> {
    let destination = Destination {
        host: service.host.clone(),
        subset: None,
        port: Some(port),
        weight: 1,
        headers: serin_model::Headers::default(),
    };
    applied(route, &[destination], place)
}
