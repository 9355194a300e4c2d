//! From the protobuf of the HTTP connection manager.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as pb_router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use prost::Name as _;
use serin_http1::Codec;

use super::*;
use crate::convert;
use crate::header::Mutation;
use crate::{Audit, Error, Path};

impl HttpConnectionManager {
    pub(crate) fn decode(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::HttpConnectionManager as pb::HttpConnectionManager, audit, path;
            supported: codec_type, stat_prefix, http_filters, common_http_protocol_options, http_protocol_options,
                http2_protocol_options, server_name, server_header_transformation, stream_idle_timeout, request_timeout,
                request_headers_timeout, access_log, use_remote_address, generate_request_id, upgrade_configs,
                normalize_path, merge_slashes, route_specifier, strip_matching_host_port, strip_trailing_host_dot,
                strip_port_mode, xff_num_trusted_hops, skip_xff_append, via, preserve_external_request_id,
                always_set_request_id_in_response, internal_address_config, tracing, local_reply_config, max_request_headers_kb,
                path_with_escaped_slashes_action, add_user_agent, append_x_forwarded_port,
                original_ip_detection_extensions, early_header_mutation_extensions, forward_client_cert_details,
                set_current_client_cert_details, scheme_header_transformation, access_log_options,
                flush_access_log_on_new_request, stream_error_on_invalid_http_message;
            ignored: http1_safe_max_connection_duration, http3_protocol_options,
                stream_flush_timeout, drain_timeout,
                drain_timeout_jitter, delayed_close_timeout, access_log_flush_interval, proxy_100_continue,
                represent_ipv4_remote_address_as_ipv4_mapped_ipv6, request_id_extension,
                proxy_status_config, append_local_overload, add_proxy_protocol_connection_state,
                forward_proto_config;
            refused: forward_client_cert_matcher,
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
            manager.http1 = Http1Options::decode(http1, audit, &path.field("http_protocol_options"))?;
        }
        if let Some(http2) = &value.http2_protocol_options {
            manager.http2 = Http2Options::decode(http2, audit, &path.field("http2_protocol_options"))?;
        }
        let (filters, router) = filters(&value.http_filters, audit, path, "http_filters")?;
        if let Some(router) = router {
            manager.take_router(&router, audit, path)?;
        }
        manager.filters = filters;
        manager.upgrades = Upgrade::decode_all(&value.upgrade_configs, audit, path, |config, audit, path| {
            Ok(self::filters(&config.filters, audit, path, "filters")?.0)
        })?;
        manager.timeouts = timeouts(value, path)?;
        manager.path = PathOptions {
            normalise: value.normalize_path.as_ref().is_none_or(|v| v.value),
            merge_slashes: value.merge_slashes,
            escaped_slashes: match value.path_with_escaped_slashes_action {
                0 | 1 => EscapedSlashes::Keep,
                2 => EscapedSlashes::Reject,
                3 => EscapedSlashes::Redirect,
                4 => EscapedSlashes::Forward,
                _ => return Err(path.field("path_with_escaped_slashes_action").error("is not known")),
            },
        };
        manager.limits(value, path)?;
        manager.keeps_after_error = value.stream_error_on_invalid_http_message.as_ref().is_some_and(|v| v.value);
        manager.log_moments = log_moments(value, audit, path);
        manager.client(value, audit, path)?;
        manager.generate_request_id = value.generate_request_id.as_ref().is_none_or(|v| v.value);
        manager.server_if_absent = value.server_header_transformation == 1;
        manager.authority = authority(value);
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
        let log_path = path.field("access_log");
        for (i, log) in value.access_log.iter().enumerate() {
            manager.access_logs.push(AccessLog::decode(log, audit, &log_path.index(i))?);
        }
        Ok(manager)
    }

    /// Decodes the limits of heads and connections.
    /// What is believed and said of clients.
    fn client(&mut self, value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<(), Error> {
        self.add_user_agent = value.add_user_agent.as_ref().is_some_and(|v| v.value);
        self.append_forwarded_port = value.append_x_forwarded_port;
        self.scheme = scheme(value.scheme_header_transformation.as_ref(), audit, path)?;
        self.client_certificate = ClientCertificate::decode(value, audit, path)?;
        self.early_mutations = early_mutations(value, audit, path)?;
        self.use_remote_address = value.use_remote_address.as_ref().is_some_and(|v| v.value);
        self.trust = trust(value, audit, path)?;
        Ok(())
    }

    fn limits(&mut self, value: &pb::HttpConnectionManager, path: &Path<'_>) -> Result<(), Error> {
        self.heads = heads(value, path)?;
        let common = value.common_http_protocol_options.as_ref();
        self.max_requests_per_connection =
            common.and_then(|c| c.max_requests_per_connection.as_ref()).map(|v| v.value).filter(|n| *n > 0);
        let duration = common.and_then(|c| c.max_connection_duration.as_ref());
        self.max_connection_duration =
            convert::optional_duration(duration, &path.field("max_connection_duration"))?.unwrap_or_default();
        Ok(())
    }
}

