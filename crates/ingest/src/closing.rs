//! What stands for documents with errors, and for files that cannot be read: it closes what they may guard, and opens nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_model::{
    BackendPolicy, Demand, Guard, Hostname, Kind, Labels, Object, ObjectKey, ObjectName, Subset, TrafficPolicy,
};

use crate::cursor::{Context, Cursor};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::kind::probable_kind;
use crate::lower::guard::{NOTHING, is_guard, read, whom};
use crate::lower::istio::destination_rule::exported;
use crate::lower::istio::{export_to, labels};
use crate::outline::Entry;
use crate::spelling::is_slip;

/// What stands for an object that is not sound, where it guards something: it closes that.
pub(crate) fn closing(file: &Arc<str>, key: &ObjectKey, document: &Cursor<'_>) -> Option<(Object, Vec<Diagnostic>)> {
    let context = Context::new(file.clone());
    context.set_namespace(&key.name.namespace);
    context.set_protobuf();
    let object = closed(key, &document.within(&context))?;
    let mut said = context.finish().0;
    // Of a policy that has a name it was said when it was read.
    let is_news = key.kind == Kind::DestinationRule || key.name.name.starts_with('(');
    said.retain(|d| d.code == Code::NotEnforced && is_news);
    Some((object, said))
}

fn closed(key: &ObjectKey, document: &Cursor<'_>) -> Option<Object> {
    if is_guard(key.kind) {
        return closed_guard(key, document);
    }
    if key.kind != Kind::DestinationRule {
        return None;
    }
    // Where there is no map under `spec`, its fields may stand anywhere.
    let spec = document.peek("spec").filter(Cursor::is_map).unwrap_or_else(|| document.clone());
    let refusal = |guards: &[&str]| {
        let fields = guards.join(", ");
        (!guards.is_empty()).then(|| format!("DestinationRule {} has errors, and it says {fields}", key.name))
    };
    let mut found = Demands::default();
    let mut subsets: Vec<Subset> = Vec::new();
    for (name, value) in spec.entries() {
        match name.as_str() {
            "trafficPolicy" if value.is_map() => found.add(demands(&value)),
            "subsets" if value.is_list() => {
                for item in value.list() {
                    let text = item.peek("name").and_then(|name| name.peek_text());
                    let Some(text) = text.filter(|_| item.is_map()) else {
                        // Of which subset is not known: it may be any.
                        found.everywhere.extend(demands_within(&item));
                        continue;
                    };
                    let mut own = Demands::default();
                    for (name, value) in item.entries() {
                        match name.as_str() {
                            "trafficPolicy" if value.is_map() => own.add(demands(&value)),
                            "labels" | "name" => {}
                            _ => own.everywhere.extend(demands_in(&name, &value)),
                        }
                    }
                    let labels = item.peek("labels").filter(Cursor::is_map).map(|l| labels(&l)).unwrap_or_default();
                    subsets.push(Subset { name: text.to_owned(), labels, policy: own.policy(&refusal) });
                }
            }
            "host" | "exportTo" | "workloadSelector" | "metadata" | "kind" | "apiVersion" => {}
            _ => found.everywhere.extend(demands_in(&name, &value)),
        }
    }
    let policy = found.policy(&refusal);
    let nobody = Hostname::parse("*").ok()?;
    closed_words(&nobody, &policy, &subsets)?;
    let Some(host) = host_of(document, &key.name.namespace) else {
        document.report(
            Code::NotEnforced,
            Severity::Warning,
            "the rule has errors, and it is not known which host it is for: nothing is done for it, and requests go out without it",
            "write spec.host",
        );
        return None;
    };
    let whom = closed_words(&host, &policy, &subsets)?;
    if policy.refused.is_some() {
        subsets.iter_mut().for_each(|subset| subset.policy.refused.clone_from(&policy.refused));
    }
    document.report(
        Code::NotEnforced,
        Severity::Warning,
        format!("the rule has errors: requests to {whom} are refused (503) where it applies, until it is mended"),
        "mend it, or take what it demands away",
    );
    let is_list_of_texts = |list: &Cursor<'_>| list.is_list() && list.list().iter().all(|i| i.peek_text().is_some());
    let selector = spec.peek("workloadSelector").filter(Cursor::is_map).and_then(|s| s.peek("matchLabels"));
    Some(Object::BackendPolicy(BackendPolicy {
        name: key.name.clone(),
        host,
        workloads: selector.filter(Cursor::is_map).map(|l| labels(&l)),
        policy: Box::new(policy),
        subsets,
        // One that cannot be read is for everybody.
        export_to: export_to(spec.peek("exportTo").filter(is_list_of_texts)),
        exported: exported(spec.peek("exportTo").filter(is_list_of_texts)),
    }))
}

