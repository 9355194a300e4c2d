//! The HTTP connection manager: how connections of a listener are read and which routes they use.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as pb_router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use prost::Name as _;

use serin_http1::Codec;

use crate::access_log::AccessLog;
use crate::convert;
use crate::http_filter::HttpFilter;
use crate::local_reply::LocalReplyConfig;
use crate::network::Network;
use crate::route::RouteConfiguration;
use crate::tracing::Tracing;
use crate::{Audit, Error, Path};

/// The HTTP settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// The protocols that clients may use.
    pub codec: DownstreamCodec,
    /// The source of the routes.
    pub routes: RouteSource,
    /// The filters before the router, in their order.
    pub filters: Vec<HttpFilter>,
    /// The logs of requests.
    pub access_logs: Vec<AccessLog>,
    /// Timers.
    pub timeouts: Timeouts,
    /// Path normalisation.
    pub path: PathOptions,
    /// True when the peer is the client (an edge) rather than another proxy.
    pub use_remote_address: bool,
    /// True when `x-request-id` is made when absent.
    pub generate_request_id: bool,
    /// Value of the `server` response header; `None` leaves the upstream's.
    pub server_name: Option<String>,
    /// True when an upstream's `server` header stays all the same.
    pub server_if_absent: bool,
    /// The normalisation of clients' authorities.
    pub authority: AuthorityOptions,
    /// The trust in the addresses and ids that clients send.
    pub trust: Trust,
    /// True when the request id is sent to the client.
    pub request_id_in_response: bool,
    /// A pseudonym for `via`; empty is none.
    pub via: String,
    /// True when no `x-envoy-*` headers are added.
    pub suppress_envoy_headers: bool,
    /// True when `Upgrade: websocket` is passed on.
    pub websocket: bool,
    /// The requests that are traced, if any.
    pub tracing: Option<Tracing>,
    /// Changes to local replies.
    pub local_replies: LocalReplyConfig,
}

/// The codec that clients must use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DownstreamCodec {
    /// HTTP/2 when the connection starts with its preface, else HTTP/1.
    #[default]
    Auto,
    /// This one only.
    Fixed(Codec),
}

/// The source of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// RDS, by name.
    Rds(String),
    /// The listener itself.
    Inline(RouteConfiguration),
}

/// Timers; zero switches one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connection without a request.
    pub idle: Duration,
    /// Stream without a byte.
    pub stream_idle: Duration,
    /// From the first byte of a request to its last.
    pub request: Duration,
    /// From the first byte of a request to the end of its head.
    pub request_headers: Duration,
    /// From head to end of a stream.
    pub max_stream: Duration,
}

/// The normalisation of clients' authorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthorityOptions {
    /// The ports that are removed.
    pub strip_port: StripPort,
    /// True when a dot at the end is taken off.
    pub strip_dot: bool,
}

/// The ports that are removed from an authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}

/// The trust in the addresses and ids that clients send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Proxies in front of this one, whose entries at the end of `x-forwarded-for` are true.
    pub hops: u32,
    /// True when the peer is left out of `x-forwarded-for`.
    pub skip_append: bool,
    /// Networks whose clients are internal.
    pub internal: Vec<Network>,
    /// True when a request id from outside is kept.
    pub keep_request_id: bool,
}

/// Path normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathOptions {
    /// Resolve dot segments.
    pub normalise: bool,
    /// Merge slashes.
    pub merge_slashes: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            stream_idle: Duration::from_secs(300),
            request: Duration::ZERO,
            request_headers: Duration::from_secs(10),
            max_stream: Duration::ZERO,
        }
    }
}

