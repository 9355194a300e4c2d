//! Small conversions between protobuf well-known types and Rust's.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;
use prost::Message;

use crate::{Audit, Error, Path};

/// The metadata of load balancing.
const LB: &str = "envoy.lb";

/// The metadata by which the TLS of an endpoint is chosen.
const TRANSPORT: &str = "envoy.transport_socket_match";

/// The metadata under `envoy.lb`, each value as text.
pub(crate) fn metadata(value: Option<&core::Metadata>, path: &Path<'_>) -> Result<BTreeMap<String, String>, Error> {
    let Some(lb) = value.and_then(|v| v.filter_metadata.get(LB)) else { return Ok(BTreeMap::new()) };
    text_fields(lb, &path.field(LB))
}

/// The metadata under `envoy.transport_socket_match`, each value as text.
pub(crate) fn transport_metadata(
    value: Option<&core::Metadata>,
    path: &Path<'_>,
) -> Result<BTreeMap<String, String>, Error> {
    let Some(found) = value.and_then(|v| v.filter_metadata.get(TRANSPORT)) else { return Ok(BTreeMap::new()) };
    text_fields(found, &path.field(TRANSPORT))
}

/// Adds metadata under `envoy.transport_socket_match`, if there is any.
pub(crate) fn proto_transport(
    metadata: Option<core::Metadata>,
    fields: &BTreeMap<String, String>,
) -> Option<core::Metadata> {
    if fields.is_empty() {
        return metadata;
    }
    let mut metadata = metadata.unwrap_or_default();
    metadata.filter_metadata.insert(TRANSPORT.to_owned(), proto_fields(fields));
    metadata.filter_metadata = in_order(std::mem::take(&mut metadata.filter_metadata));
    Some(metadata)
}

/// The fields of a structure, each value as text.
pub(crate) fn text_fields(value: &wkt::Struct, path: &Path<'_>) -> Result<BTreeMap<String, String>, Error> {
    let found = plain_fields(value);
    match value.fields.keys().find(|key| !found.contains_key(*key)) {
        Some(key) => Err(path.error(format!("'{key}' must be a string, a number or a boolean"))),
        None => Ok(found),
    }
}

/// Istio's metadata, which says who an endpoint is.
const ISTIO: &str = "istio";

/// The workload under `istio`, for metrics.
pub(crate) fn workload(value: Option<&core::Metadata>) -> String {
    let istio = value.and_then(|v| v.filter_metadata.get(ISTIO)).map(plain_fields);
    istio.and_then(|mut fields| fields.remove("workload")).unwrap_or_default()
}

/// The host name of the first service under `istio`, for metrics.
pub(crate) fn service(value: Option<&core::Metadata>) -> String {
    use wkt::value::Kind;
    let services = value.and_then(|v| v.filter_metadata.get(ISTIO)?.fields.get("services")?.kind.as_ref());
    let first = match services {
        Some(Kind::ListValue(list)) => list.values.first().and_then(|v| v.kind.as_ref()),
        _ => None,
    };
    match first {
        Some(Kind::StructValue(service)) => plain_fields(service).remove("host").unwrap_or_default(),
        _ => String::new(),
    }
}

/// Istio's metadata about the service of a cluster.
pub(crate) fn proto_service(host: &str) -> Option<core::Metadata> {
    use wkt::value::Kind;
    let text = |text: &str| wkt::Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let mut names = host.split('.');
    let (name, namespace) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let fields = [("host", host), ("name", name), ("namespace", namespace)].map(|(key, v)| (key.to_owned(), text(v)));
    let service = wkt::Value { kind: Some(Kind::StructValue(wkt::Struct { fields: in_order(fields) })) };
    let list = wkt::Value { kind: Some(Kind::ListValue(wkt::ListValue { values: vec![service] })) };
    let fields = [("services".to_owned(), list)].into();
    (!host.is_empty()).then(|| core::Metadata {
        filter_metadata: [(ISTIO.to_owned(), wkt::Struct { fields })].into(),
        ..Default::default()
    })
}

