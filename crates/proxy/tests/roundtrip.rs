//! `decode(encode(x)) == x` for route configurations and endpoints, over every field that docs/envoy-fields.md calls supported.
//! (Clusters and listeners are not encoded whole: the pilot writes what rules of Istio can say.)
//!
//! Messages are drawn by reflection from Envoy's own descriptors: a few supported fields each, with values of their kind. What
//! the decoders refuse is drawn anew; at the end every supported field must have been part of a message that was taken.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serin_resources::{Audit, LoadAssignment, RouteConfiguration};

const DESCRIPTORS: &[u8] = include_bytes!("../descriptors.bin");
const FIELDS: &str = include_str!("../../../docs/envoy-fields.md");

/// Supported fields by message.
fn supported() -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut message = String::new();
    for line in FIELDS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            message = name.to_owned();
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

/// What may stand in an `Any` of a field.
fn extensions(field: &FieldDescriptor) -> Vec<&'static str> {
    match (field.parent_message().name(), field.name()) {
        (_, "typed_per_filter_config") | ("TypedPerFilterConfigEntry", _) => {
            vec!["envoy.extensions.filters.http.fault.v3.HTTPFault", "envoy.extensions.filters.http.cors.v3.CorsPolicy"]
        }
        _ => Vec::new(),
    }
}

impl Draw {
    fn message(&mut self, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let fields: Vec<FieldDescriptor> = match self.supported.get(descriptor.full_name()) {
            Some(names) => names.iter().flat_map(|name| fields_of(descriptor, name)).collect(),
            None => descriptor.fields().collect(),
        };
        let wanted = if depth == 0 { 3 } else { 2 };
        for field in fields {
            let rate = wanted as f64 / (descriptor.fields().len() as f64).max(3.0);
            let needed = matches!(
                field.name(),
                "name"
                    | "cluster_name"
                    | "address"
                    | "socket_address"
                    | "endpoint"
                    | "port_value"
                    | "match"
                    | "domains"
                    | "regex"
                    | "routes"
                    | "virtual_hosts"
                    | "action"
                    | "route"
                    | "prefix"
                    | "cluster"
            );
            if !needed && (depth > 9 || self.random.f64() > rate) {
                continue;
            }
            let value = self.value(&field, depth);
            self.used.insert(format!("{}.{}", descriptor.full_name(), field.name()));
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
            let count = self.random.usize(1..3);
            return Value::List((0..count).map(|_| self.single(field, depth)).collect());
        }
        self.single(field, depth)
    }

    fn single(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Bool => Value::Bool(self.random.bool()),
            Kind::Double => Value::F64(f64::from(self.random.u32(1..100)) / 2.0),
            Kind::Float => Value::F32(1.5),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.random.i32(0..300)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.random.i64(0..300)),
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
        let any = self.pool.get_message_by_name("google.protobuf.Any").unwrap();
        let mut message = DynamicMessage::new(any);
        let choices = extensions(field);
        let all: Vec<String> = self.supported.keys().filter(|n| n.starts_with("envoy.extensions.")).cloned().collect();
        let name = if choices.is_empty() {
            self.random.choice(&all).unwrap().clone()
        } else {
            (*self.random.choice(&choices).unwrap()).to_owned()
        };
        let Some(of) = self.pool.get_message_by_name(&name) else { return Value::Message(message) };
        let inner = self.message(&of, depth + 1);
        message.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{name}")));
        message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
        Value::Message(message)
    }

    fn text(&mut self, field: &FieldDescriptor) -> String {
        let choices: &[&str] = match field.name() {
            "address" | "address_prefix" => &["127.0.0.1", "10.0.0.8"],
            "regex" => &["a+b", "^/x/(.*)$"],
            "substitution" => &[r"\1", "new"],
            "domains" => &["a.example", "*.b.example", "*"],
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
    let mut draw =
        Draw { random, pool: pool.clone(), supported: supported(), used: BTreeSet::new(), covered: BTreeSet::new() };
    let kinds: [(&str, Check); 2] = [
        ("envoy.config.route.v3.RouteConfiguration", check!(RouteConfiguration)),
        ("envoy.config.endpoint.v3.ClusterLoadAssignment", check!(LoadAssignment)),
    ];
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40_000);
    let mut failures: BTreeMap<String, String> = BTreeMap::new();
    for (name, check) in kinds {
        let descriptor = pool.get_message_by_name(name).unwrap();
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
    let shown: Vec<String> = failures.iter().take(5).map(|(key, why)| format!("{key}\n{why}")).collect();
    assert!(failures.is_empty(), "{} kinds of failures: {}", failures.len(), shown.join("\n\n"));
    let ours = |message: &&String| {
        message.starts_with("envoy.config.route.v3.") || message.starts_with("envoy.config.endpoint.v3.")
    };
    let all = supported();
    let mut missing = Vec::new();
    for (message, fields) in all.iter().filter(|(message, _)| ours(message)) {
        let Some(descriptor) = pool.get_message_by_name(message) else { continue };
        let fields = fields.iter().filter(|field| descriptor.get_field_by_name(field).is_some());
        missing.extend(fields.map(|field| format!("{message}.{field}")).filter(|field| !draw.covered.contains(field)));
    }
    assert!(missing.is_empty(), "never part of a message that was taken: {missing:?}");
}