impl HttpConnectionManager {
    /// A manager with every setting at its default.
    #[must_use]
    pub fn new(stat_prefix: impl Into<String>, routes: RouteSource) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            codec: DownstreamCodec::Auto,
            routes,
            filters: vec![HttpFilter::fault()],
            access_logs: Vec::new(),
            timeouts: Timeouts::default(),
            path: PathOptions { normalise: true, merge_slashes: false },
            use_remote_address: false,
            generate_request_id: true,
            server_name: None,
            server_if_absent: false,
            authority: AuthorityOptions::default(),
            trust: Trust::default(),
            request_id_in_response: false,
            via: String::new(),
            suppress_envoy_headers: false,
            websocket: false,
            tracing: None,
            local_replies: LocalReplyConfig::default(),
        }
    }

    pub(crate) fn decode(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::HttpConnectionManager as pb::HttpConnectionManager, audit, path;
            supported: codec_type, stat_prefix, http_filters, common_http_protocol_options, http_protocol_options,
                http2_protocol_options, server_name, server_header_transformation, stream_idle_timeout, request_timeout,
                request_headers_timeout, access_log, use_remote_address, generate_request_id, upgrade_configs,
                normalize_path, merge_slashes, route_specifier, strip_matching_host_port, strip_trailing_host_dot,
                strip_port_mode, xff_num_trusted_hops, skip_xff_append, via, preserve_external_request_id,
                always_set_request_id_in_response, internal_address_config, tracing, local_reply_config;
            ignored: add_user_agent, http1_safe_max_connection_duration, http3_protocol_options,
                scheme_header_transformation, max_request_headers_kb, stream_flush_timeout, drain_timeout,
                drain_timeout_jitter, delayed_close_timeout, access_log_flush_interval, flush_access_log_on_new_request,
                access_log_options, set_current_client_cert_details, proxy_100_continue,
                represent_ipv4_remote_address_as_ipv4_mapped_ipv6, request_id_extension, stream_error_on_invalid_http_message,
                proxy_status_config, append_x_forwarded_port, append_local_overload, add_proxy_protocol_connection_state,
                forward_proto_config;
            refused: original_ip_detection_extensions, early_header_mutation_extensions, forward_client_cert_details,
                forward_client_cert_matcher, path_with_escaped_slashes_action,
                path_normalization_options, typed_header_validation_config);
        let mut manager = Self::new(value.stat_prefix.clone(), route_source(value, audit, path)?);
        manager.codec = match value.codec_type {
            0 => DownstreamCodec::Auto,
            1 => DownstreamCodec::Fixed(Codec::Http1),
            2 => DownstreamCodec::Fixed(Codec::Http2),
            _ => return Err(path.field("codec_type").error("HTTP3 is not supported")),
        };
        if let Some(common) = &value.common_http_protocol_options {
            convert::audit_common_options(common, audit, &path.field("common_http_protocol_options"))?;
        }
        if let Some(http1) = &value.http_protocol_options {
            convert::audit_http1_options(http1, audit, &path.field("http_protocol_options"))?;
        }
        if let Some(http2) = &value.http2_protocol_options {
            convert::audit_http2_options(http2, audit, &path.field("http2_protocol_options"))?;
        }
        manager.filters = filters(value, &mut manager.suppress_envoy_headers, audit, path)?;
        manager.timeouts = timeouts(value, path)?;
        manager.path = PathOptions {
            normalise: value.normalize_path.as_ref().is_none_or(|v| v.value),
            merge_slashes: value.merge_slashes,
        };
        manager.use_remote_address = value.use_remote_address.as_ref().is_some_and(|v| v.value);
        manager.generate_request_id = value.generate_request_id.as_ref().is_none_or(|v| v.value);
        manager.server_if_absent = value.server_header_transformation == 1;
        manager.authority = authority(value);
        manager.trust = trust(value, &path.field("internal_address_config"))?;
        manager.request_id_in_response = value.always_set_request_id_in_response;
        manager.via = value.via.clone();
        let tracing = value.tracing.as_ref().map(|t| Tracing::decode(t, audit, &path.field("tracing")));
        manager.tracing = tracing.transpose()?.flatten();
        let replies = value.local_reply_config.as_ref();
        let replies = replies.map(|c| LocalReplyConfig::decode(c, audit, &path.field("local_reply_config")));
        manager.local_replies = replies.transpose()?.unwrap_or_default();
        manager.server_name = match value.server_header_transformation {
            2 => None,
            _ if value.server_name.is_empty() => Some("serin".to_owned()),
            _ => Some(value.server_name.clone()),
        };
        manager.websocket = value
            .upgrade_configs
            .iter()
            .any(|u| u.upgrade_type.eq_ignore_ascii_case("websocket") && u.enabled.as_ref().is_none_or(|e| e.value));
        let log_path = path.field("access_log");
        for (i, log) in value.access_log.iter().enumerate() {
            manager.access_logs.push(AccessLog::decode(log, audit, &log_path.index(i))?);
        }
        Ok(manager)
    }

    pub(crate) fn encode(&self) -> pb::HttpConnectionManager {
        use pb::http_connection_manager::{InternalAddressConfig, RouteSpecifier, StripPortMode, UpgradeConfig};
        let filters = self.filters.iter().map(HttpFilter::encode);
        let router = filter(
            "envoy.filters.http.router",
            convert::any(&pb_router::Router {
                suppress_envoy_headers: self.suppress_envoy_headers,
                ..Default::default()
            }),
        );
        pb::HttpConnectionManager {
            stat_prefix: self.stat_prefix.clone(),
            codec_type: match self.codec {
                DownstreamCodec::Auto => 0,
                DownstreamCodec::Fixed(Codec::Http1) => 1,
                DownstreamCodec::Fixed(Codec::Http2) => 2,
            },
            http_filters: filters.chain([router]).collect(),
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: Some(convert::proto_duration(self.timeouts.idle)),
                max_stream_duration: (!self.timeouts.max_stream.is_zero())
                    .then(|| convert::proto_duration(self.timeouts.max_stream)),
                ..Default::default()
            }),
            server_header_transformation: match (&self.server_name, self.server_if_absent) {
                (None, _) => 2,
                (Some(_), true) => 1,
                (Some(_), false) => 0,
            },
            via: self.via.clone(),
            xff_num_trusted_hops: self.trust.hops,
            skip_xff_append: self.trust.skip_append,
            preserve_external_request_id: self.trust.keep_request_id,
            always_set_request_id_in_response: self.request_id_in_response,
            server_name: self.server_name.clone().unwrap_or_default(),
            stream_idle_timeout: Some(convert::proto_duration(self.timeouts.stream_idle)),
            request_timeout: Some(convert::proto_duration(self.timeouts.request)),
            request_headers_timeout: Some(convert::proto_duration(self.timeouts.request_headers)),
            use_remote_address: Some(convert::wrap_bool(self.use_remote_address)),
            generate_request_id: Some(convert::wrap_bool(self.generate_request_id)),
            normalize_path: Some(convert::wrap_bool(self.path.normalise)),
            merge_slashes: self.path.merge_slashes,
            strip_matching_host_port: self.authority.strip_port == StripPort::Matching,
            strip_port_mode: (self.authority.strip_port == StripPort::Any)
                .then_some(StripPortMode::StripAnyHostPort(true)),
            strip_trailing_host_dot: self.authority.strip_dot,
            internal_address_config: (!self.trust.internal.is_empty()).then(|| InternalAddressConfig {
                cidr_ranges: self.trust.internal.iter().map(Network::encode).collect(),
                ..Default::default()
            }),
            access_log: self.access_logs.iter().map(AccessLog::encode).collect(),
            tracing: self.tracing.as_ref().map(Tracing::encode),
            local_reply_config: (self.local_replies != LocalReplyConfig::default())
                .then(|| self.local_replies.encode()),
            upgrade_configs: self
                .websocket
                .then(|| UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() })
                .into_iter()
                .collect(),
            route_specifier: Some(match &self.routes {
                RouteSource::Rds(name) => RouteSpecifier::Rds(pb::Rds {
                    config_source: Some(convert::ads()),
                    route_config_name: name.clone(),
                }),
                RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(routes.to_proto()),
            }),
            ..Default::default()
        }
    }
}

