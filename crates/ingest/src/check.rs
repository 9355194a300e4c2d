//! Whether the objects of a set fit together: every host, subset, gateway and port that one names must be another's.
//!
//! An object with a dangling reference is held back, so that traffic does not follow it into nowhere.
//! A folder that registers no service cannot tell an unknown host from one that is registered elsewhere: there it
//! is only a warning.

use std::collections::{BTreeMap, BTreeSet};

use serin_model::{
    Action, DestinationRule, Gateway, GatewayRef, Hostname, HttpRoute, Object, ObjectKey, ObjectName, Service,
    TrafficPolicy, VirtualService,
};

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::document::Document;
use crate::node::Position;
use crate::reference::Reference;
use crate::spelling::{distance, is_slip};

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Objects that must not be used as they are.
    pub dangling: BTreeSet<ObjectKey>,
    /// The findings.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks the references of `documents` against each other.
#[must_use]
pub fn check<'a>(documents: impl Iterator<Item = &'a Document> + Clone) -> Checked {
    let index = Index::new(documents.clone());
    let mut ordered: Vec<&Document> = documents.clone().collect();
    ordered.sort_by_key(|d| (&d.provenance, &d.key.name.name, &d.key.name.namespace));
    let mut checked = Checked { diagnostics: shared_hosts(&ordered), ..Checked::default() };
    checked.diagnostics.extend(merged_rules(&ordered));
    checked.diagnostics.extend(ports_at_gateways(&ordered));
    checked.diagnostics.extend(ordered.iter().filter_map(|document| index.rule_of_nobody(document)));
    for document in documents {
        for reference in &document.references {
            for finding in index.look(reference) {
                if finding.severity == Severity::Error {
                    checked.dangling.insert(document.key.clone());
                }
                checked.diagnostics.push(Diagnostic { file: document.file.clone(), ..finding });
            }
        }
    }
    checked
}

/// Hosts that two VirtualServices route inside the mesh, where only the older can; at a gateway their rules are joined.
fn shared_hosts(ordered: &[&Document]) -> Vec<Diagnostic> {
    let mut known: BTreeMap<&Hostname, Vec<(&Document, &VirtualService)>> = BTreeMap::new();
    let mut findings = Vec::new();
    for document in ordered {
        let Object::VirtualService(rule) = document.object.as_ref() else { continue };
        if !rule.gateways.contains(&GatewayRef::Mesh) {
            continue;
        }
        for host in &rule.hosts {
            let older = known.entry(host).or_default();
            let hiding = older.iter().filter_map(|(other, older)| Some((other, hides(older, rule)?)));
            let hiding = hiding.min_by_key(|(_, place)| place.len());
            if let Some((other, place)) = hiding {
                findings.push(beside(
                    document,
                    (Code::Duplicate, "spec.hosts"),
                    format!(
                        "host '{host}' is routed by {} too, which is older, and only that one applies to it{place}",
                        other.key
                    ),
                    format!("it stands in {}:{}; put the rules into one VirtualService", other.file, other.at.line),
                ));
            }
            older.push((document, rule));
        }
    }
    findings
}

/// Where the older of two rules for one host applies and not the younger, in words; `None` when they do not meet.
fn hides(older: &VirtualService, younger: &VirtualService) -> Option<String> {
    let (first, second) = (ports_of(older), ports_of(younger));
    let on_ports = match (&first, &second) {
        (Some(first), Some(second)) if first.is_disjoint(second) => return None,
        (Some(first), _) => {
            let list: Vec<String> = first.iter().map(ToString::to_string).collect();
            format!(" on port {}", list.join(", "))
        }
        (None, _) => String::new(),
    };
    match (&older.export_to, &younger.export_to) {
        (None, None) => Some(on_ports),
        // A rule for certain namespaces goes before one for all, whichever is older.
        (None, Some(_)) | (Some(_), None) => None,
        (Some(first), Some(second)) => {
            let common: Vec<&str> = first.iter().filter(|n| second.contains(n)).map(String::as_str).collect();
            (!common.is_empty()).then(|| format!("{on_ports} in namespace {}", common.join(", ")))
        }
    }
}

/// The ports that a rule speaks of; `None` when it speaks of all.
fn ports_of(rule: &VirtualService) -> Option<BTreeSet<u16>> {
    let of_route = |route: &HttpRoute| -> Option<BTreeSet<u16>> {
        let ports: Option<BTreeSet<u16>> = route.matches.iter().map(|m| m.port).collect();
        ports.filter(|ports| !ports.is_empty())
    };
    let all: Option<Vec<BTreeSet<u16>>> = rule.http.iter().map(of_route).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect())
}

