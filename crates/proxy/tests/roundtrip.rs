//! `decode(encode(x)) == x` for every resource type, over every field that docs/envoy-fields.md calls supported.
//!
//! Messages are drawn by reflection from Envoy's own descriptors: a few supported fields each, with values of their kind. What
//! the decoders refuse is drawn anew; at the end every supported field must have been part of a message that was taken.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serin_resources::tls::Secret;
use serin_resources::{Audit, Cluster, Listener, LoadAssignment, RouteConfiguration};

const DESCRIPTORS: &[u8] = include_bytes!("../descriptors.bin");
const FIELDS: &str = include_str!("../../../docs/envoy-fields.md");

/// Supported fields by message, whose name is in lower case: Rust's `HttpFault` is Envoy's `HTTPFault`.
fn supported() -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut message = String::new();
    for line in FIELDS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            message = name.to_lowercase();
            all.insert(message.clone(), Vec::new());
        } else if let Some(list) = line.strip_prefix("- supported: ") {
            let fields = list.split('`').skip(1).step_by(2).map(str::to_owned);
            all.get_mut(&message).unwrap().extend(fields);
        }
    }
    all
}

struct Draw {
    random: fastrand::Rng,
    pool: DescriptorPool,
    supported: BTreeMap<String, Vec<String>>,
    /// Fields that are in the message at hand.
    used: BTreeSet<String>,
    /// Fields that were part of a message that was taken.
    covered: BTreeSet<String>,
}

/// Fields without which most messages are refused: they are always drawn.
const NEEDED: [&str; 47] = [
    "name",
    "cluster_name",
    "address",
    "socket_address",
    "endpoint",
    "port_value",
    "match",
    "domains",
    "regex",
    "routes",
    "virtual_hosts",
    "action",
    "route",
    "prefix",
    "cluster",
    "typed_config",
    "filters",
    "http_filters",
    "filter_chains",
    "route_specifier",
    "route_config",
    "header_match_specifier",
    "match_pattern",
    "health_checker",
    "timeout",
    "interval",
    "unhealthy_threshold",
    "healthy_threshold",
    "grpc_service",
    "envoy_grpc",
    "compressor_library",
    "rule",
    "identifier",
    "any",
    "cluster_specifier",
    "header",
    "key",
    "pattern",
    "string_match",
    "start",
    "end",
    "provider",
    "address_prefix",
    "common_tls_context",
    "certificate_chain",
    "private_key",
    "keys",
];

/// Fields that are refused whatever they say.
const NEVER: [&str; 16] = [
    "cluster_type",
    "config_discovery",
    "connect_matcher",
    "custom",
    "custom_health_check",
    "envoy_internal_address",
    "filter_action",
    "filter_state",
    "host_rewrite",
    "internal_address",
    "inline_scoped_routes",
    "named_port",
    "non_forwarding_action",
    "path_match_policy",
    "pipe",
    "scoped_routes",
];

