//! Tracing of requests: which are traced, what is told of them, and where spans go.
//!
//! Source: Envoy, `HttpConnectionManager.Tracing` and `envoy.config.trace.v3.OpenTelemetryConfig`.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::trace::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::envoy::r#type::tracing::v3 as pb_tag;
use envoy_types::pb::envoy::r#type::v3::Percent;
use pb_hcm::http_connection_manager::Tracing as PbTracing;
use prost::Name as _;

use crate::convert;
use crate::substitution::Format;
use crate::{Audit, Error, Path};

/// Tracing: the share of requests, and the spans. Shares are of 10,000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Share of the requests that ask for it by `x-client-trace-id`.
    pub client: u32,
    /// Share of all others.
    pub random: u32,
    /// Share of those that are traced after all other checks.
    pub overall: u32,
    /// Bytes of the path that a span shows.
    pub path_length: usize,
    /// Further attributes of a span.
    pub tags: Vec<Tag>,
    /// Name of spans; `None` is Envoy's usual one.
    pub operation: Option<Format>,
    /// True when the next one is told of the trace.
    pub propagate: bool,
    /// The receiver of spans.
    pub provider: Provider,
}

/// A tag of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// The source of its value.
    pub source: TagSource,
}

/// The source of a tag's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagSource {
    /// Always this.
    Literal(String),
    /// A variable of the proxy's environment, or this when it is not set.
    Environment(String, String),
    /// A header of the request, or this when it is absent; nothing when empty.
    Header(String, String),
    /// A format.
    Format(Format),
}

/// A collector that speaks OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provider {
    /// As whom spans are sent.
    pub service: String,
    /// The cluster of the collector; empty when `address` says where it is.
    pub cluster: String,
    /// `host:port` of the collector.
    pub address: String,
}

impl Tracing {
    pub(crate) fn decode(value: &PbTracing, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        audit!(value, PbTracing as PbTracing, audit, path;
            supported: client_sampling, random_sampling, overall_sampling, max_path_tag_length, custom_tags, provider,
                operation, no_context_propagation;
            ignored: verbose, spawn_upstream_span, upstream_operation; refused: );
        let share = |percent: &Option<Percent>, field: &str| match percent {
            None => Ok(10_000),
            Some(p) if (0.0..=100.0).contains(&p.value) => Ok((p.value * 100.0).round() as u32),
            Some(_) => Err(path.field(field).error("must be from 0 to 100")),
        };
        // Without one no spans are made.
        let Some(provider) = &value.provider else { return Ok(None) };
        let tags_path = path.field("custom_tags");
        let tags = value.custom_tags.iter().enumerate().map(|(i, tag)| Tag::decode(tag, &tags_path.index(i)));
        let operation = match value.operation.as_str() {
            "" => None,
            text => Some(Format::compile(text).map_err(|e| path.field("operation").error(e.to_string()))?),
        };
        Ok(Some(Self {
            client: share(&value.client_sampling, "client_sampling")?,
            random: share(&value.random_sampling, "random_sampling")?,
            overall: share(&value.overall_sampling, "overall_sampling")?,
            path_length: value.max_path_tag_length.as_ref().map_or(256, |v| v.value as usize),
            tags: tags.collect::<Result<_, _>>()?,
            operation,
            propagate: !value.no_context_propagation,
            provider: Provider::decode(provider, audit, &path.field("provider"))?,
        }))
    }
}

impl Tracing {
    pub(crate) fn encode(&self) -> PbTracing {
        let share = |parts: u32| Some(Percent { value: f64::from(parts) / 100.0 });
        PbTracing {
            client_sampling: share(self.client),
            random_sampling: share(self.random),
            overall_sampling: share(self.overall),
            max_path_tag_length: Some(convert::wrap_u32(u32::try_from(self.path_length).unwrap_or(u32::MAX))),
            custom_tags: self.tags.iter().map(Tag::encode).collect(),
            operation: self.operation.as_ref().map(|o| o.source().to_owned()).unwrap_or_default(),
            no_context_propagation: !self.propagate,
            provider: Some(self.provider.encode()),
            ..Default::default()
        }
    }
}