/// What stands for a policy with errors: it closes what it may select, and opens nothing.
fn closed_guard(key: &ObjectKey, document: &Cursor<'_>) -> Option<Object> {
    let spec = document.peek("spec").filter(Cursor::is_map);
    let kind = document.peek("kind").and_then(|kind| kind.peek_text()).unwrap_or("a policy without a kind");
    let Object::Guard(guard) = read(kind, spec.as_ref(), &key.name, document) else { return None };
    let text = spec.as_ref().map(Cursor::json).unwrap_or_default();
    let is_audit = spec.as_ref().and_then(|s| s.peek("action")).and_then(|a| a.peek_text()) == Some("AUDIT");
    let demand = match guard.demand {
        _ if is_audit => NOTHING,
        // What allows all, or takes mutual TLS off, is not believed of a policy with errors.
        Demand::AllowAll => NOTHING,
        Demand::MutualTls { .. } if key.kind == Kind::PeerAuthentication => {
            let told = |mode: &str| text.matches(&format!("\"{mode}\"")).count();
            let sound = told("DISABLE") + told("PERMISSIVE") + told("UNSET") == text.matches("mode").count();
            if sound && told("STRICT") == 0 && text.contains("mode") { NOTHING } else { Demand::Unknown }
        }
        demand if demand == NOTHING => Demand::Unknown,
        demand => demand,
    };
    Some(Object::Guard(Guard { demand, ..guard }))
}

/// What a traffic policy demands: of all ports, and by port.
#[derive(Default)]
struct Demands {
    everywhere: Vec<&'static str>,
    by_port: BTreeMap<u16, Vec<&'static str>>,
}

impl Demands {
    fn add(&mut self, other: Self) {
        self.everywhere.extend(other.everywhere);
        for (port, demands) in other.by_port {
            self.by_port.entry(port).or_default().extend(demands);
        }
    }

    fn policy(mut self, refusal: &impl Fn(&[&str]) -> Option<String>) -> TrafficPolicy {
        self.everywhere.sort_unstable();
        self.everywhere.dedup();
        let of_port = |(port, demands): (u16, Vec<&str>)| {
            (port, TrafficPolicy { refused: refusal(&demands), ..TrafficPolicy::default() })
        };
        TrafficPolicy {
            refused: refusal(&self.everywhere),
            ports: self.by_port.into_iter().map(of_port).collect(),
            ..TrafficPolicy::default()
        }
    }
}

/// The host of a rule, also where its field is misspelt, misplaced or holds more than a name.
fn host_of(document: &Cursor<'_>, namespace: &str) -> Option<Hostname> {
    let text = |value: &Cursor<'_>| {
        let first = if value.is_list() { value.list().into_iter().next()? } else { value.clone() };
        host_in(first.peek_text()?, namespace)
    };
    let in_map = |map: &Cursor<'_>| {
        let entries = map.entries();
        let exact = entries.iter().find(|(name, _)| name == "host").and_then(|(_, value)| text(value));
        exact.or_else(|| entries.iter().filter(|(name, _)| is_slip("host", name)).find_map(|(_, value)| text(value)))
    };
    let below = document.entries().into_iter().filter(|(name, _)| name != "metadata").map(|(_, value)| value);
    let candidates = std::iter::once(document.clone()).chain(below);
    candidates
        .flat_map(|c| if c.is_list() { c.list() } else { vec![c] })
        .filter(Cursor::is_map)
        .find_map(|map| in_map(&map))
}

