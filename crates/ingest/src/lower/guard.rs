//! Policies that are not carried out: read as far as it takes to know what they guard, which is closed then.
//!
//! Nothing here may make a policy guard less than it does: a selector that cannot be read selects everything it could select, and
//! what cannot be read of a demand is a demand that nobody can evaluate. Source: Istio's reference pages of `security.istio.io`.

use std::collections::BTreeMap;

use serin_model::{Demand, Guard, Hostname, Kind, Labels, Object, ObjectName, ROOT_NAMESPACE, Target};

use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};
use crate::lower::istio::labels;

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
pub(crate) const NOTHING: Demand = Demand::MutualTls { strict: None, ports: BTreeMap::new() };

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

pub(crate) fn whom(guard: &Guard) -> String {
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
    for rule in rules.iter().filter(|rule| !rule.is_map()) {
        rule.invalid("a rule is a map", "write {} for one that every request fits");
    }
    let is_empty = |rule: &Cursor<'_>| rule.is_map() && rule.entries().is_empty();
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