/// Destinations of routes at a gateway that say no port and whose service has several, none of which is the gateway's: no cluster is
/// meant then, and requests are answered 503 (Istio: `GetDestinationCluster`).
fn ports_at_gateways(documents: &[&Document]) -> Vec<Diagnostic> {
    let objects = || documents.iter().map(|d| d.object.as_ref());
    let services: BTreeMap<&Hostname, &Service> = objects()
        .filter_map(|o| if let Object::Services(list) = o { Some(list) } else { None })
        .flatten()
        .map(|s| (&s.host, s))
        .collect();
    let servers: BTreeMap<&ObjectName, BTreeSet<u16>> = objects()
        .filter_map(|o| if let Object::Gateway(gateway) = o { Some(gateway) } else { None })
        .map(|g| (&g.name, g.servers.iter().map(|s| s.port).collect()))
        .collect();
    let mut findings = Vec::new();
    for document in documents {
        let Object::VirtualService(rule) = document.object.as_ref() else { continue };
        let in_matches = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.gateways.as_ref()).flatten();
        let named = rule.gateways.iter().chain(in_matches);
        let named = named.filter_map(|g| if let GatewayRef::Named(name) = g { Some(name) } else { None });
        let ports: BTreeSet<u16> = named.filter_map(|name| servers.get(name)).flatten().copied().collect();
        for (place, route) in rule.http.iter().enumerate() {
            let Action::Forward { destinations, .. } = &route.action else { continue };
            for (number, destination) in destinations.iter().enumerate().filter(|(_, d)| d.port.is_none()) {
                let Some(service) = services.get(&destination.host).filter(|s| s.ports.len() > 1) else { continue };
                let missing: Vec<String> =
                    ports.iter().filter(|p| service.port(**p).is_none()).map(ToString::to_string).collect();
                if missing.is_empty() {
                    continue;
                }
                let known: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
                findings.push(beside(
                    document,
                    (Code::UnknownPort, &format!("spec.http[{place}].route[{number}].destination")),
                    format!(
                        "the destination says no port, and '{}' has several: requests that come by port {} of a gateway are \
                         answered 503",
                        service.host,
                        missing.join(", ")
                    ),
                    format!("say port.number, one of {}", known.join(", ")),
                ));
            }
        }
    }
    findings
}

/// DestinationRules of one namespace for one host are one rule: subsets of all, and the policy of the first that has one.
fn merged_rules(ordered: &[&Document]) -> Vec<Diagnostic> {
    type Rule<'a> = (&'a Document, &'a DestinationRule);
    let mut found: BTreeMap<(&str, &Hostname), Vec<Rule<'_>>> = BTreeMap::new();
    let mut findings = Vec::new();
    for document in ordered {
        let Object::DestinationRule(rule) = document.object.as_ref() else { continue };
        let merged = found.entry((&rule.name.namespace, &rule.host)).or_default();
        let Some((first, _)) = merged.iter().find(|(_, r)| r.takes_in(rule)).copied() else {
            merged.push((document, rule));
            continue;
        };
        let all = merged.iter().filter(|(_, r)| r.takes_in(rule));
        let known: Vec<&str> = all.clone().flat_map(|(_, r)| &r.subsets).map(|s| s.name.as_str()).collect();
        let (twice, added): (Vec<&str>, Vec<&str>) =
            rule.subsets.iter().map(|s| s.name.as_str()).partition(|name| known.contains(name));
        let mut words = Vec::new();
        if !added.is_empty() {
            words.push(format!("its subsets {} are added", added.join(", ")));
        }
        if !twice.is_empty() {
            words.push(format!("its subsets {} are not used, because they are defined there", twice.join(", ")));
        }
        let holder = all.clone().find(|(_, r)| r.policy.as_ref() != &TrafficPolicy::default());
        match (holder, rule.policy.as_ref() == &TrafficPolicy::default()) {
            (Some((holder, _)), false) => {
                words.push(format!("its trafficPolicy is not used, because {} has one", holder.key))
            }
            (None, false) => words.push("its trafficPolicy is used for all".to_owned()),
            (_, true) => {}
        }
        findings.push(beside(
            document,
            (Code::Merged, "spec.host"),
            format!("it is merged with {}, which is older: {}", first.key, words.join("; ")),
            format!("that one stands in {}:{}", first.file, first.at.line),
        ));
        merged.push((document, rule));
    }
    findings
}

/// A warning about a document because of another.
fn beside(document: &Document, (code, path): (Code, &str), message: String, help: String) -> Diagnostic {
    Diagnostic {
        file: document.file.clone(),
        ..finding(code, Severity::Warning, (document.at, path.to_owned()), message, help)
    }
}

struct Index<'a> {
    services: BTreeMap<&'a Hostname, &'a Service>,
    rules: Vec<&'a DestinationRule>,
    gateways: BTreeSet<&'a ObjectName>,
}

impl<'a> Index<'a> {
    fn new(documents: impl Iterator<Item = &'a Document>) -> Self {
        let mut index = Self { services: BTreeMap::new(), rules: Vec::new(), gateways: BTreeSet::new() };
        for document in documents {
            match document.object.as_ref() {
                Object::Services(list) => index.services.extend(list.iter().map(|s| (&s.host, s))),
                Object::DestinationRule(rule) => index.rules.push(rule),
                Object::Gateway(Gateway { name, .. }) => {
                    index.gateways.insert(name);
                }
                _ => {}
            }
        }
        index
    }