/// Messages that may stand in an `Any` of a field.
fn extensions(field: &FieldDescriptor) -> &'static [&'static str] {
    match (field.parent_message().full_name(), field.name()) {
        (name, _) if name.ends_with(".TypedPerFilterConfigEntry") => &[
            "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
            "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
            "envoy.config.route.v3.FilterConfig",
        ],
        (name, _) if name.ends_with(".TypedExtensionProtocolOptionsEntry") => {
            &["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
        }
        ("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter", _) => &[
            "envoy.extensions.filters.http.fault.v3.HTTPFault",
            "envoy.extensions.filters.http.cors.v3.Cors",
            "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "envoy.extensions.filters.http.buffer.v3.Buffer",
            "envoy.extensions.filters.http.health_check.v3.HealthCheck",
            "envoy.extensions.filters.http.compressor.v3.Compressor",
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "envoy.extensions.filters.http.rbac.v3.RBAC",
            "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
            "envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
        ],
        ("envoy.config.listener.v3.Filter", _) => &[
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        ],
        ("envoy.config.accesslog.v3.AccessLog", _) => &[
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        ],
        ("envoy.config.core.v3.TransportSocket", _) => &[
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        ],
        ("envoy.config.listener.v3.ListenerFilter", _) => {
            &["envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"]
        }
        ("envoy.config.trace.v3.Tracing.Http", _) => &["envoy.config.trace.v3.OpenTelemetryConfig"],
        ("envoy.extensions.filters.http.compressor.v3.Compressor", _) => {
            &["envoy.extensions.compression.gzip.compressor.v3.Gzip"]
        }
        ("envoy.config.core.v3.TypedExtensionConfig", _) => &[
            "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
            "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
            "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
            "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
            "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
            "envoy.extensions.compression.gzip.compressor.v3.Gzip",
            "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
            "envoy.extensions.load_balancing_policies.random.v3.Random",
            "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
            "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
            "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        ],
        _ => &[],
    }
}

/// The value of a field that is fixed, before its own value is drawn: network filters and the router, without which no list is taken.
fn fixed(field: &FieldDescriptor) -> Option<(bool, &'static str)> {
    match (field.parent_message().name(), field.name()) {
        ("HttpConnectionManager", "http_filters") => Some((true, "envoy.extensions.filters.http.router.v3.Router")),
        ("FilterChain", "filters") => Some((false, "envoy.extensions.filters.network.rbac.v3.RBAC")),
        _ => None,
    }
}

impl Draw {
    fn message(&mut self, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let fields: Vec<FieldDescriptor> = match self.supported.get(&descriptor.full_name().to_lowercase()) {
            Some(names) => names.iter().flat_map(|name| fields_of(descriptor, name)).collect(),
            None => descriptor.fields().collect(),
        };
        let wanted = if depth == 0 { 3 } else { 2 };
        for field in fields {
            let place = format!("{}.{}", descriptor.full_name().to_lowercase(), field.name());
            // What no message that was taken had so far is drawn more often.
            let more = if self.covered.contains(&place) { 0.5 } else { 1.0 };
            let rate = more * f64::from(wanted) / (descriptor.fields().len() as f64).max(3.0);
            let needed = NEEDED.contains(&field.name());
            let never = NEVER.contains(&field.name())
                || field.name() == "metadata" && descriptor.full_name().starts_with("envoy.config.rbac.");
            if never || !needed && (depth > 14 || self.random.f64() > rate) {
                continue;
            }
            let value = self.value(&field, depth);
            self.used.insert(place);
            message.set_field(&field, value);
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!() };
            let value = entry.map_entry_value_field();
            let key = MapKey::String(self.random.choice(["a", "b", "envoy.lb"]).unwrap().to_owned());
            return Value::Map([(key, self.single(&value, depth))].into());
        }
        if field.cardinality() == Cardinality::Repeated {
            let count =
                if matches!(field.name(), "filter_chains" | "health_checks") { 1 } else { self.random.usize(1..3) };
            let mut list: Vec<Value> = (0..count).map(|_| self.single(field, depth)).collect();
            if let Some((last, name)) = fixed(field) {
                let Kind::Message(of) = field.kind() else { unreachable!() };
                let config = self.packed(name, depth);
                let mut filter = DynamicMessage::new(of);
                filter.set_field_by_name("name", Value::String("fixed".to_owned()));
                filter.set_field_by_name("typed_config", config);
                list.truncate(1);
                list.insert(usize::from(last), Value::Message(filter));
            }
            return Value::List(list);
        }
        self.single(field, depth)
    }

    fn single(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.random.bool()),
            Kind::Double => Value::F64(f64::from(self.random.u32(1..100)) / 2.0),
            Kind::Float => Value::F32(1.5),
            Kind::Int64 if field.name() == "start" => Value::I64(self.random.i64(100..300)),
            Kind::Int64 if field.name() == "end" => Value::I64(self.random.i64(300..600)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.random.i32(0..300)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.random.i64(0..300)),
            Kind::Uint32 if field.name() == "status" => Value::U32(self.random.u32(200..599)),
            Kind::Uint32 if field.name() == "priority" => Value::U32(self.random.u32(0..3)),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.random.u32(0..600)),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.random.u64(0..600)),
            Kind::Bytes => Value::Bytes(b"bytes".to_vec().into()),
            Kind::Enum(of) => {
                let values: Vec<i32> = of.values().map(|v| v.number()).collect();
                Value::EnumNumber(*self.random.choice(&values).unwrap())
            }
            Kind::String => Value::String(self.text(field)),
            Kind::Message(of) => match of.full_name() {
                "google.protobuf.Any" => self.any(field, depth),
                "google.protobuf.Duration" => {
                    let mut duration = DynamicMessage::new(of);
                    duration.set_field_by_name("seconds", Value::I64(self.random.i64(0..20)));
                    duration.set_field_by_name("nanos", Value::I32(self.random.i32(0..999) * 1_000_000));
                    Value::Message(duration)
                }
                "google.protobuf.Struct" => {
                    let mut value =
                        DynamicMessage::new(self.pool.get_message_by_name("google.protobuf.Value").unwrap());
                    value.set_field_by_name("string_value", Value::String("v1".to_owned()));
                    let mut map = DynamicMessage::new(of);
                    map.set_field_by_name(
                        "fields",
                        Value::Map([(MapKey::String("version".to_owned()), Value::Message(value))].into()),
                    );
                    Value::Message(map)
                }
                _ => Value::Message(self.message(&of, depth + 1)),
            },
        }
    }

    fn any(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let name = self.random.choice(extensions(field)).copied().unwrap_or_default();
        self.packed(name, depth)
    }

    /// A message of that name in an `Any`.
    fn packed(&mut self, name: &str, depth: usize) -> Value {
        let any = self.pool.get_message_by_name("google.protobuf.Any").unwrap();
        let mut message = DynamicMessage::new(any);
        let Some(of) = self.pool.get_message_by_name(name) else {
            assert!(name.is_empty(), "no message {name}");
            return Value::Message(message);
        };
        let inner = self.message(&of, depth + 1);
        message.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{name}")));
        message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
        Value::Message(message)
    }

    fn text(&mut self, field: &FieldDescriptor) -> String {
        if field.name() == "domains" {
            return format!("{}.example", self.random.u32(..));
        }
        let choices: &[&str] = match field.name() {
            "name" if field.parent_message().name() == "ListenerFilter" => &["envoy.filters.listener.tls_inspector"],
            "name" if field.parent_message().name() == "TransportSocket" => &["envoy.transport_sockets.tls"],
            "verify_certificate_spki" => &["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="],
            "verify_certificate_hash" => &["df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a"],
            "cipher_suites" => &["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"],
            "ecdh_curves" => &["X25519", "P-256"],
            "operation" | "value" | "text_format" => &["a", "%PROTOCOL%"],
            "address" | "address_prefix" => &["127.0.0.1", "10.0.0.8"],
            "transport_protocol" => &["raw_buffer", "tls"],
            "regex" => &["a+b", "^/x/(.*)$"],
            "substitution" => &[r"\1", "new"],
            "key" | "header_name" | "header" | "request_header_name" => &["x-a", "x-b"],
            "retry_on" => &["5xx", "gateway-error,reset"],
            "path" => &["/", "/tmp/log"],
            _ => &["a", "b", "/c", "d.example"],
        };
        (*self.random.choice(choices).unwrap()).to_owned()
    }
}

