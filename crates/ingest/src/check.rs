//! Whether the objects of a set fit together: every host, subset, gateway and port that one names must be another's.
//!
//! An object with a dangling reference is held back, so that traffic does not follow it into nowhere.
//! A folder that registers no service cannot tell an unknown host from one that is registered elsewhere: there it
//! is only a warning.
//!
//! The [`Checker`] keeps the set with its findings. A change looks again only at documents that it concerns: those that name what
//! changed, and those that share a host with it.

mod index;

use std::collections::{BTreeMap, BTreeSet};

use serin_model::{
    Action, Attachment, BackendPolicy, Hostname, HttpRoute, Object, ObjectKey, RouteRules, Service, TrafficPolicy,
};

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::document::Document;
use crate::node::Position;
use crate::reference::Reference;
use crate::spelling::{distance, is_slip};
use index::{Id, Index};

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
pub fn check<'a>(documents: impl Iterator<Item = &'a Document>) -> Checked {
    Checker::of(documents).checked()
}

/// A set of documents with what was found about them.
#[derive(Debug, Default)]
pub struct Checker {
    index: Index,
    /// Findings about documents that have some.
    findings: BTreeMap<Id, Findings>,
}

/// The findings about one document, by the kind of look.
#[derive(Debug, Clone, Default, PartialEq)]
struct Findings {
    /// Beside older documents, and in the whole.
    beside: [Vec<Diagnostic>; 4],
    /// About its references.
    references: Vec<Diagnostic>,
}

impl Findings {
    fn all(&self) -> impl Iterator<Item = &Diagnostic> {
        self.beside.iter().flatten().chain(&self.references)
    }

    fn is_dangling(&self) -> bool {
        self.references.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// The effect of an edit on the findings.
#[derive(Debug, Default)]
pub struct Difference {
    /// Findings that are no more.
    pub gone: Vec<Diagnostic>,
    /// Findings that were not there before.
    pub new: Vec<Diagnostic>,
    /// True when a document that was looked at must not be used as it is.
    pub has_dangling: bool,
}

impl Checker {
    /// Checks a set of documents.
    #[must_use]
    pub fn of<'a>(documents: impl Iterator<Item = &'a Document>) -> Self {
        let mut checker = Self::default();
        documents.for_each(|document| checker.index.add(document));
        for id in checker.index.ids().cloned().collect::<Vec<_>>() {
            checker.look(&id);
        }
        checker
    }

    /// Puts documents in place of others, and looks again at what that concerns.
    pub fn replace<'a>(
        &mut self,
        before: impl Iterator<Item = &'a Document> + Clone,
        after: impl Iterator<Item = &'a Document> + Clone,
    ) -> Difference {
        let hosts = self.index.hosts();
        let is_named_otherwise = index::names_others(before.clone(), after.clone());
        let mut concerned = BTreeSet::new();
        before.clone().for_each(|document| self.index.concerned_by(document, &mut concerned));
        before.for_each(|document| self.index.remove(document));
        after.clone().for_each(|document| self.index.add(document));
        after.for_each(|document| self.index.concerned_by(document, &mut concerned));
        if is_named_otherwise {
            // Findings about names that nobody has tell which names there are.
            let names = |findings: &Findings| {
                findings.all().any(|d| matches!(d.code, Code::UnknownHost | Code::UnknownGateway))
            };
            concerned.extend(self.findings.iter().filter(|(_, findings)| names(findings)).map(|(id, _)| id.clone()));
            if hosts == 0 || self.index.hosts() == 0 {
                concerned.extend(self.index.ids().cloned());
            }
        }
        let mut difference = Difference::default();
        for id in concerned {
            let old = self.findings.remove(&id).unwrap_or_default();
            self.look(&id);
            let new = self.findings.get(&id).cloned().unwrap_or_default();
            difference.has_dangling |= new.is_dangling();
            difference.gone.extend(old.all().filter(|finding| !new.all().any(|n| n == *finding)).cloned());
            difference.new.extend(new.all().filter(|finding| !old.all().any(|o| o == *finding)).cloned());
        }
        difference
    }

    /// All findings.
    #[must_use]
    pub fn checked(&self) -> Checked {
        let mut ordered: Vec<&Document> = self.index.documents().collect();
        ordered.sort_by_key(|d| index::order(d));
        let mut checked = Checked::default();
        for kind in 0..4 {
            let found = ordered.iter().filter_map(|document| self.findings.get(&Id::of(document))?.beside.get(kind));
            checked.diagnostics.extend(found.flatten().cloned());
        }
        for (id, findings) in &self.findings {
            checked.diagnostics.extend(findings.references.iter().cloned());
            if findings.is_dangling() {
                checked.dangling.insert(id.key().clone());
            }
        }
        checked
    }

