//! Policies that are not carried out: read as far as it takes to know what they guard, which is closed then.
//!
//! Nothing here may make a policy guard less than it does: a selector that cannot be read selects everything it could select, and
//! what cannot be read of a demand is a demand that nobody can evaluate. Source: Istio's reference pages of `security.istio.io`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serin_model::{
    Demand, DestinationRule, Guard, Hostname, Kind, Labels, Object, ObjectKey, ObjectName, ROOT_NAMESPACE, Subset,
    Target, TrafficPolicy,
};

use crate::cursor::{Context, Cursor, Object as Fields, is_slip};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::istio::destination_rule::exported;
use crate::istio::{export_to, labels};
use crate::kind::probable_kind;
use crate::outline::Entry;

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
    let selector = fields.as_ref().map(selected).unwrap_or_default();
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
    let mut gateways = Vec::new();
    match targets {
        Targets::None => {}
        Targets::Services(services) if demand != NOTHING => demand = Demand::Services(services),
        Targets::Services(_) => {}
        Targets::Gateways(names) => gateways = names,
        Targets::Waypoints => demand = NOTHING,
    }
    let guard = Guard { kind: kind.to_owned(), name: name.clone(), selector, gateways, demand };
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
        Demand::Services(services) => {
            let names: Vec<String> = services.iter().map(ToString::to_string).collect();
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
    if !guard.gateways.is_empty() {
        return format!("gateway {} in namespace {namespace}", guard.gateways.join(", "));
    }
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
    Services(Vec<Target>),
    /// Gateways, by their names.
    Gateways(Vec<String>),
    /// Waypoint proxies, of which there are none here.
    Waypoints,
}

fn targets(fields: &Fields<'_>, name: &ObjectName) -> Targets {
    let list = fields.get("targetRefs").map(|l| l.list()).unwrap_or_default();
    let all: Vec<Cursor<'_>> = fields.get("targetRef").into_iter().chain(list).collect();
    let (mut services, mut gateways, mut waypoints) = (Vec::new(), Vec::new(), 0);
    for target in &all {
        let text = |field: &str| target.peek(field).and_then(|c| c.peek_text()).unwrap_or_default();
        if let Some(other) = target.peek("namespace").filter(|n| n.peek_text() != Some(name.namespace.as_str())) {
            // Istio refuses such a policy.
            let help = "a policy stands in the namespace of what it is for; leave 'namespace' out";
            other.invalid("a policy cannot be for an object of another namespace", help);
            return Targets::None;
        }
        match text("kind") {
            "Service" => services.extend(Hostname::resolve(text("name"), &name.namespace).ok().map(Target::Host)),
            "ServiceEntry" => {
                let name = ObjectName { namespace: name.namespace.clone(), name: text("name").to_owned() };
                services.push(Target::ServiceEntry(name));
            }
            "Gateway" => gateways.push(text("name").to_owned()),
            "GatewayClass" => waypoints += 1,
            // What it names is not known: it selects all that it could.
            _ => return Targets::None,
        }
    }
    match (services.is_empty(), gateways.is_empty()) {
        (true, true) if waypoints > 0 && waypoints == all.len() => Targets::Waypoints,
        (false, true) => Targets::Services(services),
        (true, false) => Targets::Gateways(gateways),
        // Both at once: all that it could select.
        _ => Targets::None,
    }
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

/// Filters of Envoy that keep nobody out and nothing safe.
const HARMLESS: [&str; 24] = [
    "adaptive_concurrency",
    "admission_control",
    "alpn",
    "bandwidth_limit",
    "buffer",
    "cdn_loop",
    "compressor",
    "cors",
    "decompressor",
    "fault",
    "grpc_http1_bridge",
    "grpc_json_transcoder",
    "grpc_stats",
    "grpc_web",
    "header_mutation",
    "header_to_metadata",
    "health_check",
    "http_connection_manager",
    "http_inspector",
    "on_demand",
    "router",
    "stateful_session",
    "tap",
    "tcp_proxy",
];

/// Words of patches that keep requests out, or safe on their way.
const GUARDING: [&str; 20] = [
    "rbac",
    "jwt_authn",
    "ext_authz",
    "ext_proc",
    "oauth2",
    "basic_auth",
    "api_key_auth",
    "credential_injector",
    "csrf",
    "ratelimit",
    "rate_limit",
    "lua",
    "wasm",
    "golang",
    "dynamic_modules",
    "transport_socket",
    "tls_context",
    "certificate",
    "require_tls",
    "proxy_protocol",
];

fn envoy_filter(fields: &Fields<'_>) -> Demand {
    let patches = fields.get("configPatches").map(|p| p.json()).unwrap_or_default();
    let guards = GUARDING.iter().any(|word| patches.contains(word));
    // A filter that nobody here knows may guard something.
    let unknown = patches.match_indices("envoy.filters.").any(|(at, _)| {
        let rest = patches.get(at..).unwrap_or_default();
        let name = rest.splitn(4, '.').nth(3).unwrap_or_default();
        let name = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        !HARMLESS.contains(&name)
    });
    if guards || unknown { Demand::Unknown } else { NOTHING }
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
    Some(Object::DestinationRule(DestinationRule {
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
        _ if plain.contains("tls") || plain == "tsl" || plain == "tl" => Some("tls"),
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
        Object::DestinationRule(rule) => refuses(&rule.policy) || rule.subsets.iter().any(|s| refuses(&s.policy)),
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
        let rule = DestinationRule {
            name: name.clone(),
            host: host.clone(),
            workloads: None,
            policy: Box::new(TrafficPolicy { refused, ..TrafficPolicy::default() }),
            subsets: Vec::new(),
            export_to: None,
            exported: Vec::new(),
        };
        (ObjectKey { name, ..key.clone() }, Some(Object::DestinationRule(rule)), host.to_string())
    };
    hosts.into_iter().enumerate().map(rule).collect()
}
