//! Policies that are not carried out: read as far as it takes to know what they guard, which is closed then.
//!
//! Nothing here may make a policy guard less than it does: a selector that cannot be read selects everything it could select, and
//! what cannot be read of a demand is a demand that nobody can evaluate. Source: Istio's reference pages of `security.istio.io`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_model::{
    Demand, DestinationRule, Guard, Hostname, Kind, Labels, Object, ObjectKey, ObjectName, ROOT_NAMESPACE, Subset,
    TrafficPolicy,
};

use crate::cursor::{Context, Cursor, Object as Fields, is_slip};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::istio::destination_rule::exported;
use crate::istio::{export_to, labels};

/// Whether objects of that kind are policies that are not carried out.
pub(crate) fn is_guard(kind: Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::PeerAuthentication
            | K::RequestAuthentication
            | K::AuthorizationPolicy
            | K::BackendTLSPolicy
            | K::EnvoyFilter
            | K::WasmPlugin
            | K::SecurityPolicy
    )
}

/// What a policy does not demand, in the form of one that inherits.
const NOTHING: Demand = Demand::MutualTls { strict: None, ports: BTreeMap::new() };

/// Reads a policy and says what becomes of what it guards. There is always one: what cannot be read closes more, not less.
pub(crate) fn read(kind: &str, spec: Option<&Cursor<'_>>, name: &ObjectName, document: &Cursor<'_>) -> Object {
    let fields = spec.and_then(|s| s.object());
    let mut selector = fields.as_ref().map(selected).unwrap_or_default();
    let targets = fields.as_ref().map(|f| targets(f, name)).unwrap_or_default();
    let tried = annotation(document, "istio.io/dry-run").is_some_and(|text| text == "true");
    let demand = match (kind, &fields) {
        ("AuthorizationPolicy", _) if tried => NOTHING,
        ("AuthorizationPolicy", Some(fields)) => authorization(fields),
        ("AuthorizationPolicy", None) => Demand::Allow,
        ("RequestAuthentication", Some(fields)) => authentication(fields),
        ("PeerAuthentication", Some(fields)) => mutual_tls(fields),
        ("RequestAuthentication" | "PeerAuthentication", None) => NOTHING,
        ("EnvoyFilter", Some(fields)) => envoy_filter(fields),
        ("WasmPlugin", Some(fields)) => plugin(fields),
        _ => Demand::Unknown,
    };
    if let Some(fields) = &fields {
        fields.skip(&["selector", "targetRef", "targetRefs", "workloadSelector"]);
        if !matches!(kind, "AuthorizationPolicy" | "RequestAuthentication" | "PeerAuthentication") {
            fields.skip_rest();
        }
    }
    let mut demand = demand;
    match targets {
        Targets::None => {}
        Targets::Services(hosts) if demand != NOTHING => demand = Demand::Services(hosts),
        Targets::Services(_) => {}
        Targets::Gateway(gateway) => {
            selector.insert("gateway.networking.k8s.io/gateway-name".to_owned(), gateway);
        }
    }
    let guard = Guard { kind: kind.to_owned(), name: name.clone(), selector, demand };
    say(&guard, spec.unwrap_or(document), tried);
    Object::Guard(guard)
}

/// Says what becomes of requests.
fn say(guard: &Guard, at: &Cursor<'_>, tried: bool) {
    let kind = &guard.kind;
    let whom = whom(guard);
    let help =
        "take the policy away, or start the pilot with --allow-unenforced-policies to let requests through without it";
    let refused = |whom: &str, why: &str| {
        at.report(
            Code::NotEnforced,
            Severity::Warning,
            format!("{kind} is not carried out yet: requests to {whom} are refused until it is ({why})"),
            help,
        );
    };
    match &guard.demand {
        Demand::Unknown => refused(&whom, "503, because nobody evaluates the policy"),
        Demand::Allow => refused(&whom, "503, because nobody knows which requests it allows"),
        Demand::Services(hosts) => {
            let names: Vec<&str> = hosts.iter().map(Hostname::as_str).collect();
            refused(&names.join(", "), "503, because nobody evaluates the policy");
        }
        Demand::MutualTls { strict, ports } => {
            let of_port: Vec<String> =
                ports.iter().filter(|(_, strict)| **strict).map(|(p, _)| p.to_string()).collect();
            if *strict == Some(true) {
                let nearer = if guard.selector.is_empty() { ", where no nearer policy says otherwise" } else { "" };
                refused(&whom, &format!("503, because there is no mutual TLS{nearer}"));
            } else if !of_port.is_empty() {
                refused(&format!("port {} of {whom}", of_port.join(", ")), "503, because there is no mutual TLS");
            } else {
                let why = if tried {
                    "it is a dry run, of which nothing is reported yet"
                } else {
                    "it refuses nothing by itself"
                };
                at.report(Code::NoEffectYet, Severity::Info, format!("{kind} has no effect yet: {why}"), "");
            }
        }
        Demand::AllowAll => {
            at.report(Code::NoEffectYet, Severity::Info, format!("{kind} allows every request to {whom}"), "");
        }
    }
}