/// Serin's metadata, which only Serin's proxies understand.
const SERIN: &str = "serin";

/// A text under `serin`.
pub(crate) fn own(value: Option<&core::Metadata>, key: &str) -> Option<String> {
    plain_fields(value?.filter_metadata.get(SERIN)?).remove(key)
}

/// Adds a text under `serin`, if there is one.
pub(crate) fn proto_own(metadata: Option<core::Metadata>, key: &str, text: Option<&str>) -> Option<core::Metadata> {
    let Some(text) = text else { return metadata };
    let mut metadata = metadata.unwrap_or_default();
    let value = wkt::Value { kind: Some(wkt::value::Kind::StringValue(text.to_owned())) };
    let fields = [(key.to_owned(), value)].into();
    metadata.filter_metadata.insert(SERIN.to_owned(), wkt::Struct { fields });
    metadata.filter_metadata = in_order(std::mem::take(&mut metadata.filter_metadata));
    Some(metadata)
}

/// Region, zone and sub-zone joined by slashes.
pub(crate) fn locality(value: &core::Locality) -> String {
    let parts = [value.region.as_str(), value.zone.as_str(), value.sub_zone.as_str()];
    parts.join("/").trim_end_matches('/').to_owned()
}

pub(crate) fn proto_workload(workload: &str, metadata: Option<core::Metadata>) -> Option<core::Metadata> {
    if workload.is_empty() {
        return metadata;
    }
    let mut metadata = metadata.unwrap_or_default();
    let value = wkt::Value { kind: Some(wkt::value::Kind::StringValue(workload.to_owned())) };
    let fields = [("workload".to_owned(), value)].into();
    metadata.filter_metadata.insert(ISTIO.to_owned(), wkt::Struct { fields });
    metadata.filter_metadata = in_order(std::mem::take(&mut metadata.filter_metadata));
    Some(metadata)
}

/// The plain values of a structure, each as text.
pub(crate) fn plain_fields(value: &wkt::Struct) -> BTreeMap<String, String> {
    use wkt::value::Kind;
    let text = |value: &wkt::Value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        Some(Kind::NumberValue(number)) => Some(number.to_string()),
        Some(Kind::BoolValue(on)) => Some(on.to_string()),
        _ => None,
    };
    value.fields.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

pub(crate) fn proto_metadata(metadata: &BTreeMap<String, String>) -> Option<core::Metadata> {
    (!metadata.is_empty()).then(|| core::Metadata {
        filter_metadata: [(LB.to_owned(), proto_fields(metadata))].into(),
        ..Default::default()
    })
}

/// A structure of texts.
pub(crate) fn proto_fields(fields: &BTreeMap<String, String>) -> wkt::Struct {
    let value = |text: &String| wkt::Value { kind: Some(wkt::value::Kind::StringValue(text.clone())) };
    wkt::Struct { fields: in_order(fields.iter().map(|(key, text)| (key.clone(), value(text)))) }
}

/// Returns a map that is encoded in the order of its keys, so that equal messages have equal bytes.
///
/// The protobuf types have maps of the standard library, whose order differs from map to map, and prost writes them in that order.
/// A map of few entries soon comes out in order when it is made again; one that does not is legal all the same.
pub(crate) fn in_order<V: Clone>(entries: impl IntoIterator<Item = (String, V)>) -> HashMap<String, V> {
    const ATTEMPTS: usize = 4096;
    let entries: BTreeMap<String, V> = entries.into_iter().collect();
    let mut map = HashMap::new();
    for _ in 0..ATTEMPTS {
        map = entries.clone().into_iter().collect();
        if map.keys().is_sorted() {
            break;
        }
    }
    map
}