impl Tag {
    fn encode(&self) -> pb_tag::CustomTag {
        use pb_tag::custom_tag::{Environment, Header, Literal, Type};
        let source = match &self.source {
            TagSource::Literal(value) => Type::Literal(Literal { value: value.clone() }),
            TagSource::Environment(name, other) => {
                Type::Environment(Environment { name: name.clone(), default_value: other.clone() })
            }
            TagSource::Header(name, other) => {
                Type::RequestHeader(Header { name: name.clone(), default_value: other.clone() })
            }
            TagSource::Format(format) => Type::Value(format.source().to_owned()),
        };
        pb_tag::CustomTag { tag: self.name.clone(), r#type: Some(source) }
    }

    fn decode(value: &pb_tag::CustomTag, path: &Path<'_>) -> Result<Self, Error> {
        use pb_tag::custom_tag::Type;
        let source = match &value.r#type {
            Some(Type::Literal(literal)) => TagSource::Literal(literal.value.clone()),
            Some(Type::Environment(from)) => TagSource::Environment(from.name.clone(), from.default_value.clone()),
            Some(Type::RequestHeader(from)) => {
                TagSource::Header(from.name.to_ascii_lowercase(), from.default_value.clone())
            }
            Some(Type::Value(text)) => {
                TagSource::Format(Format::compile(text).map_err(|e| path.field("value").error(e.to_string()))?)
            }
            Some(Type::Metadata(_)) => return Err(Audit::refuse(path, "metadata")),
            None => return Err(path.error("needs literal, environment, request_header or value")),
        };
        Ok(Self { name: value.tag.clone(), source })
    }
}

impl Provider {
    fn encode(&self) -> pb::tracing::Http {
        use core::grpc_service::{EnvoyGrpc, GoogleGrpc, TargetSpecifier as T};
        let target = if self.address.is_empty() {
            T::EnvoyGrpc(EnvoyGrpc { cluster_name: self.cluster.clone(), ..Default::default() })
        } else {
            let prefix = "spans".to_owned();
            T::GoogleGrpc(GoogleGrpc { target_uri: self.address.clone(), stat_prefix: prefix, ..Default::default() })
        };
        let config = pb::OpenTelemetryConfig {
            grpc_service: Some(core::GrpcService { target_specifier: Some(target), ..Default::default() }),
            service_name: self.service.clone(),
            ..Default::default()
        };
        pb::tracing::Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(pb::tracing::http::ConfigType::TypedConfig(convert::any(&config))),
        }
    }

    fn decode(value: &pb::tracing::Http, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use core::grpc_service::TargetSpecifier as T;
        let path = path.field("typed_config");
        let Some(pb::tracing::http::ConfigType::TypedConfig(any)) = &value.config_type else {
            return Err(path.error("is required"));
        };
        if any.type_url != pb::OpenTelemetryConfig::type_url() {
            return Err(path.error(format!(
                "tracer '{}' ({}) is not supported; supported is envoy.tracers.opentelemetry over gRPC",
                value.name, any.type_url
            )));
        }
        let config: pb::OpenTelemetryConfig = convert::from_any(any, &path)?;
        audit!(&config, pb::OpenTelemetryConfig as pb::OpenTelemetryConfig, audit, &path;
            supported: grpc_service, service_name;
            ignored: resource_detectors, max_cache_size, set_telemetry_sdk_resource_attributes,
                set_service_name_resource_attribute, set_instrumentation_scope;
            refused: http_service, exporter, sampler);
        let grpc = path.field("grpc_service");
        let service = config.grpc_service.as_ref().and_then(|s| s.target_specifier.as_ref());
        let (cluster, address) = match service {
            Some(T::EnvoyGrpc(to)) => (to.cluster_name.clone(), String::new()),
            Some(T::GoogleGrpc(to)) => (String::new(), to.target_uri.trim_start_matches("dns:///").to_owned()),
            None => return Err(grpc.error("needs envoy_grpc or google_grpc")),
        };
        let service =
            if config.service_name.is_empty() { "unknown_service:envoy".to_owned() } else { config.service_name };
        Ok(Self { service, cluster, address })
    }
}