/// A field of a message, or the members of one of its oneofs.
fn fields_of(descriptor: &MessageDescriptor, name: &str) -> Vec<FieldDescriptor> {
    match descriptor.get_field_by_name(name) {
        Some(field) => vec![field],
        None => descriptor.oneofs().find(|o| o.name() == name).map(|o| o.fields().collect()).unwrap_or_default(),
    }
}

type Check = fn(&[u8]) -> Option<Result<(), String>>;

macro_rules! check {
    ($kind:ty) => {
        |bytes| {
            let first = <$kind>::decode(bytes, &mut Audit::default()).ok()?;
            let again = <$kind>::decode(&first.encode(), &mut Audit::default());
            Some(match again {
                Err(error) => Err(format!("{error}\n{first:#?}")),
                Ok(again) if again == first => Ok(()),
                Ok(again) => Err(difference(&format!("{first:#?}"), &format!("{again:#?}"))),
            })
        }
    };
}

fn difference(one: &str, other: &str) -> String {
    let at = one.lines().zip(other.lines()).position(|(a, b)| a != b).unwrap_or(0);
    let part = |text: &str| text.lines().skip(at.saturating_sub(12)).take(20).collect::<Vec<_>>().join("\n");
    format!("{}\n--- became\n{}", part(one), part(other))
}