fn authority(value: &pb::HttpConnectionManager) -> AuthorityOptions {
    use pb::http_connection_manager::StripPortMode;
    AuthorityOptions {
        strip_port: match value.strip_port_mode {
            Some(StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
            _ if value.strip_matching_host_port => StripPort::Matching,
            _ => StripPort::Never,
        },
        strip_dot: value.strip_trailing_host_dot,
    }
}

fn trust(value: &pb::HttpConnectionManager, path: &Path<'_>) -> Result<Trust, Error> {
    let ranges = value.internal_address_config.as_ref().map(|c| c.cidr_ranges.as_slice()).unwrap_or_default();
    Ok(Trust {
        hops: value.xff_num_trusted_hops,
        skip_append: value.skip_xff_append,
        internal: ranges.iter().map(|r| Network::decode(r, path)).collect::<Result<_, _>>()?,
        keep_request_id: value.preserve_external_request_id,
    })
}

fn filter(name: &str, config: envoy_types::pb::google::protobuf::Any) -> pb::HttpFilter {
    pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(pb::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn route_source(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<RouteSource, Error> {
    use pb::http_connection_manager::RouteSpecifier as R;
    match &value.route_specifier {
        Some(R::Rds(rds)) => {
            convert::require_ads(rds.config_source.as_ref(), &path.field("rds").field("config_source"))?;
            Ok(RouteSource::Rds(rds.route_config_name.clone()))
        }
        Some(R::RouteConfig(routes)) => {
            let path = path.field("route_config");
            let routes = RouteConfiguration::from_proto(routes, audit, &path)?;
            // Nobody would ask for them: VHDS belongs to a route configuration that discovery gave.
            if routes.has_vhds { Err(Audit::refuse(&path, "vhds")) } else { Ok(RouteSource::Inline(routes)) }
        }
        Some(R::ScopedRoutes(_)) => Err(Audit::refuse(path, "scoped_routes")),
        None => Err(path.error("needs rds or route_config")),
    }
}

/// The filters in their order; the router is the last.
fn filters(
    value: &pb::HttpConnectionManager,
    suppress: &mut bool,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Vec<HttpFilter>, Error> {
    let path = path.field("http_filters");
    let mut found = Vec::new();
    for (i, item) in value.http_filters.iter().enumerate() {
        let here = path.index(i);
        let any = match &item.config_type {
            Some(pb::http_filter::ConfigType::TypedConfig(any)) => any,
            Some(pb::http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(Audit::refuse(&here, "config_discovery"));
            }
            None => return Err(here.field("typed_config").error("is required")),
        };
        let last = i + 1 == value.http_filters.len();
        if any.type_url == pb_router::Router::type_url() {
            if !last {
                return Err(here.error("the router must be the last filter"));
            }
            let config: pb_router::Router = convert::from_any(any, &here)?;
            *suppress = router(&config, audit, &here)?;
        } else if last {
            return Err(here.error("the last filter must be the router"));
        } else if let Some(filter) = HttpFilter::decode(item, any, audit, &here)? {
            found.push(filter);
        }
    }
    Ok(found)
}

/// Reads the router filter; true when no `x-envoy-*` headers are added.
fn router(value: &pb_router::Router, audit: &mut Audit, path: &Path<'_>) -> Result<bool, Error> {
    audit!(value, pb_router::Router as pb_router::Router, audit, path;
        supported: suppress_envoy_headers;
        ignored: dynamic_stats, start_child_span, upstream_log, upstream_log_options, strict_check_headers,
            respect_expected_rq_timeout, suppress_grpc_request_failure_code_stats, reject_connect_request_early_data;
        refused: upstream_http_filters);
    Ok(value.suppress_envoy_headers)
}

fn timeouts(value: &pb::HttpConnectionManager, path: &Path<'_>) -> Result<Timeouts, Error> {
    let defaults = Timeouts::default();
    let idle = value.common_http_protocol_options.as_ref().and_then(|o| o.idle_timeout.as_ref());
    let read = |field: &'static str, v: Option<&envoy_types::pb::google::protobuf::Duration>, default| {
        convert::optional_duration(v, &path.field(field)).map(|d| d.unwrap_or(default))
    };
    let common = value.common_http_protocol_options.as_ref();
    let max_stream = common.and_then(|o| o.max_stream_duration.as_ref());
    Ok(Timeouts {
        max_stream: read("max_stream_duration", max_stream, defaults.max_stream)?,
        idle: read("idle_timeout", idle, defaults.idle)?,
        stream_idle: read("stream_idle_timeout", value.stream_idle_timeout.as_ref(), defaults.stream_idle)?,
        request: read("request_timeout", value.request_timeout.as_ref(), defaults.request)?,
        request_headers: read(
            "request_headers_timeout",
            value.request_headers_timeout.as_ref(),
            defaults.request_headers,
        )?,
    })
}