fn whom(guard: &Guard) -> String {
    let labels: Vec<String> = guard.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let namespace = &guard.name.namespace;
    match (labels.is_empty(), namespace.as_str()) {
        (true, ROOT_NAMESPACE) => "every workload of the mesh".to_owned(),
        (true, _) => format!("every workload of namespace {namespace}"),
        (false, ROOT_NAMESPACE) => format!("workloads with {} in every namespace", labels.join(",")),
        (false, _) => format!("workloads with {} in namespace {namespace}", labels.join(",")),
    }
}

/// `selector: {matchLabels: …}`, or `workloadSelector: {labels: …}`.
fn selected(fields: &Fields<'_>) -> Labels {
    let of = |field: &str, inner: &str| {
        let object = fields.get(field)?.object()?;
        Some(object.get(inner).map(|l| labels(&l)).unwrap_or_default())
    };
    of("selector", "matchLabels").or_else(|| of("workloadSelector", "labels")).unwrap_or_default()
}

/// What a policy names instead of selecting it.
#[derive(Default)]
enum Targets {
    /// Nothing.
    #[default]
    None,
    /// Services, which proxies in front of them would guard.
    Services(Vec<Hostname>),
    /// A gateway, by its name.
    Gateway(String),
}

fn targets(fields: &Fields<'_>, name: &ObjectName) -> Targets {
    let list = fields.get("targetRefs").map(|l| l.list()).unwrap_or_default();
    let all: Vec<Cursor<'_>> = fields.get("targetRef").into_iter().chain(list).collect();
    let mut services = Vec::new();
    for target in &all {
        let text = |field: &str| target.peek(field).and_then(|c| c.peek_text()).unwrap_or_default();
        if let Some(other) = target.peek("namespace").filter(|n| n.peek_text() != Some(name.namespace.as_str())) {
            // Istio refuses such a policy.
            let help = "a policy stands in the namespace of what it is for; leave 'namespace' out";
            other.invalid("a policy cannot be for an object of another namespace", help);
            return Targets::None;
        }
        match text("kind") {
            "Service" => {
                let host = Hostname::resolve(text("name"), &name.namespace);
                services.extend(host.ok());
            }
            "Gateway" if all.len() == 1 => return Targets::Gateway(text("name").to_owned()),
            // What it names is not known: it selects all that it could.
            _ => return Targets::None,
        }
    }
    if services.is_empty() { Targets::None } else { Targets::Services(services) }
}

fn authorization(fields: &Fields<'_>) -> Demand {
    fields.skip(&["provider"]);
    let rules = fields.list("rules");
    let is_empty = |rule: &Cursor<'_>| rule.entries().is_empty();
    match fields.get("action").map_or(Some("ALLOW".to_owned()), |a| a.text()).as_deref() {
        Some("ALLOW") if rules.iter().any(is_empty) => Demand::AllowAll,
        Some("ALLOW") => Demand::Allow,
        Some("DENY" | "CUSTOM") if rules.is_empty() => NOTHING,
        Some("AUDIT") => NOTHING,
        _ => Demand::Unknown,
    }
}

fn authentication(fields: &Fields<'_>) -> Demand {
    if fields.list("jwtRules").is_empty() { NOTHING } else { Demand::Unknown }
}

fn mutual_tls(fields: &Fields<'_>) -> Demand {
    let strict = |cursor: Cursor<'_>| {
        let object = cursor.object()?;
        let mode = object.get("mode")?;
        match mode.text()?.as_str() {
            "UNSET" => None,
            "DISABLE" | "PERMISSIVE" => Some(false),
            "STRICT" => Some(true),
            other => {
                mode.invalid(format!("'{other}' is no mode"), "use UNSET, DISABLE, PERMISSIVE or STRICT");
                Some(true)
            }
        }
    };
    let ports = fields.get("portLevelMtls").map(|p| p.entries()).unwrap_or_default();
    let mut by_port = BTreeMap::new();
    for (number, mode) in ports {
        match number.parse::<u16>() {
            Ok(port) if port > 0 => by_port.extend(strict(mode).map(|strict| (port, strict))),
            _ => mode.invalid(format!("'{number}' is no port"), ""),
        }
    }
    Demand::MutualTls { strict: fields.get("mtls").and_then(strict), ports: by_port }
}

/// HTTP and network filters of Envoy that keep requests out.
const GUARDING: [&str; 9] =
    ["rbac", "jwt_authn", "ext_authz", "oauth2", "basic_auth", "api_key_auth", "csrf", "ratelimit", "lua"];

