//! To the protobufs of `envoy.config.route.v3`.
#![expect(
    deprecated,
    reason = "gRPC timeouts are said in the older fields, as Istio does: the newer ones switch the route's timeout off"
)]

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use prost::Message as _;

use super::*;
use crate::convert;
use crate::http_filter;

impl RouteConfiguration {
    /// The bytes of an RDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub(crate) fn to_proto(&self) -> pb::RouteConfiguration {
        pb::RouteConfiguration {
            name: self.name.clone(),
            virtual_hosts: self.virtual_hosts.iter().map(virtual_host).collect(),
            vhds: self.has_vhds.then(|| pb::Vhds { config_source: Some(convert::ads()) }),
            request_headers_to_add: self.request_headers.encode_add(),
            request_headers_to_remove: self.request_headers.remove.clone(),
            response_headers_to_add: self.response_headers.encode_add(),
            response_headers_to_remove: self.response_headers.remove.clone(),
            validate_clusters: Some(convert::wrap_bool(false)),
            ignore_port_in_host_matching: self.ignore_port_in_host_matching,
            ignore_path_parameters_in_path_matching: self.ignore_path_parameters,
            most_specific_header_mutations_wins: self.most_specific_edits_win,
            request_mirror_policies: self.mirrors.iter().map(Mirror::encode).collect(),
            internal_only_headers: self.internal_only_headers.clone(),
            max_direct_response_body_size_bytes: Some(convert::wrap_u32(1 << 20)),
            typed_per_filter_config: http_filter::encode_per_route(&self.filters),
            ..Default::default()
        }
    }
}

/// Adds encoded virtual hosts to an encoded route configuration.
#[must_use]
pub fn append_virtual_hosts<'a>(mut routes: Vec<u8>, virtual_hosts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    for host in virtual_hosts {
        // `repeated VirtualHost virtual_hosts = 2`: the fields of a message stand in any order.
        prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, &mut routes);
        prost::encoding::encode_varint(host.len() as u64, &mut routes);
        routes.extend_from_slice(host);
    }
    routes
}

impl VirtualHost {
    /// The bytes of a VHDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        virtual_host(self).encode_to_vec()
    }
}

fn virtual_host(host: &VirtualHost) -> pb::VirtualHost {
    pb::VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host.routes.iter().map(route).collect(),
        require_tls: match host.require_tls {
            RequireTls::No => pb::virtual_host::TlsRequirementType::None,
            RequireTls::External => pb::virtual_host::TlsRequirementType::ExternalOnly,
            RequireTls::All => pb::virtual_host::TlsRequirementType::All,
        } as i32,
        request_headers_to_add: host.request_headers.encode_add(),
        request_headers_to_remove: host.request_headers.remove.clone(),
        response_headers_to_add: host.response_headers.encode_add(),
        response_headers_to_remove: host.response_headers.remove.clone(),
        retry_policy: host.retry.as_ref().map(RetryPolicy::encode),
        typed_per_filter_config: http_filter::encode_per_route(&host.filters),
        include_request_attempt_count: host.include_attempt_count,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
        request_mirror_policies: host.mirrors.iter().map(Mirror::encode).collect(),
        hedge_policy: host.hedge.then(|| hedge(true)),
        per_request_buffer_limit_bytes: host.buffers.per_request.map(convert::wrap_u32),
        request_body_buffer_limit: host.buffers.of_body.map(convert::wrap_u64),
        metadata: convert::proto_own(None, "outdated", Some(host.outdated.as_str()).filter(|text| !text.is_empty())),
        ..Default::default()
    }
}

fn hedge(on: bool) -> pb::HedgePolicy {
    pb::HedgePolicy { hedge_on_per_try_timeout: on, ..Default::default() }
}

/// As `route/decode` reads it.
fn comparison(value: &Comparison) -> core::Metadata {
    use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
    let value_of = |kind| Value { kind: Some(kind) };
    let list = |texts: &[String]| {
        value_of(Kind::ListValue(ListValue {
            values: texts.iter().map(|text| value_of(Kind::StringValue(text.clone()))).collect(),
        }))
    };
    let fields = [
        ("compare".to_owned(), value_of(Kind::BoolValue(true))),
        ("headers".to_owned(), list(&value.headers)),
        ("ignore_json_paths".to_owned(), list(&value.ignored)),
    ];
    let config = Struct { fields: convert::in_order(fields) };
    core::Metadata { filter_metadata: [("serin.mirror".to_owned(), config)].into(), ..Default::default() }
}