    fn look(&self, reference: &Reference) -> Vec<Diagnostic> {
        match reference {
            Reference::Gateway { name, at } if !self.gateways.contains(name) => {
                let message = format!("there is no Gateway '{}' in namespace '{}'", name.name, name.namespace);
                vec![finding(Code::UnknownGateway, Severity::Error, at.clone(), message, self.known_gateways())]
            }
            Reference::Gateway { .. } => Vec::new(),
            Reference::Destination { host, host_at, subset, port } => {
                let mut findings = Vec::new();
                let service = self.services.get(host);
                if service.is_none() && !self.is_rule_host(host) {
                    // What is said of a host that there is not is no second mistake.
                    return vec![self.unknown_host(host, host_at.clone())];
                }
                if let Some((name, at, path)) = subset {
                    findings.extend(self.unknown_subset(host, name, (*at, path.clone())));
                }
                if let (Some((number, at, path)), Some(service)) = (port, service) {
                    findings.extend(unknown_port(service, *number, (*at, path.clone())));
                }
                findings
            }
        }
    }

    /// A DestinationRule for a host that no service has: it does nothing.
    fn rule_of_nobody(&self, document: &Document) -> Option<Diagnostic> {
        let Object::DestinationRule(rule) = document.object.as_ref() else { return None };
        let is_known = self.services.is_empty() || self.services.keys().any(|host| rule.host.covers(host));
        (!is_known).then(|| {
            let known: Vec<&str> = self.services.keys().map(|h| h.as_str()).collect();
            let help = meant(rule.host.as_str(), &known).unwrap_or_else(|| shown("known are", &known));
            let message = format!("there is no service '{}': the rule has no effect", rule.host);
            beside(document, (Code::UnknownHost, "spec.host"), message, help)
        })
    }

    /// Where no services are known, a DestinationRule for the host is taken as a sign that it exists.
    fn is_rule_host(&self, host: &Hostname) -> bool {
        self.services.is_empty() && self.rules.iter().any(|r| r.host.covers(host))
    }

    fn unknown_host(&self, host: &Hostname, at: (Position, String)) -> Diagnostic {
        let severity = if self.services.is_empty() { Severity::Warning } else { Severity::Error };
        let known: Vec<&str> = self.services.keys().map(|h| h.as_str()).collect();
        let help = if known.is_empty() {
            "no service is registered in these files, so hosts cannot be checked for certain".to_owned()
        } else {
            meant(host.as_str(), &known).unwrap_or_else(|| shown("known are", &known))
        };
        finding(Code::UnknownHost, severity, at, format!("there is no service '{host}'"), help)
    }

    fn unknown_subset(&self, host: &Hostname, name: &str, at: (Position, String)) -> Option<Diagnostic> {
        let rules: Vec<_> = self.rules.iter().filter(|r| r.host.covers(host)).collect();
        if rules.iter().any(|r| r.subsets.iter().any(|s| s.name == name)) {
            return None;
        }
        let known: Vec<&str> = rules.iter().flat_map(|r| r.subsets.iter().map(|s| s.name.as_str())).collect();
        let help = match (rules.is_empty(), known.is_empty()) {
            (true, _) => format!("add a DestinationRule for '{host}' with this subset"),
            (false, true) => "its DestinationRule defines no subsets".to_owned(),
            (false, false) => meant(name, &known).unwrap_or_else(|| shown("defined are", &known)),
        };
        let message = format!("no DestinationRule defines subset '{name}' of '{host}'");
        Some(finding(Code::UnknownSubset, Severity::Error, at, message, help))
    }

    fn known_gateways(&self) -> String {
        let known: Vec<String> = self.gateways.iter().map(ToString::to_string).collect();
        if known.is_empty() { "no Gateway is defined".to_owned() } else { format!("defined are {}", known.join(", ")) }
    }
}

/// The name that was probably meant.
fn meant(name: &str, known: &[&str]) -> Option<String> {
    // Names as short as v1 and v2 are all near each other.
    let slips = |other: &&&str| is_slip(other, name) || is_slip(first_label(other), first_label(name));
    let near = known.iter().filter(|other| first_label(name).len() > 3 && slips(other));
    let near = near.min_by_key(|other| distance(other, name))?;
    Some(format!("did you mean '{near}'?"))
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// Some of the names that there are.
fn shown(words: &str, known: &[&str]) -> String {
    let more = known.len().saturating_sub(8);
    let some = known.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    if more == 0 { format!("{words} {some}") } else { format!("{words} {some} and {more} more") }
}

fn unknown_port(service: &Service, number: u16, at: (Position, String)) -> Option<Diagnostic> {
    if service.port(number).is_some() {
        return None;
    }
    let known: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
    let message = format!("service '{}' has no port {number}", service.host);
    Some(finding(Code::UnknownPort, Severity::Error, at, message, format!("it has {}", known.join(", "))))
}

fn finding(
    code: Code,
    severity: Severity,
    (at, path): (Position, String),
    message: String,
    help: String,
) -> Diagnostic {
    Diagnostic { code, severity, file: "".into(), at, path, message, help }
}