fn envoy_filter(fields: &Fields<'_>) -> Demand {
    let patches = fields.get("configPatches").map(|p| p.json()).unwrap_or_default();
    if GUARDING.iter().any(|name| patches.contains(name)) { Demand::Unknown } else { NOTHING }
}

fn plugin(fields: &Fields<'_>) -> Demand {
    let opens = fields.get("failStrategy").and_then(|f| f.text()).is_some_and(|f| f == "FAIL_OPEN");
    if opens { NOTHING } else { Demand::Unknown }
}

fn annotation(document: &Cursor<'_>, key: &str) -> Option<String> {
    document.peek("metadata")?.peek("annotations")?.peek(key)?.peek_text().map(str::to_owned)
}

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
    let spec = document.peek("spec");
    if is_guard(key.kind) {
        let kind =
            document.peek("kind").and_then(|kind| kind.peek_text()).unwrap_or("a policy without a kind").to_owned();
        let Object::Guard(guard) = read(&kind, spec.as_ref(), &key.name, document) else { return None };
        // What is wrong with it may be what it demands.
        let demand = if guard.demand == NOTHING { Demand::Unknown } else { guard.demand };
        return Some(Object::Guard(Guard { demand, ..guard }));
    }
    if key.kind != Kind::DestinationRule {
        return None;
    }
    let spec = spec?;
    // A misspelt field may hold what the right one would.
    let known = ["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"];
    let others = spec.entries().into_iter().filter(|(name, _)| !known.contains(&name.as_str()));
    let misplaced: Vec<&str> = others.flat_map(|(_, value)| demands_within(&value)).collect();
    let refusal = |guards: &[&str]| {
        let fields = guards.join(", ");
        (!guards.is_empty()).then(|| format!("DestinationRule {} has errors, and it says {fields}", key.name))
    };
    let closing = |policy: Option<Cursor<'_>>| {
        let (own, by_port) = policy.as_ref().map(demands).unwrap_or_default();
        let of_port = |(port, demands): (u16, Vec<&str>)| {
            (port, TrafficPolicy { refused: refusal(&demands), ..TrafficPolicy::default() })
        };
        let refused = refusal(&own).or_else(|| refusal(&misplaced));
        TrafficPolicy { refused, ports: by_port.into_iter().map(of_port).collect(), ..TrafficPolicy::default() }
    };
    let host = Hostname::resolve(host_of(&spec)?, &key.name.namespace).ok()?;
    let items = spec.peek("subsets").map(|s| s.list()).unwrap_or_default();
    let subsets: Vec<Subset> = items
        .iter()
        .filter_map(|s| {
            let name = s.peek("name")?.peek_text()?.to_owned();
            let labels = s.peek("labels").map(|l| labels(&l)).unwrap_or_default();
            Some(Subset { name, labels, policy: closing(s.peek("trafficPolicy")) })
        })
        .collect();
    let policy = closing(spec.peek("trafficPolicy"));
    let whom = closed_words(&host, &policy, &subsets)?;
    document.report(
        Code::NotEnforced,
        Severity::Warning,
        format!("the rule has errors: requests to {whom} are refused (503) where it applies, until it is mended"),
        "mend it, or take what it demands away",
    );
    Some(Object::DestinationRule(DestinationRule {
        name: key.name.clone(),
        host,
        workloads: spec.peek("workloadSelector").and_then(|s| s.peek("matchLabels")).map(|l| labels(&l)),
        policy: Box::new(policy),
        subsets,
        export_to: export_to(spec.peek("exportTo")),
        exported: exported(spec.peek("exportTo")),
    }))
}

/// The host of a rule, also where its field is misspelt.
fn host_of<'a>(spec: &Cursor<'a>) -> Option<&'a str> {
    let near = || spec.entries().into_iter().find(|(name, _)| is_slip("host", name)).map(|(_, value)| value);
    spec.peek("host").or_else(near)?.peek_text()
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

/// What keeps requests safe in a traffic policy, also where it is misspelt, for all ports and by port. A rule that asks for plain text
/// demands nothing.
fn demands(policy: &Cursor<'_>) -> (Vec<&'static str>, BTreeMap<u16, Vec<&'static str>>) {
    let (mut found, mut by_port) = (Vec::new(), BTreeMap::new());
    for (name, value) in policy.entries() {
        match name.as_str() {
            "tls" if value.peek("mode").and_then(|m| m.peek_text()) == Some("DISABLE") => {}
            "tls" | "tlss" | "tl" | "TLS" | "tLs" | "tsl" => found.push("tls"),
            "proxyProtocol" => found.push("proxyProtocol"),
            "tunnel" => found.push("tunnel"),
            "outlierDetection" => found.push("outlierDetection"),
            "portLevelSettings" => {
                for item in value.list() {
                    let (own, _) = demands(&item);
                    let number = item.peek("port").and_then(|port| port.peek("number")).and_then(|n| n.peek_port());
                    match number {
                        Some(number) if !own.is_empty() => by_port.entry(number).or_insert_with(Vec::new).extend(own),
                        // Of which port is not known: it may be any.
                        _ => found.extend(own),
                    }
                }
            }
            _ => {}
        }
    }
    found.dedup();
    (found, by_port)
}

