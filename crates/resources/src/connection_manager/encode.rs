//! To the protobuf of the HTTP connection manager.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as pb_router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use serin_http1::Codec;

use super::*;
use crate::convert;

impl HttpConnectionManager {
    fn router(&self) -> pb::HttpFilter {
        filter(
            "envoy.filters.http.router",
            convert::any(&pb_router::Router {
                suppress_envoy_headers: self.suppress_envoy_headers,
                reject_connect_request_early_data: self.rejects_early_data.then(|| convert::wrap_bool(true)),
                respect_expected_rq_timeout: self.respect_expected_timeout,
                strict_check_headers: self.strict_headers.iter().map(|header| header.name().to_owned()).collect(),
                ..Default::default()
            }),
        )
    }

    pub(crate) fn encode(&self) -> pb::HttpConnectionManager {
        use pb::http_connection_manager::{InternalAddressConfig, RouteSpecifier, StripPortMode};
        let filters = self.filters.iter().map(HttpFilter::encode);
        let router = self.router();
        let defaults = HeadOptions::default();
        pb::HttpConnectionManager {
            stat_prefix: self.stat_prefix.clone(),
            codec_type: match self.codec {
                DownstreamCodec::Auto => 0,
                DownstreamCodec::Fixed(Codec::Http1) => 1,
                DownstreamCodec::Fixed(Codec::Http2) => 2,
            },
            http_filters: filters.chain([router.clone()]).collect(),
            common_http_protocol_options: Some(self.encode_common()),
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
            path_with_escaped_slashes_action: match self.path.escaped_slashes {
                EscapedSlashes::Keep => 0,
                EscapedSlashes::Reject => 2,
                EscapedSlashes::Redirect => 3,
                EscapedSlashes::Forward => 4,
            },
            max_request_headers_kb: changed(self.heads.kib, defaults.kib),
            add_user_agent: self.add_user_agent.then(|| convert::wrap_bool(true)),
            append_x_forwarded_port: self.append_forwarded_port,
            original_ip_detection_extensions: self.trust.detection.iter().map(AddressDetection::encode).collect(),
            early_header_mutation_extensions: encode_early(&self.early_mutations),
            scheme_header_transformation: self.scheme.map(encode_scheme),
            forward_client_cert_details: self.client_certificate.encode_mode(),
            set_current_client_cert_details: self.client_certificate.encode_details(),
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
            upgrade_configs: self.upgrades.iter().map(|upgrade| upgrade.encode(&router)).collect(),
            access_log_options: (self.log_moments != LogMoments::default()).then_some(
                pb::http_connection_manager::HcmAccessLogOptions {
                    flush_access_log_on_new_request: self.log_moments.start,
                    flush_log_on_tunnel_successfully_established: self.log_moments.tunnel,
                    ..Default::default()
                },
            ),
            stream_error_on_invalid_http_message: self.keeps_after_error.then(|| convert::wrap_bool(true)),
            http_protocol_options: self.http1.said(),
            http2_protocol_options: self.http2.said(),
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

    fn encode_common(&self) -> core::HttpProtocolOptions {
        core::HttpProtocolOptions {
            idle_timeout: Some(convert::proto_duration(self.timeouts.idle)),
            max_stream_duration: (!self.timeouts.max_stream.is_zero())
                .then(|| convert::proto_duration(self.timeouts.max_stream)),
            max_connection_duration: (!self.max_connection_duration.is_zero())
                .then(|| convert::proto_duration(self.max_connection_duration)),
            max_requests_per_connection: self.max_requests_per_connection.map(convert::wrap_u32),
            max_headers_count: changed(self.heads.fields, HeadOptions::default().fields),
            headers_with_underscores_action: self.heads.underscores as i32,
            ..Default::default()
        }
    }
}

fn encode_scheme(scheme: Scheme) -> core::SchemeHeaderTransformation {
    use core::scheme_header_transformation::Transformation as T;
    let transformation = Some(T::SchemeToOverwrite(scheme.as_str().to_owned()));
    core::SchemeHeaderTransformation { transformation, ..Default::default() }
}

/// One extension for all changes: those of several are made one after the other, too.
fn encode_early(mutations: &[Mutation]) -> Vec<core::TypedExtensionConfig> {
    use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
    if mutations.is_empty() {
        return Vec::new();
    }
    vec![core::TypedExtensionConfig {
        name: "envoy.http.early_header_mutation.header_mutation".to_owned(),
        typed_config: Some(convert::any(&HeaderMutation { mutations: Mutation::encode_all(mutations) })),
    }]
}

fn filter(name: &str, config: envoy_types::pb::google::protobuf::Any) -> pb::HttpFilter {
    pb::HttpFilter {
        name: name.to_owned(),
        config_type: Some(pb::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A value that is said, because it is another than without a word.
fn changed(value: u32, default: u32) -> Option<envoy_types::pb::google::protobuf::UInt32Value> {
    (value != default).then(|| convert::wrap_u32(value))
}