fn log_moments(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> LogMoments {
    let Some(options) = &value.access_log_options else {
        return LogMoments { start: value.flush_access_log_on_new_request, tunnel: false };
    };
    if options.access_log_flush_interval.is_some() {
        audit.ignore(&path.field("access_log_options"), "access_log_flush_interval");
    }
    LogMoments {
        start: options.flush_access_log_on_new_request,
        tunnel: options.flush_log_on_tunnel_successfully_established,
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

fn heads(value: &pb::HttpConnectionManager, path: &Path<'_>) -> Result<HeadOptions, Error> {
    let defaults = HeadOptions::default();
    let kib = value.max_request_headers_kb.as_ref().map_or(defaults.kib, |v| v.value);
    if !(1..=8192).contains(&kib) {
        return Err(path.field("max_request_headers_kb").error("must be 1 to 8192"));
    }
    let common = value.common_http_protocol_options.as_ref();
    let fields = common.and_then(|c| c.max_headers_count.as_ref()).map_or(defaults.fields, |v| v.value);
    let path = path.field("common_http_protocol_options");
    if fields == 0 {
        return Err(path.field("max_headers_count").error("must be at least 1"));
    }
    let underscores = match common.map_or(0, |c| c.headers_with_underscores_action) {
        0 => Underscores::Allow,
        1 => Underscores::Reject,
        2 => Underscores::Drop,
        _ => return Err(path.field("headers_with_underscores_action").error("is not known")),
    };
    Ok(HeadOptions { kib, fields, underscores })
}

fn scheme(
    value: Option<&core::SchemeHeaderTransformation>,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<Scheme>, Error> {
    use core::scheme_header_transformation::Transformation as T;
    let Some(value) = value else { return Ok(None) };
    let path = path.field("scheme_header_transformation");
    if value.match_upstream {
        audit.ignore(&path, "match_upstream");
    }
    match value.transformation.as_ref() {
        None => Ok(None),
        Some(T::SchemeToOverwrite(scheme)) if scheme == "http" => Ok(Some(Scheme::Http)),
        Some(T::SchemeToOverwrite(scheme)) if scheme == "https" => Ok(Some(Scheme::Https)),
        Some(T::SchemeToOverwrite(_)) => Err(path.field("scheme_to_overwrite").error("is neither http nor https")),
    }
}

fn early_mutations(
    value: &pb::HttpConnectionManager,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Vec<Mutation>, Error> {
    use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
    let path = path.field("early_header_mutation_extensions");
    let decode = |(i, extension): (usize, &core::TypedExtensionConfig)| {
        let here = path.index(i);
        let Some(any) = extension.typed_config.as_ref().filter(|any| any.type_url == HeaderMutation::type_url()) else {
            return Err(here.error(format!("'{}' is not supported", extension.name)));
        };
        let here = here.field("typed_config");
        let mutation: HeaderMutation = convert::from_any(any, &here)?;
        audit!(&mutation, HeaderMutation as HeaderMutation, audit, &here;
            supported: mutations; ignored: ; refused: );
        Mutation::decode_all(&mutation.mutations, &here.field("mutations"))
    };
    let extensions: Vec<_> =
        value.early_header_mutation_extensions.iter().enumerate().map(decode).collect::<Result<_, _>>()?;
    Ok(extensions.concat())
}

fn trust(value: &pb::HttpConnectionManager, audit: &mut Audit, path: &Path<'_>) -> Result<Trust, Error> {
    let detection = AddressDetection::decode_all(value, audit, path)?;
    let path = path.field("internal_address_config");
    let ranges = value.internal_address_config.as_ref().map(|c| c.cidr_ranges.as_slice()).unwrap_or_default();
    Ok(Trust {
        hops: value.xff_num_trusted_hops,
        skip_append: value.skip_xff_append,
        internal: ranges.iter().map(|r| Network::decode(r, &path)).collect::<Result<_, _>>()?,
        keep_request_id: value.preserve_external_request_id,
        detection,
    })
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
    values: &[pb::HttpFilter],
    audit: &mut Audit,
    path: &Path<'_>,
    field: &str,
) -> Result<(Vec<HttpFilter>, Option<pb_router::Router>), Error> {
    let path = path.field(field);
    let mut found = Vec::new();
    let mut router = None;
    for (i, item) in values.iter().enumerate() {
        let here = path.index(i);
        let any = match &item.config_type {
            Some(pb::http_filter::ConfigType::TypedConfig(any)) => any,
            Some(pb::http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(Audit::refuse(&here, "config_discovery"));
            }
            None => return Err(here.field("typed_config").error("is required")),
        };
        let last = i + 1 == values.len();
        if any.type_url == pb_router::Router::type_url() {
            if !last {
                return Err(here.error("the router must be the last filter"));
            }
            router = Some(convert::from_any(any, &here)?);
        } else if last {
            return Err(here.error("the last filter must be the router"));
        } else if let Some(filter) = HttpFilter::decode(item, any, audit, &here)? {
            found.push(filter);
        }
    }
    Ok((found, router))
}

impl HttpConnectionManager {
    /// Takes the settings of the router filter.
    fn take_router(&mut self, value: &pb_router::Router, audit: &mut Audit, path: &Path<'_>) -> Result<(), Error> {
        let path = &path.field("http_filters");
        audit!(value, pb_router::Router as pb_router::Router, audit, path;
        supported: suppress_envoy_headers, strict_check_headers, respect_expected_rq_timeout, reject_connect_request_early_data;
        ignored: dynamic_stats, start_child_span, upstream_log, upstream_log_options, suppress_grpc_request_failure_code_stats;
        refused: upstream_http_filters);
        self.rejects_early_data = value.reject_connect_request_early_data.as_ref().is_some_and(|v| v.value);
        self.suppress_envoy_headers = value.suppress_envoy_headers;
        self.respect_expected_timeout = value.respect_expected_rq_timeout;
        for (i, name) in value.strict_check_headers.iter().enumerate() {
            let known = StrictHeader::ALL.into_iter().find(|header| header.name().eq_ignore_ascii_case(name));
            let here = path.field("strict_check_headers");
            self.strict_headers.push(known.ok_or_else(|| here.index(i).error("is no header that can be checked"))?);
        }
        Ok(())
    }
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