#[test]
fn what_is_encoded_is_what_was_decoded() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let random = fastrand::Rng::with_seed(7);
    let mut draw = Draw { random, pool, supported: supported(), used: BTreeSet::new(), covered: BTreeSet::new() };
    let kinds: [(&str, Check); 5] = [
        ("envoy.config.route.v3.RouteConfiguration", check!(RouteConfiguration)),
        ("envoy.config.endpoint.v3.ClusterLoadAssignment", check!(LoadAssignment)),
        ("envoy.config.cluster.v3.Cluster", check!(Cluster)),
        ("envoy.config.listener.v3.Listener", check!(Listener)),
        ("envoy.extensions.transport_sockets.tls.v3.Secret", check!(Secret)),
    ];
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    // Rare fields may need more messages than others: draw on, as long as one was never part of a message that was taken.
    for _ in 0..8 {
        for (name, check) in &kinds {
            draw_some(&mut draw, name, *check, rounds, &mut failures);
        }
        let shown: Vec<String> = failures.iter().take(5).map(|(key, why)| format!("{key}\n{why}")).collect();
        assert!(failures.is_empty(), "{} kinds of failures: {}", failures.len(), shown.join("\n\n"));
        if never_taken(&draw).is_empty() {
            return;
        }
    }
    panic!("never part of a message that was taken: {:?}", never_taken(&draw));
}

/// Draws messages of a kind and checks each.
fn draw_some(draw: &mut Draw, name: &str, check: Check, rounds: usize, failures: &mut BTreeMap<String, String>) {
    let descriptor = draw.pool.get_message_by_name(name).unwrap();
    let mut taken = 0;
    for _ in 0..rounds {
        draw.used.clear();
        let message = draw.message(&descriptor, 0);
        match check(&message.encode_to_vec()) {
            None => {}
            Some(Ok(())) => {
                taken += 1;
                let used = std::mem::take(&mut draw.used);
                draw.covered.extend(used);
            }
            Some(Err(why)) => {
                let key = why.lines().take(18).last().unwrap_or_default().trim().to_owned();
                failures.entry(format!("{name}: {key}")).or_insert(why);
            }
        }
    }
    assert!(taken > 100, "{name}: only {taken} of {rounds} were taken");
}

/// Supported fields that no message had that was taken.
fn never_taken(draw: &Draw) -> Vec<String> {
    let all = supported();
    let mut missing = Vec::new();
    let by_name: BTreeMap<String, MessageDescriptor> =
        draw.pool.all_messages().map(|message| (message.full_name().to_lowercase(), message)).collect();
    for (message, fields) in all.iter().filter(|(message, _)| !message.starts_with("envoy.config.bootstrap.")) {
        let descriptor = by_name.get(message).unwrap_or_else(|| panic!("Envoy has no message {message}"));
        let fields = fields.iter().filter(|field| descriptor.get_field_by_name(field).is_some());
        missing.extend(fields.map(|field| format!("{message}.{field}")).filter(|field| !draw.covered.contains(field)));
    }
    missing
}