    /// Looks at one document.
    fn look(&mut self, id: &Id) {
        let Some(document) = self.index.document(id) else { return };
        let references = document.references.iter().flat_map(|reference| look(&self.index, reference));
        let findings = Findings {
            beside: [
                shared_hosts(&self.index, document),
                merged_rules(&self.index, document),
                ports_at_gateways(&self.index, document),
                rule_of_nobody(&self.index, document).into_iter().collect(),
            ],
            references: references.map(|f| Diagnostic { file: document.file.clone(), ..f }).collect(),
        };
        if findings != Findings::default() {
            self.findings.insert(id.clone(), findings);
        }
    }
}

/// Hosts that an older VirtualService routes inside the mesh too, where only the older can; at a gateway their rules are joined.
fn shared_hosts(index: &Index, document: &Document) -> Vec<Diagnostic> {
    let Object::RouteRules(rule) = document.object.as_ref() else { return Vec::new() };
    if !rule.attachments.contains(&Attachment::Mesh) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for host in &rule.hosts {
        let older = index.rules_of(host, document).filter_map(|other| match other.object.as_ref() {
            Object::RouteRules(older) if older.attachments.contains(&Attachment::Mesh) => {
                Some((other, hides(older, rule)?))
            }
            _ => None,
        });
        if let Some((other, place)) = older.min_by_key(|(_, place)| place.len()) {
            findings.push(beside(
                document,
                Code::Duplicate,
                "spec.hosts",
                format!(
                    "host '{host}' is routed by {} too, which is older, and only that one applies to it{place}",
                    other.key
                ),
                format!("it stands in {}:{}; put the rules into one VirtualService", other.file, other.at.line),
            ));
        }
    }
    findings
}

/// Where the older of two rules for one host applies and not the younger, in words; `None` when they do not meet.
fn hides(older: &RouteRules, younger: &RouteRules) -> Option<String> {
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
fn ports_of(rule: &RouteRules) -> Option<BTreeSet<u16>> {
    let of_route = |route: &HttpRoute| -> Option<BTreeSet<u16>> {
        let ports: Option<BTreeSet<u16>> = route.matches.iter().map(|m| m.port).collect();
        ports.filter(|ports| !ports.is_empty())
    };
    let all: Option<Vec<BTreeSet<u16>>> = rule.http.iter().map(of_route).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect())
}