/// The bytes that stand in the message itself.
pub(crate) fn inline(source: &core::DataSource, path: &Path<'_>) -> Result<Vec<u8>, Error> {
    use core::data_source::Specifier as S;
    match &source.specifier {
        None => Ok(Vec::new()),
        Some(S::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(S::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(_) => Err(path.error("only inline_string and inline_bytes are supported")),
    }
}

/// Refuses what would end the line that it becomes a part of (Envoy: `well_known_regex: HTTP_HEADER_VALUE`).
pub(crate) fn line(text: &str, path: &Path<'_>) -> Result<(), Error> {
    let is_line = |b: u8| b != b'\r' && b != b'\n' && b != 0;
    if text.bytes().all(is_line) { Ok(()) } else { Err(path.error("has a control character")) }
}

/// The longest duration that fits 64 bits of nanoseconds, in seconds: Envoy refuses longer ones.
const LONGEST: u64 = 9_223_372_036;

pub(crate) fn duration(value: &wkt::Duration, path: &Path<'_>) -> Result<Duration, Error> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(_)) if seconds > LONGEST => Err(path.error("must not be longer than 292 years")),
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(path.error("must not be negative")),
    }
}

pub(crate) fn optional_duration(value: Option<&wkt::Duration>, path: &Path<'_>) -> Result<Option<Duration>, Error> {
    value.map(|v| duration(v, path)).transpose()
}

pub(crate) fn proto_duration(value: Duration) -> wkt::Duration {
    wkt::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

pub(crate) fn wrap_bool(value: bool) -> wkt::BoolValue {
    wkt::BoolValue { value }
}

pub(crate) fn wrap_u64(value: u64) -> wkt::UInt64Value {
    wkt::UInt64Value { value }
}

pub(crate) fn wrap_u32(value: u32) -> wkt::UInt32Value {
    wkt::UInt32Value { value }
}

pub(crate) fn any<T: Message + prost::Name>(message: &T) -> wkt::Any {
    wkt::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn from_any<T: Message + Default + prost::Name>(any: &wkt::Any, path: &Path<'_>) -> Result<T, Error> {
    if any.type_url != T::type_url() {
        return Err(path.error(format!("is {}, expected {}", any.type_url, T::type_url())));
    }
    T::decode(any.value.as_slice()).map_err(|e| path.error(format!("cannot be decoded: {e}")))
}

/// A host and port: an IP address or, where names are resolved, a name.
pub(crate) fn host_port(address: Option<&core::Address>, path: &Path<'_>) -> Result<(String, u16), Error> {
    use core::address::Address::SocketAddress;
    use core::socket_address::PortSpecifier::PortValue;
    let Some(SocketAddress(socket)) = address.and_then(|a| a.address.as_ref()) else {
        return Err(path.error("only socket_address is supported"));
    };
    if socket.protocol != core::socket_address::Protocol::Tcp as i32 {
        return Err(path.field("socket_address").field("protocol").error("only TCP is supported"));
    }
    let Some(PortValue(port)) = socket.port_specifier else {
        return Err(path.field("socket_address").error("needs a port_value"));
    };
    let port = u16::try_from(port)
        .map_err(|_| path.field("socket_address").field("port_value").error("must be at most 65535"))?;
    Ok((socket.address.clone(), port))
}

pub(crate) fn socket_address(address: Option<&core::Address>, path: &Path<'_>) -> Result<SocketAddr, Error> {
    let (host, port) = host_port(address, path)?;
    let ip: IpAddr = host
        .parse()
        .map_err(|_| path.field("socket_address").field("address").error(format!("'{host}' is not an IP address")))?;
    Ok(SocketAddr::new(ip, port))
}

pub(crate) fn proto_address(host: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// A fraction as parts of a million.
pub(crate) fn parts_per_million(
    value: Option<&envoy_types::pb::envoy::r#type::v3::FractionalPercent>,
    path: &Path<'_>,
) -> Result<u32, Error> {
    let Some(value) = value else { return Ok(0) };
    let scale = match value.denominator {
        0 => 10_000,
        1 => 100,
        2 => 1,
        _ => return Err(path.field("denominator").error("is no known denominator")),
    };
    Ok(value.numerator.saturating_mul(scale).min(1_000_000))
}

/// A share that the runtime may have another value for.
pub(crate) fn runtime_share(
    value: &core::RuntimeFractionalPercent,
    audit: &Audit,
    path: &Path<'_>,
) -> Result<u32, Error> {
    match audit.runtime.get(&value.runtime_key) {
        Some(value) => Ok(value.share()),
        None => parts_per_million(value.default_value.as_ref(), path),
    }
}

/// Returns true when something is on, which the runtime may say otherwise.
pub(crate) fn runtime_flag(flag: &core::RuntimeFeatureFlag, audit: &Audit) -> bool {
    let said = audit.runtime.get(&flag.runtime_key).map(|value| value.share() > 0);
    said.unwrap_or_else(|| flag.default_value.as_ref().is_none_or(|v| v.value))
}

/// The number that the runtime has for a key.
pub(crate) fn runtime_number(key: &str, audit: &Audit) -> Option<f64> {
    audit.runtime.get(key).and_then(|value| value.number())
}

/// A number that the runtime may have another value for.
pub(crate) fn runtime_f64(value: &core::RuntimeDouble, audit: &Audit) -> f64 {
    runtime_number(&value.runtime_key, audit).unwrap_or(value.default_value)
}

/// A whole number that the runtime may have another value for.
pub(crate) fn runtime_u32(value: &core::RuntimeUInt32, audit: &Audit) -> u32 {
    runtime_number(&value.runtime_key, audit).map_or(value.default_value, |number| number as u32)
}

/// A share of all requests, always said.
pub(crate) fn proto_share(parts: u32) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent { default_value: Some(proto_fraction(parts)), runtime_key: String::new() }
}

/// A flag that is off; nothing where it is on, as that is what follows from silence. Envoy wants a key, under which nothing stands.
pub(crate) fn proto_off(on: bool, key: &str) -> Option<core::RuntimeFeatureFlag> {
    (!on).then(|| core::RuntimeFeatureFlag { default_value: Some(wrap_bool(false)), runtime_key: key.to_owned() })
}

pub(crate) fn proto_percent(value: u32) -> envoy_types::pb::envoy::r#type::v3::Percent {
    envoy_types::pb::envoy::r#type::v3::Percent { value: value.into() }
}

/// A number in thousandths, to the nearest.
pub(crate) fn thousandths(value: f64) -> u32 {
    (value * 1000.0).round() as u32
}

/// A percentage as parts of a million, to the nearest.
pub(crate) fn percent_parts(percent: f64) -> u32 {
    (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32
}

pub(crate) fn proto_fraction(parts: u32) -> envoy_types::pb::envoy::r#type::v3::FractionalPercent {
    envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator: parts, denominator: 2 }
}

/// The source of everything that comes over the aggregated stream.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        initial_fetch_timeout: Some(wkt::Duration::default()),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// Accepts only the aggregated stream as source.
pub(crate) fn require_ads(source: Option<&core::ConfigSource>, path: &Path<'_>) -> Result<(), Error> {
    match source.and_then(|s| s.config_source_specifier.as_ref()) {
        Some(
            core::config_source::ConfigSourceSpecifier::Ads(_) | core::config_source::ConfigSourceSpecifier::Self_(_),
        ) => Ok(()),
        _ => Err(path.error("only ads is supported as a config source")),
    }
}

/// The fields that HTTP/1 and HTTP/2 share; only what the caller reads is supported.
pub(crate) fn audit_common_options(
    value: &core::HttpProtocolOptions,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<(), Error> {
    audit!(value, core::HttpProtocolOptions as core::HttpProtocolOptions, audit, path;
        supported: idle_timeout, max_requests_per_connection, max_stream_duration, max_connection_duration,
            max_headers_count, headers_with_underscores_action;
        ignored: max_connection_duration_jitter, max_response_headers_kb;
        refused: );
    Ok(())
}