fn route(route: &Route) -> pb::Route {
    pb::Route {
        per_request_buffer_limit_bytes: route.buffers.per_request.map(convert::wrap_u32),
        request_body_buffer_limit: route.buffers.of_body.map(convert::wrap_u64),
        name: route.name.clone(),
        r#match: Some(route_match(&route.matches)),
        action: Some(match &route.action {
            Action::Forward(f) => pb::route::Action::Route(forward(f)),
            Action::Redirect(r) => pb::route::Action::Redirect(redirect(r)),
            Action::Respond(r) => pb::route::Action::DirectResponse(respond(r)),
        }),
        request_headers_to_add: route.request_headers.encode_add(),
        request_headers_to_remove: route.request_headers.remove.clone(),
        response_headers_to_add: route.response_headers.encode_add(),
        response_headers_to_remove: route.response_headers.remove.clone(),
        typed_per_filter_config: http_filter::encode_per_route(&route.filters),
        metadata: match &route.action {
            Action::Forward(forward) => forward.comparison.as_ref().map(comparison),
            Action::Redirect(_) | Action::Respond(_) => None,
        },
        ..Default::default()
    }
}

fn route_match(value: &RouteMatch) -> pb::RouteMatch {
    use pb::route_match::PathSpecifier as P;
    let specifier = match &value.path {
        PathMatch::Exact(p) => P::Path(p.clone()),
        PathMatch::Prefix(p) => P::Prefix(p.clone()),
        PathMatch::PathPrefix(p) => P::PathSeparatedPrefix(p.clone()),
        PathMatch::Regex(r) => P::SafeRegex(crate::matcher::proto_regex(r)),
        PathMatch::Connect => P::ConnectMatcher(pb::route_match::ConnectMatcher {}),
    };
    pb::RouteMatch {
        case_sensitive: (!value.case_sensitive).then(|| convert::wrap_bool(false)),
        headers: value.headers.iter().map(HeaderMatcher::encode).collect(),
        query_parameters: value.query.iter().map(QueryMatcher::encode).collect(),
        cookies: value.cookies.iter().map(CookieMatcher::encode).collect(),
        grpc: value.grpc.then(pb::route_match::GrpcRouteMatchOptions::default),
        runtime_fraction: value.share.map(|parts| core::RuntimeFractionalPercent {
            default_value: Some(convert::proto_fraction(parts)),
            runtime_key: String::new(),
        }),
        path_specifier: Some(specifier),
        tls_context: value.certificate.map(|certificate| pb::route_match::TlsContextMatchOptions {
            presented: certificate.presented.map(convert::wrap_bool),
            validated: certificate.validated.map(convert::wrap_bool),
        }),
        ..Default::default()
    }
}

fn specifier(value: &Forward) -> pb::route_action::ClusterSpecifier {
    use pb::route_action::ClusterSpecifier as C;
    let plain = match value.clusters.as_slice() {
        [only]
            if only.request_headers.is_empty()
                && only.response_headers.is_empty()
                && only.host_rewrite.is_none()
                && only.cluster_header.is_none()
                && only.filters.is_empty()
                && only.metadata.is_empty()
                && only.weight == 1
                && value.random == RandomSource::Draw =>
        {
            Some(C::Cluster(only.name.clone()))
        }
        _ => None,
    };
    let named = value.cluster_header.clone().map(C::ClusterHeader);
    plain.or(named).unwrap_or_else(|| {
        C::WeightedClusters(pb::WeightedCluster {
            clusters: value.clusters.iter().map(cluster_weight).collect(),
            random_value_specifier: match &value.random {
                RandomSource::Draw => None,
                RandomSource::Header(name) => {
                    Some(pb::weighted_cluster::RandomValueSpecifier::HeaderName(name.clone()))
                }
                RandomSource::Hash => {
                    Some(pb::weighted_cluster::RandomValueSpecifier::UseHashPolicy(convert::wrap_bool(true)))
                }
            },
            ..Default::default()
        })
    })
}