/// Destinations of routes at a gateway that say no port and whose service has several, none of which is the gateway's: no cluster is
/// meant then, and requests are answered 503 (Istio: `GetDestinationCluster`).
fn ports_at_gateways(index: &Index, document: &Document) -> Vec<Diagnostic> {
    let Object::RouteRules(rule) = document.object.as_ref() else { return Vec::new() };
    let in_matches = rule.http.iter().flat_map(|r| &r.matches).filter_map(|m| m.attachments.as_ref()).flatten();
    let named = rule.attachments.iter().chain(in_matches);
    let named = named.filter_map(|g| if let Attachment::Gateway(name) = g { Some(name) } else { None });
    let ports: BTreeSet<u16> = named.flat_map(|name| index.gateway_ports(name)).collect();
    let mut findings = Vec::new();
    for (place, route) in rule.http.iter().enumerate() {
        let Action::Forward { destinations, .. } = &route.action else { continue };
        for (number, destination) in destinations.iter().enumerate().filter(|(_, d)| d.port.is_none()) {
            let Some(service) = index.service(&destination.host).filter(|s| s.ports.len() > 1) else { continue };
            let missing: Vec<String> =
                ports.iter().filter(|p| service.port(**p).is_none()).map(ToString::to_string).collect();
            if missing.is_empty() {
                continue;
            }
            let known: Vec<String> = service.ports.iter().map(|p| p.number.to_string()).collect();
            findings.push(beside(
                document,
                Code::UnknownPort,
                &format!("spec.http[{place}].route[{number}].destination"),
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
    findings
}

/// DestinationRules of one namespace for one host are one rule: subsets of all, and the policy of the first that has one.
fn merged_rules(index: &Index, document: &Document) -> Vec<Diagnostic> {
    let Object::BackendPolicy(rule) = document.object.as_ref() else { return Vec::new() };
    let older = index.policies_of(rule, document).filter_map(|other| match other.object.as_ref() {
        Object::BackendPolicy(older) if older.takes_in(rule) => Some((other, older)),
        _ => None,
    });
    let all: Vec<(&Document, &BackendPolicy)> = older.collect();
    let Some((first, _)) = all.first() else { return Vec::new() };
    let known: Vec<&str> = all.iter().flat_map(|(_, r)| &r.subsets).map(|s| s.name.as_str()).collect();
    let (twice, added): (Vec<&str>, Vec<&str>) =
        rule.subsets.iter().map(|s| s.name.as_str()).partition(|name| known.contains(name));
    let mut words = Vec::new();
    if !added.is_empty() {
        words.push(format!("its subsets {} are added", added.join(", ")));
    }
    if !twice.is_empty() {
        words.push(format!("its subsets {} are not used, because they are defined there", twice.join(", ")));
    }
    let holder = all.iter().find(|(_, r)| r.policy.as_ref() != &TrafficPolicy::default());
    match (holder, rule.policy.as_ref() == &TrafficPolicy::default()) {
        (Some((holder, _)), false) => {
            words.push(format!("its trafficPolicy is not used, because {} has one", holder.key))
        }
        (None, false) => words.push("its trafficPolicy is used for all".to_owned()),
        (_, true) => {}
    }
    vec![beside(
        document,
        Code::Merged,
        "spec.host",
        format!("it is merged with {}, which is older: {}", first.key, words.join("; ")),
        format!("that one stands in {}:{}", first.file, first.at.line),
    )]
}

/// A DestinationRule for a host that no service has: it does nothing.
fn rule_of_nobody(index: &Index, document: &Document) -> Option<Diagnostic> {
    let Object::BackendPolicy(rule) = document.object.as_ref() else { return None };
    let is_known = index.hosts() == 0 || index.has_service(&rule.host);
    (!is_known).then(|| {
        let known: Vec<&str> = index.service_hosts().map(|h| h.as_str()).collect();
        let help = meant(rule.host.as_str(), &known).unwrap_or_else(|| shown("known are", &known));
        let message = format!("there is no service '{}': the rule has no effect", rule.host);
        beside(document, Code::UnknownHost, "spec.host", message, help)
    })
}

fn look(index: &Index, reference: &Reference) -> Vec<Diagnostic> {
    match reference {
        Reference::Gateway { name, at } if !index.has_gateway(name) => {
            let message = format!("there is no Gateway '{}' in namespace '{}'", name.name, name.namespace);
            vec![finding(Code::UnknownGateway, Severity::Error, at.clone(), message, known_gateways(index))]
        }
        Reference::Gateway { .. } => Vec::new(),
        Reference::Destination { host, host_at, subset, port } => {
            let mut findings = Vec::new();
            let service = index.service(host);
            // Where no services are known, a DestinationRule for the host is taken as a sign that it exists.
            let is_rule_host = index.hosts() == 0 && index.policies_over(host).next().is_some();
            if service.is_none() && !is_rule_host {
                // What is said of a host that there is not is no second mistake.
                return vec![unknown_host(index, host, host_at.clone())];
            }
            if let Some((name, at, path)) = subset {
                findings.extend(unknown_subset(index, host, name, (*at, path.clone())));
            }
            if let (Some((number, at, path)), Some(service)) = (port, service) {
                findings.extend(unknown_port(service, *number, (*at, path.clone())));
            }
            findings
        }
    }
}

fn unknown_host(index: &Index, host: &Hostname, at: (Position, String)) -> Diagnostic {
    let severity = if index.hosts() == 0 { Severity::Warning } else { Severity::Error };
    let known: Vec<&str> = index.service_hosts().map(|h| h.as_str()).collect();
    let help = if known.is_empty() {
        "no service is registered in these files, so hosts cannot be checked for certain".to_owned()
    } else {
        meant(host.as_str(), &known).unwrap_or_else(|| shown("known are", &known))
    };
    finding(Code::UnknownHost, severity, at, format!("there is no service '{host}'"), help)
}

fn unknown_subset(index: &Index, host: &Hostname, name: &str, at: (Position, String)) -> Option<Diagnostic> {
    let rules: Vec<&BackendPolicy> = index.policies_over(host).collect();
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

fn known_gateways(index: &Index) -> String {
    let known: Vec<String> = index.gateways().map(ToString::to_string).collect();
    if known.is_empty() { "no Gateway is defined".to_owned() } else { format!("defined are {}", known.join(", ")) }
}

/// A warning about a document because of another.
fn beside(document: &Document, code: Code, path: &str, message: String, help: String) -> Diagnostic {
    Diagnostic {
        file: document.file.clone(),
        ..finding(code, Severity::Warning, (document.at, path.to_owned()), message, help)
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

fn finding(code: Code, severity: Severity, place: (Position, String), message: String, help: String) -> Diagnostic {
    let (at, path) = place;
    Diagnostic { code, severity, file: "".into(), at, path, message, help }
}
