//! Spans, as collectors take them: OpenTelemetry's `ExportTraceServiceRequest` over gRPC.
//!
//! Source: opentelemetry-proto, `trace/v1/trace.proto` and `collector/trace/v1/trace_service.proto`. Only the fields that are
//! sent are described here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The path of the call.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// One request, as its proxy saw it.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// This span.
    pub id: u64,
    /// The caller's span; 0 is none.
    pub parent: u64,
    /// The name of the operation.
    pub name: String,
    /// True when the request came from outside to this workload, rather than from it.
    pub is_server: bool,
    /// The times of its beginning and its end.
    pub times: [SystemTime; 2],
    /// Further attributes.
    pub attributes: Vec<(String, String)>,
    /// True when it failed.
    pub failed: bool,
}

/// The call's message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// The response; what was refused is the collector's to tell its operator.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Wire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
}

impl ExportRequest {
    /// Spans of one service.
    #[must_use]
    pub fn new(service: &str, spans: Vec<Span>) -> Self {
        let attributes = vec![key_value("service.name".to_owned(), service.to_owned())];
        let scope = Scope { name: "serin".to_owned() };
        let spans = spans.into_iter().map(wire).collect();
        let spans = ScopeSpans { scope: Some(scope), spans };
        let spans = ResourceSpans { resource: Some(Resource { attributes }), scope_spans: vec![spans] };
        Self { resource_spans: vec![spans] }
    }
}

impl ExportRequest {
    /// The spans, each with its service: what a collector reads.
    #[must_use]
    pub fn into_spans(self) -> Vec<(String, Span)> {
        let mut found = Vec::new();
        for group in self.resource_spans {
            let attributes = group.resource.unwrap_or_default().attributes.into_iter().map(pair);
            let service = attributes.into_iter().find(|(key, _)| key == "service.name").map(|(_, name)| name);
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            found.extend(spans.map(|wire| (service.clone().unwrap_or_default(), read(wire))));
        }
        found
    }
}

fn pair(field: KeyValue) -> (String, String) {
    (field.key, field.value.unwrap_or_default().text)
}

fn read(wire: Wire) -> Span {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n: u128, byte| (n << 8) | u128::from(*byte));
    let time = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
    Span {
        trace: number(&wire.trace_id),
        id: number(&wire.span_id) as u64,
        parent: number(&wire.parent_span_id) as u64,
        name: wire.name,
        is_server: wire.kind == SERVER,
        times: [time(wire.start), time(wire.end)],
        attributes: wire.attributes.into_iter().map(pair).collect(),
        failed: wire.status.is_some_and(|status| status.code == ERROR),
    }
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

fn key_value(key: String, text: String) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { text }) }
}

fn wire(span: Span) -> Wire {
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    Wire {
        trace_id: span.trace.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        parent_span_id: if span.parent == 0 { Vec::new() } else { span.parent.to_be_bytes().to_vec() },
        name: span.name,
        kind: if span.is_server { SERVER } else { CLIENT },
        start: nanos(span.times[0]),
        end: nanos(span.times[1]),
        attributes: span.attributes.into_iter().map(|(key, text)| key_value(key, text)).collect(),
        status: span.failed.then_some(Status { code: ERROR }),
    }
}