/// The same of a value whatever it is, and of all that it holds.
fn demands_within(value: &Cursor<'_>) -> Vec<&'static str> {
    if value.is_list() {
        return value.list().iter().flat_map(demands_within).collect();
    }
    if !value.is_map() {
        return Vec::new();
    }
    let (mut found, by_port) = demands(value);
    found.extend(by_port.into_values().flatten());
    found.extend(value.entries().iter().flat_map(|(_, inner)| demands_within(inner)));
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether an object refuses requests because of something that is not carried out.
pub(crate) fn guards(object: &Object) -> bool {
    let refuses = |policy: &TrafficPolicy| {
        policy.not_carried_out().is_some() || policy.ports.iter().any(|(_, port)| port.not_carried_out().is_some())
    };
    match object {
        Object::Guard(guard) => guard.demand != NOTHING && guard.demand != Demand::AllowAll,
        Object::DestinationRule(rule) => refuses(&rule.policy) || rule.subsets.iter().any(|s| refuses(&s.policy)),
        _ => false,
    }
}

/// What the lines of a text that is no YAML name of policies, each with whom it closes: a policy its whole namespace, a
/// DestinationRule with TLS and the like its host.
pub(crate) fn named_in(text: &str, line: u32) -> Vec<(ObjectKey, Object, String)> {
    let kinds = values(text, "kind");
    let namespace = values(text, "namespace").first().map_or("default", |namespace| namespace).to_owned();
    let mut found: Vec<(ObjectKey, Object, String)> = Vec::new();
    let mut versions = values(text, "apiVersion");
    if versions.is_empty() {
        versions.push("");
    }
    for version in versions {
        for kind in &kinds {
            let Some(known) = crate::kind::probable_kind(version, kind) else { continue };
            let name = ObjectName { namespace: namespace.clone(), name: format!("(line {line}) {kind}") };
            let key = ObjectKey { kind: known, name: name.clone() };
            if found.iter().any(|(other, ..)| *other == key) {
                continue;
            }
            if is_guard(known) {
                let guard = Guard { kind: (*kind).to_owned(), name, selector: Labels::new(), demand: Demand::Unknown };
                let whom = whom(&guard);
                found.push((key, Object::Guard(guard), whom));
            } else if known == Kind::DestinationRule {
                found.extend(broken_rules(text, &key));
            }
        }
    }
    found
}

fn broken_rules(text: &str, key: &ObjectKey) -> Vec<(ObjectKey, Object, String)> {
    let says = |field: &str| !values(text, field).is_empty();
    let plain = values(text, "mode").iter().all(|mode| *mode == "DISABLE") && says("mode");
    let closes = (says("tls") && !plain) || ["proxyProtocol", "tunnel", "outlierDetection"].into_iter().any(says);
    if !closes {
        return Vec::new();
    }
    let hosts = values(text, "host").into_iter().filter_map(|host| Hostname::resolve(host, &key.name.namespace).ok());
    let rule = |(number, host): (usize, Hostname)| {
        let name = ObjectName { name: format!("{}.{number}", key.name.name), ..key.name.clone() };
        let refused = Some(format!("DestinationRule {name} cannot be read"));
        let rule = DestinationRule {
            name: name.clone(),
            host: host.clone(),
            workloads: None,
            policy: Box::new(TrafficPolicy { refused, ..TrafficPolicy::default() }),
            subsets: Vec::new(),
            export_to: None,
            exported: Vec::new(),
        };
        (ObjectKey { name, ..key.clone() }, Object::DestinationRule(rule), host.to_string())
    };
    hosts.enumerate().map(rule).collect()
}

/// The values that a field seems to have in a text that is no YAML; an empty one where something stands below it.
fn values<'a>(text: &'a str, field: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(field) {
        let before = text.get(..at).unwrap_or_default().chars().next_back();
        let after = text.get(at + field.len()..).unwrap_or_default();
        let after = after.strip_prefix(['"', '\'']).unwrap_or(after).trim_start_matches(' ');
        let Some(value) = after.strip_prefix(':') else { continue };
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let end = value.find(['\n', ',', '}', '#', ']']).unwrap_or(value.len());
        found.push(value.get(..end).unwrap_or_default().trim().trim_matches(['"', '\'']));
    }
    found
}