/// The host in a text that may be a URL, or have a port or spaces.
fn host_in(text: &str, namespace: &str) -> Option<Hostname> {
    let text = text.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    let bare =
        bare.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(bare, |(h, _)| h);
    Hostname::resolve(bare, namespace).ok()
}

/// Whom a broken rule closes, in words; `None` when it is nobody.
fn closed_words(host: &Hostname, policy: &TrafficPolicy, subsets: &[Subset]) -> Option<String> {
    let ports = |policy: &TrafficPolicy| -> Vec<String> {
        let closed = policy.ports.iter().filter(|(_, p)| p.refused.is_some());
        closed.map(|(port, _)| port.to_string()).collect()
    };
    if policy.refused.is_some() {
        return Some(host.to_string());
    }
    let mut parts = Vec::new();
    if !ports(policy).is_empty() {
        parts.push(format!("port {} of {host}", ports(policy).join(", ")));
    }
    let closed = subsets.iter().filter(|s| s.policy.refused.is_some() || !ports(&s.policy).is_empty());
    let names: Vec<&str> = closed.map(|s| s.name.as_str()).collect();
    if !names.is_empty() {
        parts.push(format!("subset {} of {host}", names.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// What keeps requests safe in a traffic policy, at whatever depth and however it is spelt. What stands where it should at a port is of
/// that port; a rule that asks for plain text demands nothing.
fn demands(policy: &Cursor<'_>) -> Demands {
    let mut found = Demands::default();
    for (name, value) in policy.entries() {
        if name != "portLevelSettings" || !value.is_list() {
            found.everywhere.extend(demands_in(&name, &value));
            continue;
        }
        for item in value.list() {
            let own = demands_within(&item);
            let port = item.peek("port").filter(Cursor::is_map).and_then(|port| port.peek("number"));
            match port.and_then(|number| number.peek_port()) {
                Some(number) if !own.is_empty() => found.by_port.entry(number).or_default().extend(own),
                // Of which port is not known: it may be any.
                _ => found.everywhere.extend(own),
            }
        }
    }
    found
}

/// What a field demands by its name, and by what stands in it.
fn demands_in(name: &str, value: &Cursor<'_>) -> Vec<&'static str> {
    match demand_of(name) {
        Some("tls") if value.is_map() && value.peek("mode").and_then(|m| m.peek_text()) == Some("DISABLE") => {
            Vec::new()
        }
        Some(what) => vec![what],
        None => demands_within(value),
    }
}

fn demands_within(value: &Cursor<'_>) -> Vec<&'static str> {
    if value.is_list() {
        return value.list().iter().flat_map(demands_within).collect();
    }
    if !value.is_map() {
        return Vec::new();
    }
    value.entries().iter().flat_map(|(name, inner)| demands_in(name, inner)).collect()
}

/// What a field of that name demands of requests, perhaps misspelt.
fn demand_of(name: &str) -> Option<&'static str> {
    let plain = name.trim().to_ascii_lowercase();
    match name {
        _ if plain.contains("tls") || matches!(plain.as_str(), "tsl" | "tl" | "tis" | "t1s") => Some("tls"),
        _ if is_slip("proxyProtocol", name) => Some("proxyProtocol"),
        _ if is_slip("tunnel", name) => Some("tunnel"),
        _ if is_slip("outlierDetection", name) => Some("outlierDetection"),
        _ => None,
    }
}

/// Whether an object of that kind may have to close something though it has errors.
pub(crate) fn may_close(kind: Kind) -> bool {
    is_guard(kind) || kind == Kind::DestinationRule
}

/// Whether an object refuses requests because of something that is not carried out.
pub(crate) fn guards(object: &Object) -> bool {
    let refuses = |policy: &TrafficPolicy| {
        policy.not_carried_out().is_some() || policy.ports.iter().any(|(_, port)| port.not_carried_out().is_some())
    };
    match object {
        Object::Guard(guard) => guard.demand != NOTHING && guard.demand != Demand::AllowAll,
        Object::BackendPolicy(rule) => refuses(&rule.policy) || rule.subsets.iter().any(|s| refuses(&s.policy)),
        _ => false,
    }
}

/// What the outline of a text that is no YAML names of policies, each with whom it closes: a policy its whole namespace, a
/// DestinationRule with TLS and the like its host; nobody where that cannot be told.
pub(crate) fn named_in(entries: &[Entry], place: &str) -> Vec<(ObjectKey, Option<Object>, String)> {
    let is_top = |entry: &Entry| entry.around.iter().all(|(_, key)| key.is_empty() || key == "items");
    let mut found = Vec::new();
    for kind in entries.iter().filter(|e| e.key == "kind" && !e.value.is_empty() && is_top(e)) {
        let map = kind.within();
        let beside = |key: &str| entries.iter().find(|e| e.key == key && e.within() == map);
        let version = beside("apiVersion").map_or("", |e| e.value.as_str());
        let Some(known) = probable_kind(version, &kind.value) else { continue };
        let metadata = beside("metadata").map(|e| e.below);
        let namespace = entries.iter().find(|e| e.key == "namespace" && Some(e.within()) == metadata);
        let namespace = namespace.map_or("default", |e| e.value.as_str()).to_owned();
        let name = ObjectName { namespace, name: format!("({place}) {}.{map}", kind.value) };
        let key = ObjectKey { kind: known, name: name.clone() };
        if is_guard(known) {
            let (demand, selector) = (Demand::Unknown, Labels::new());
            let guard = Guard { kind: kind.value.clone(), name, selector, gateways: Vec::new(), demand };
            let whom = whom(&guard);
            found.push((key, Some(Object::Guard(guard)), whom));
        } else if known == Kind::DestinationRule {
            let own: Vec<&Entry> = entries.iter().filter(|e| e.is_below(map)).collect();
            found.extend(broken_rules(&own, &key));
        }
    }
    found
}

fn broken_rules(entries: &[&Entry], key: &ObjectKey) -> Vec<(ObjectKey, Option<Object>, String)> {
    let modes = |below: usize| entries.iter().filter(move |e| e.key == "mode" && e.within() == below);
    let is_plain = |tls: &Entry| modes(tls.below).any(|mode| mode.value == "DISABLE");
    let demands = |e: &&&Entry| demand_of(&e.key).is_some_and(|what| what != "tls" || !is_plain(e));
    if !entries.iter().any(|e| demands(&e)) {
        return Vec::new();
    }
    let is_host = |key: &str| key == "host" || is_slip("host", key);
    let of_host = |e: &&&Entry| {
        !e.value.is_empty()
            && (is_host(&e.key) || e.key.is_empty() && e.around.last().is_some_and(|(_, key)| is_host(key)))
    };
    let hosts: Vec<Hostname> =
        entries.iter().filter(of_host).filter_map(|e| host_in(&e.value, &key.name.namespace)).collect();
    if hosts.is_empty() {
        return vec![(key.clone(), None, String::new())];
    }
    let rule = |(number, host): (usize, Hostname)| {
        let name = ObjectName { name: format!("{}.{number}", key.name.name), ..key.name.clone() };
        let refused = Some(format!("DestinationRule {name} cannot be read"));
        let rule = BackendPolicy {
            name: name.clone(),
            host: host.clone(),
            workloads: None,
            policy: Box::new(TrafficPolicy { refused, ..TrafficPolicy::default() }),
            subsets: Vec::new(),
            export_to: None,
            exported: Vec::new(),
        };
        (ObjectKey { name, ..key.clone() }, Some(Object::BackendPolicy(rule)), host.to_string())
    };
    hosts.into_iter().enumerate().map(rule).collect()
}