fn forward(value: &Forward) -> pb::RouteAction {
    use pb::route_action::HostRewriteSpecifier as H;
    pb::RouteAction {
        cluster_specifier: Some(specifier(value)),
        timeout: Some(convert::proto_duration(value.timeout)),
        max_grpc_timeout: value.grpc_timeout.map(|g| convert::proto_duration(g.most)),
        grpc_timeout_offset: value
            .grpc_timeout
            .filter(|g| !g.offset.is_zero())
            .map(|g| convert::proto_duration(g.offset)),
        idle_timeout: value.idle_timeout.map(convert::proto_duration),
        retry_policy: value.retry.as_ref().map(RetryPolicy::encode),
        prefix_rewrite: match &value.path_rewrite {
            Some(PathRewrite::Prefix(p)) => p.clone(),
            _ => String::new(),
        },
        regex_rewrite: match &value.path_rewrite {
            Some(PathRewrite::Regex(r)) => Some(r.encode()),
            _ => None,
        },
        host_rewrite_specifier: value.host_rewrite.as_ref().map(|h| match h {
            HostRewrite::Literal(host) => H::HostRewriteLiteral(host.clone()),
            HostRewrite::Auto => H::AutoHostRewrite(convert::wrap_bool(true)),
            HostRewrite::Header(name) => H::HostRewriteHeader(name.clone()),
            HostRewrite::PathRegex(regex) => H::HostRewritePathRegex(regex.encode()),
        }),
        append_x_forwarded_host: value.append_x_forwarded_host,
        hedge_policy: value.hedge.map(hedge),
        upgrade_configs: value.upgrades.iter().map(RouteUpgrade::encode).collect(),
        hash_policy: value.hash.iter().map(HashPolicy::encode).collect(),
        request_mirror_policies: value.mirrors.iter().map(Mirror::encode).collect(),
        metadata_match: convert::proto_metadata(&value.metadata),
        max_stream_duration: (value.max_stream != MaxStream::default()).then(|| pb::route_action::MaxStreamDuration {
            max_stream_duration: value.max_stream.limit.map(convert::proto_duration),
            grpc_timeout_header_max: value.max_stream.grpc_timeout.map(convert::proto_duration),
            grpc_timeout_header_offset: Some(convert::proto_duration(value.max_stream.grpc_offset)),
        }),
        internal_redirect_policy: value.internal_redirect.as_ref().map(internal_redirect::encode),
        priority: i32::from(value.high_priority),
        cluster_not_found_response_code: match value.cluster_not_found_status {
            404 => 1,
            500 => 2,
            _ => 0,
        },
        ..Default::default()
    }
}

fn cluster_weight(value: &WeightedCluster) -> pb::weighted_cluster::ClusterWeight {
    use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier as H;
    pb::weighted_cluster::ClusterWeight {
        name: value.name.clone(),
        weight: Some(convert::wrap_u32(value.weight)),
        request_headers_to_add: value.request_headers.encode_add(),
        request_headers_to_remove: value.request_headers.remove.clone(),
        response_headers_to_add: value.response_headers.encode_add(),
        response_headers_to_remove: value.response_headers.remove.clone(),
        host_rewrite_specifier: value.host_rewrite.clone().map(H::HostRewriteLiteral),
        cluster_header: value.cluster_header.clone().unwrap_or_default(),
        typed_per_filter_config: http_filter::encode_per_route(&value.filters),
        metadata_match: convert::proto_metadata(&value.metadata),
    }
}

fn redirect(value: &Redirect) -> pb::RedirectAction {
    use pb::redirect_action::{PathRewriteSpecifier as P, SchemeRewriteSpecifier as S};
    pb::RedirectAction {
        host_redirect: value.host.clone().unwrap_or_default(),
        port_redirect: value.port.unwrap_or_default().into(),
        response_code: match value.status {
            302 => 1,
            303 => 2,
            307 => 3,
            308 => 4,
            _ => 0,
        },
        strip_query: value.strip_query,
        scheme_rewrite_specifier: value.scheme.clone().map(S::SchemeRedirect),
        path_rewrite_specifier: value.path.as_ref().map(|p| match p {
            RedirectPath::Full(p) => P::PathRedirect(p.clone()),
            RedirectPath::Prefix(p) => P::PrefixRewrite(p.clone()),
            RedirectPath::Regex(r) => P::RegexRewrite(r.encode()),
        }),
    }
}

fn respond(value: &Respond) -> pb::DirectResponseAction {
    let body = (!value.body.is_empty()).then(|| core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(value.body.clone())),
        ..Default::default()
    });
    let body_format = value.format.as_ref().map(FormatString::encode);
    pb::DirectResponseAction { status: value.status.into(), body, body_format }
}
