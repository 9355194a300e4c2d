//! From the protobufs of `envoy.config.route.v3`.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use prost::Message as _;

use super::*;
use crate::FormatString;
use crate::convert;
use crate::http_filter;
use crate::matcher;
use crate::{Audit, Error, Path};

impl RouteConfiguration {
    /// Decodes the bytes of an RDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("RouteConfiguration");
        let value = pb::RouteConfiguration::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        Self::from_proto(&value, audit, &path)
    }

    pub(crate) fn from_proto(
        value: &pb::RouteConfiguration,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        audit!(value, pb::RouteConfiguration as pb::RouteConfiguration, audit, path;
            supported: name, virtual_hosts, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
                request_headers_to_remove, validate_clusters, ignore_port_in_host_matching, max_direct_response_body_size_bytes,
                most_specific_header_mutations_wins, request_mirror_policies, ignore_path_parameters_in_path_matching,
                internal_only_headers, typed_per_filter_config, vhds;
            ignored: metadata;
            refused: cluster_specifier_plugins, vhost_header, route_specifiers);
        let hosts_path = path.field("virtual_hosts");
        let mut virtual_hosts = Vec::with_capacity(value.virtual_hosts.len());
        for (i, host) in value.virtual_hosts.iter().enumerate() {
            virtual_hosts.push(virtual_host(host, audit, &hosts_path.index(i))?);
        }
        refuse_duplicate_domains(&virtual_hosts, &hosts_path)?;
        if let Some(vhds) = &value.vhds {
            let path = path.field("vhds");
            audit!(vhds, pb::Vhds as pb::Vhds, audit, &path; supported: config_source; ignored: ; refused: );
            convert::require_ads(vhds.config_source.as_ref(), &path.field("config_source"))?;
        }
        Ok(Self {
            has_vhds: value.vhds.is_some(),
            name: value.name.clone(),
            virtual_hosts,
            request_headers: edits(&value.request_headers_to_add, &value.request_headers_to_remove, path)?,
            response_headers: edits(&value.response_headers_to_add, &value.response_headers_to_remove, path)?,
            ignore_port_in_host_matching: value.ignore_port_in_host_matching,
            ignore_path_parameters: value.ignore_path_parameters_in_path_matching,
            most_specific_edits_win: value.most_specific_header_mutations_wins,
            mirrors: mirrors(&value.request_mirror_policies, audit, path)?,
            filters: http_filter::decode_per_route(&value.typed_per_filter_config, audit, path)?,
            internal_only_headers: value.internal_only_headers.iter().map(|n| n.to_ascii_lowercase()).collect(),
        })
    }
}

impl RouteConfiguration {
    /// Checks that no domain stands in two virtual hosts, which may have come apart (VHDS).
    ///
    /// # Errors
    /// Names the second of them.
    pub fn check_domains(&self) -> Result<(), Error> {
        let path = Path::root("RouteConfiguration");
        refuse_duplicate_domains(&self.virtual_hosts, &path.field("virtual_hosts"))
    }
}

impl VirtualHost {
    /// Decodes the bytes of a VHDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("VirtualHost");
        let value = pb::VirtualHost::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        let host = virtual_host(&value, audit, &path)?;
        refuse_duplicate_domains(std::slice::from_ref(&host), &path)?;
        Ok(host)
    }
}

fn refuse_duplicate_domains(hosts: &[VirtualHost], path: &Path<'_>) -> Result<(), Error> {
    let mut seen = HashMap::new();
    for (i, host) in hosts.iter().enumerate() {
        for domain in &host.domains {
            if seen.insert(domain.to_ascii_lowercase(), i).is_some() {
                return Err(path.index(i).field("domains").error(format!("'{domain}' appears twice")));
            }
        }
    }
    Ok(())
}

fn virtual_host(value: &pb::VirtualHost, audit: &mut Audit, path: &Path<'_>) -> Result<VirtualHost, Error> {
    audit!(value, pb::VirtualHost as pb::VirtualHost, audit, path;
        supported: name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config, retry_policy,
            include_request_attempt_count, include_attempt_count_in_response, request_mirror_policies, hedge_policy, metadata,
            per_request_buffer_limit_bytes, request_body_buffer_limit;
        ignored: virtual_clusters, rate_limits, include_is_timeout_retry_header;
        refused: matcher, cors, retry_policy_typed_config, route_specifiers);
    let routes_path = path.field("routes");
    let mut routes = Vec::with_capacity(value.routes.len());
    for (i, r) in value.routes.iter().enumerate() {
        routes.push(route(r, audit, &routes_path.index(i))?);
    }
    let retry_path = path.field("retry_policy");
    Ok(VirtualHost {
        name: value.name.clone(),
        domains: value.domains.clone(),
        routes,
        require_tls: match value.require_tls {
            0 => RequireTls::No,
            1 => RequireTls::External,
            2 => RequireTls::All,
            _ => return Err(path.field("require_tls").error("is no known requirement")),
        },
        request_headers: edits(&value.request_headers_to_add, &value.request_headers_to_remove, path)?,
        response_headers: edits(&value.response_headers_to_add, &value.response_headers_to_remove, path)?,
        retry: value.retry_policy.as_ref().map(|r| RetryPolicy::decode(r, audit, &retry_path)).transpose()?,
        hedge: hedge(value.hedge_policy.as_ref(), audit, path)?.unwrap_or_default(),
        filters: http_filter::decode_per_route(&value.typed_per_filter_config, audit, path)?,
        include_attempt_count: value.include_request_attempt_count,
        include_attempt_count_in_response: value.include_attempt_count_in_response,
        outdated: convert::own(value.metadata.as_ref(), "outdated").unwrap_or_default(),
        mirrors: mirrors(&value.request_mirror_policies, audit, path)?,
        buffers: BufferLimits {
            per_request: value.per_request_buffer_limit_bytes.as_ref().map(|v| v.value),
            of_body: value.request_body_buffer_limit.as_ref().map(|v| v.value),
        },
    })
}

fn route(value: &pb::Route, audit: &mut Audit, path: &Path<'_>) -> Result<Route, Error> {
    audit!(value, pb::Route as pb::Route, audit, path;
        supported: name, r#match, typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, action, metadata, per_request_buffer_limit_bytes,
            request_body_buffer_limit;
        ignored: decorator, tracing, stat_prefix;
        refused: route_specifiers);
    let matches = value.r#match.as_ref().ok_or_else(|| path.field("match").error("is required"))?;
    let action = match &value.action {
        Some(pb::route::Action::Route(r)) => {
            let mut forward = forward(r, audit, &path.field("route"))?;
            forward.comparison = comparison(value.metadata.as_ref());
            Action::Forward(Box::new(forward))
        }
        Some(pb::route::Action::Redirect(r)) => Action::Redirect(redirect(r, audit, &path.field("redirect"))?),
        Some(pb::route::Action::DirectResponse(r)) => {
            Action::Respond(respond(r, audit, &path.field("direct_response"))?)
        }
        Some(pb::route::Action::FilterAction(_)) => return Err(Audit::refuse(path, "filter_action")),
        Some(pb::route::Action::NonForwardingAction(_)) => return Err(Audit::refuse(path, "non_forwarding_action")),
        None => return Err(path.error("needs route, redirect or direct_response")),
    };
    Ok(Route {
        name: value.name.clone(),
        matches: route_match(matches, audit, &path.field("match"))?,
        action,
        request_headers: edits(&value.request_headers_to_add, &value.request_headers_to_remove, path)?,
        response_headers: edits(&value.response_headers_to_add, &value.response_headers_to_remove, path)?,
        filters: http_filter::decode_per_route(&value.typed_per_filter_config, audit, path)?,
        buffers: BufferLimits {
            per_request: value.per_request_buffer_limit_bytes.as_ref().map(|v| v.value),
            of_body: value.request_body_buffer_limit.as_ref().map(|v| v.value),
        },
    })
}

/// How mirrors' answers are compared. Metadata of other names is nobody's here, as it is in Envoy.
fn comparison(metadata: Option<&core::Metadata>) -> Option<Comparison> {
    use envoy_types::pb::google::protobuf::value::Kind;
    let config = metadata?.filter_metadata.get("serin.mirror")?;
    let kind = |key: &str| config.fields.get(key).and_then(|v| v.kind.as_ref());
    let list = |key: &str| match kind(key) {
        Some(Kind::ListValue(list)) => {
            let text = |v: &envoy_types::pb::google::protobuf::Value| match &v.kind {
                Some(Kind::StringValue(text)) => Some(text.clone()),
                _ => None,
            };
            list.values.iter().filter_map(text).collect()
        }
        _ => Vec::new(),
    };
    let headers = list("headers").iter().map(|name| name.to_ascii_lowercase()).collect();
    matches!(kind("compare"), Some(Kind::BoolValue(true)))
        .then(|| Comparison { headers, ignored: list("ignore_json_paths") })
}

fn route_match(value: &pb::RouteMatch, audit: &mut Audit, path: &Path<'_>) -> Result<RouteMatch, Error> {
    use pb::route_match::PathSpecifier as P;
    audit!(value, pb::RouteMatch as pb::RouteMatch, audit, path;
        supported: case_sensitive, runtime_fraction, headers, query_parameters, grpc, path_specifier, cookies, tls_context;
        ignored: ;
        refused: dynamic_metadata, filter_state);
    let path_match = match &value.path_specifier {
        Some(P::Prefix(p)) => PathMatch::Prefix(p.clone()),
        Some(P::Path(p)) => PathMatch::Exact(p.clone()),
        Some(P::PathSeparatedPrefix(p)) => PathMatch::PathPrefix(p.clone()),
        Some(P::SafeRegex(r)) => PathMatch::Regex(matcher::regex(r, &path.field("safe_regex"))?),
        Some(P::ConnectMatcher(_)) => PathMatch::Connect,
        Some(P::PathMatchPolicy(_)) => return Err(Audit::refuse(path, "path_match_policy")),
        None => return Err(path.error("needs a path specifier")),
    };
    let fraction =
        value.runtime_fraction.as_ref().map(|f| convert::runtime_share(f, audit, &path.field("runtime_fraction")));
    Ok(RouteMatch {
        path: path_match,
        case_sensitive: value.case_sensitive.as_ref().is_none_or(|v| v.value),
        headers: matcher::decode_headers(&value.headers, &path.field("headers"))?,
        query: matcher::decode_queries(&value.query_parameters, &path.field("query_parameters"))?,
        cookies: matcher::decode_cookies(&value.cookies, &path.field("cookies"))?,
        grpc: value.grpc.is_some(),
        share: fraction.transpose()?,
        certificate: value.tls_context.as_ref().map(|tls| CertificateMatch {
            presented: tls.presented.map(|v| v.value),
            validated: tls.validated.map(|v| v.value),
        }),
    })
}

fn forward(value: &pb::RouteAction, audit: &mut Audit, path: &Path<'_>) -> Result<Forward, Error> {
    audit!(value, pb::RouteAction as pb::RouteAction, audit, path;
        supported: cluster_not_found_response_code, prefix_rewrite, regex_rewrite, append_x_forwarded_host, timeout,
            idle_timeout, retry_policy, upgrade_configs, cluster_specifier, host_rewrite_specifier, hash_policy,
            request_mirror_policies, metadata_match, internal_redirect_policy, max_stream_duration, priority,
            hedge_policy, max_grpc_timeout, grpc_timeout_offset;
        ignored: flush_timeout, early_data_policy, rate_limits, include_vh_rate_limits;
        refused: path_rewrite_policy, path_rewrite, retry_policy_typed_config, cors, internal_redirect_action,
            max_internal_redirects);
    let retry_path = path.field("retry_policy");
    convert::line(&value.prefix_rewrite, &path.field("prefix_rewrite"))?;
    let prefix = (!value.prefix_rewrite.is_empty()).then(|| PathRewrite::Prefix(value.prefix_rewrite.clone()));
    let pattern = value.regex_rewrite.as_ref().map(|r| RegexRewrite::decode(r, &path.field("regex_rewrite")));
    let hash_path = path.field("hash_policy");
    let hash = value.hash_policy.iter().enumerate().map(|(i, p)| HashPolicy::decode(p, audit, &hash_path.index(i)));
    let hash = hash.collect::<Result<_, _>>()?;
    let redirect = value.internal_redirect_policy.as_ref();
    Ok(Forward {
        clusters: clusters(value, audit, path)?,
        cluster_header: match &value.cluster_specifier {
            Some(pb::route_action::ClusterSpecifier::ClusterHeader(name)) => Some(name.to_ascii_lowercase()),
            _ => None,
        },
        random: match &value.cluster_specifier {
            Some(pb::route_action::ClusterSpecifier::WeightedClusters(weighted)) => RandomSource::decode(weighted),
            _ => RandomSource::Draw,
        },
        hash,
        mirrors: mirrors(&value.request_mirror_policies, audit, path)?,
        metadata: convert::metadata(value.metadata_match.as_ref(), &path.field("metadata_match"))?,
        grpc_timeout: grpc_timeout(value, path)?,
        max_stream: max_stream(value, audit, &path.field("max_stream_duration"))?,
        internal_redirect: redirect
            .map(|r| internal_redirect::decode(r, audit, &path.field("internal_redirect_policy")))
            .transpose()?,
        high_priority: value.priority == core::RoutingPriority::High as i32,
        timeout: convert::optional_duration(value.timeout.as_ref(), &path.field("timeout"))?
            .unwrap_or(Duration::from_secs(15)),
        idle_timeout: convert::optional_duration(value.idle_timeout.as_ref(), &path.field("idle_timeout"))?,
        retry: value.retry_policy.as_ref().map(|r| RetryPolicy::decode(r, audit, &retry_path)).transpose()?,
        hedge: hedge(value.hedge_policy.as_ref(), audit, path)?,
        comparison: None,
        path_rewrite: prefix.or(pattern.transpose()?.map(PathRewrite::Regex)),
        host_rewrite: host_rewrite(value, path)?,
        append_x_forwarded_host: value.append_x_forwarded_host,
        cluster_not_found_status: match value.cluster_not_found_response_code {
            0 => 503,
            1 => 404,
            2 => 500,
            _ => return Err(path.field("cluster_not_found_response_code").error("is no known code")),
        },
        upgrades: RouteUpgrade::decode_all(&value.upgrade_configs, audit, path)?,
    })
}

/// Whether tries go on beside the next. Of what else the policy can say Envoy does nothing either.
fn hedge(value: Option<&pb::HedgePolicy>, audit: &mut Audit, path: &Path<'_>) -> Result<Option<bool>, Error> {
    let Some(value) = value else { return Ok(None) };
    let path = path.field("hedge_policy");
    audit!(value, pb::HedgePolicy as pb::HedgePolicy, audit, &path;
        supported: hedge_on_per_try_timeout; ignored: initial_requests; refused: additional_request_chance);
    Ok(Some(value.hedge_on_per_try_timeout))
}

fn host_rewrite(value: &pb::RouteAction, path: &Path<'_>) -> Result<Option<HostRewrite>, Error> {
    use pb::route_action::HostRewriteSpecifier as H;
    Ok(match &value.host_rewrite_specifier {
        None => None,
        Some(H::HostRewriteLiteral(host)) => {
            convert::line(host, &path.field("host_rewrite_literal"))?;
            Some(HostRewrite::Literal(host.clone()))
        }
        Some(H::AutoHostRewrite(on)) => on.value.then_some(HostRewrite::Auto),
        Some(H::HostRewriteHeader(name)) => Some(HostRewrite::Header(name.to_ascii_lowercase())),
        Some(H::HostRewritePathRegex(regex)) => {
            Some(HostRewrite::PathRegex(RegexRewrite::decode(regex, &path.field("host_rewrite_path_regex"))?))
        }
        Some(H::HostRewrite(_)) => return Err(Audit::refuse(path, "host_rewrite")),
    })
}

fn clusters(value: &pb::RouteAction, audit: &mut Audit, path: &Path<'_>) -> Result<Vec<WeightedCluster>, Error> {
    use pb::route_action::ClusterSpecifier as C;
    let weighted = match &value.cluster_specifier {
        Some(C::Cluster(name)) if !name.is_empty() => {
            return Ok(vec![WeightedCluster { name: name.clone(), weight: 1, ..Default::default() }]);
        }
        Some(C::WeightedClusters(weighted)) => weighted,
        Some(C::ClusterHeader(name)) if !name.is_empty() => return Ok(Vec::new()),
        _ => return Err(path.error("needs cluster or weighted_clusters")),
    };
    let path = path.field("weighted_clusters");
    audit!(weighted, pb::WeightedCluster as pb::WeightedCluster, audit, &path;
        supported: clusters, total_weight, random_value_specifier;
        ignored: runtime_key_prefix;
        refused: );
    let list_path = path.field("clusters");
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (i, c) in weighted.clusters.iter().enumerate() {
        clusters.push(cluster_weight(c, audit, &list_path.index(i))?);
    }
    let total: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(path.error("weights must add up to 1 to 4294967295"));
    }
    Ok(clusters)
}

fn cluster_weight(
    value: &pb::weighted_cluster::ClusterWeight,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<WeightedCluster, Error> {
    use pb::weighted_cluster::cluster_weight::HostRewriteSpecifier as H;
    audit!(value, pb::weighted_cluster::ClusterWeight as pb::weighted_cluster::ClusterWeight, audit, path;
        supported: name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
            response_headers_to_remove, host_rewrite_specifier, cluster_header, metadata_match, typed_per_filter_config;
        ignored: ;
        refused: );
    if value.name.is_empty() == value.cluster_header.is_empty() {
        return Err(path.error("needs either name or cluster_header"));
    }
    Ok(WeightedCluster {
        name: value.name.clone(),
        weight: value.weight.as_ref().map_or(0, |w| w.value),
        request_headers: edits(&value.request_headers_to_add, &value.request_headers_to_remove, path)?,
        response_headers: edits(&value.response_headers_to_add, &value.response_headers_to_remove, path)?,
        host_rewrite: value.host_rewrite_specifier.as_ref().map(|H::HostRewriteLiteral(host)| host.clone()),
        cluster_header: (!value.cluster_header.is_empty()).then(|| value.cluster_header.to_ascii_lowercase()),
        filters: http_filter::decode_per_route(&value.typed_per_filter_config, audit, path)?,
        metadata: convert::metadata(value.metadata_match.as_ref(), &path.field("metadata_match"))?,
    })
}

fn redirect(value: &pb::RedirectAction, audit: &mut Audit, path: &Path<'_>) -> Result<Redirect, Error> {
    use pb::redirect_action::{PathRewriteSpecifier as P, SchemeRewriteSpecifier as S};
    audit!(value, pb::RedirectAction as pb::RedirectAction, audit, path;
        supported: host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier,
            path_rewrite_specifier;
        ignored: ;
        refused: );
    convert::line(&value.host_redirect, &path.field("host_redirect"))?;
    match &value.path_rewrite_specifier {
        Some(P::PathRedirect(text)) => convert::line(text, &path.field("path_redirect"))?,
        Some(P::PrefixRewrite(text)) => convert::line(text, &path.field("prefix_rewrite"))?,
        _ => {}
    }
    if let Some(S::SchemeRedirect(text)) = &value.scheme_rewrite_specifier {
        convert::line(text, &path.field("scheme_redirect"))?;
    }
    let scheme = match &value.scheme_rewrite_specifier {
        Some(S::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(S::SchemeRedirect(scheme)) => Some(scheme.clone()).filter(|s| !s.is_empty()),
        Some(S::HttpsRedirect(false)) | None => None,
    };
    let new_path = match &value.path_rewrite_specifier {
        // An empty one leaves the path as it is, as in Envoy.
        Some(P::PathRedirect(p)) => (!p.is_empty()).then(|| RedirectPath::Full(p.clone())),
        Some(P::PrefixRewrite(p)) => (!p.is_empty()).then(|| RedirectPath::Prefix(p.clone())),
        Some(P::RegexRewrite(r)) => Some(RedirectPath::Regex(RegexRewrite::decode(r, &path.field("regex_rewrite"))?)),
        Some(P::PathRewrite(_)) => return Err(Audit::refuse(path, "path_rewrite")),
        None => None,
    };
    let status = match value.response_code {
        0 => 301,
        1 => 302,
        2 => 303,
        3 => 307,
        4 => 308,
        _ => return Err(path.field("response_code").error("is no known code")),
    };
    let port =
        u16::try_from(value.port_redirect).map_err(|_| path.field("port_redirect").error("must be at most 65535"))?;
    Ok(Redirect {
        scheme,
        host: (!value.host_redirect.is_empty()).then(|| value.host_redirect.clone()),
        port: (port != 0).then_some(port),
        path: new_path,
        status,
        strip_query: value.strip_query,
    })
}

fn respond(value: &pb::DirectResponseAction, audit: &mut Audit, path: &Path<'_>) -> Result<Respond, Error> {
    audit!(value, pb::DirectResponseAction as pb::DirectResponseAction, audit, path;
        supported: status, body, body_format; ignored: ; refused: );
    let status = u16::try_from(value.status).ok().filter(|s| (200..600).contains(s));
    let body = value.body.as_ref().map(|body| convert::inline(body, &path.field("body"))).transpose()?;
    let body = body.unwrap_or_default();
    let format = value.body_format.as_ref().map(|f| FormatString::decode(f, audit, &path.field("body_format")));
    let status = status.ok_or_else(|| path.field("status").error("must be 200 to 599"))?;
    Ok(Respond { status, body, format: format.transpose()? })
}

fn mirrors(
    list: &[pb::route_action::RequestMirrorPolicy],
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Vec<Mirror>, Error> {
    let path = path.field("request_mirror_policies");
    list.iter().enumerate().map(|(i, m)| Mirror::decode(m, audit, &path.index(i))).collect()
}

fn max_stream(value: &pb::RouteAction, audit: &mut Audit, path: &Path<'_>) -> Result<MaxStream, Error> {
    use pb::route_action::MaxStreamDuration;
    let Some(value) = &value.max_stream_duration else { return Ok(MaxStream::default()) };
    audit!(value, MaxStreamDuration as MaxStreamDuration, audit, path;
        supported: max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset; ignored: ; refused: );
    let offset = convert::optional_duration(value.grpc_timeout_header_offset.as_ref(), path)?;
    Ok(MaxStream {
        limit: convert::optional_duration(value.max_stream_duration.as_ref(), path)?,
        grpc_timeout: convert::optional_duration(value.grpc_timeout_header_max.as_ref(), path)?,
        grpc_offset: offset.unwrap_or_default(),
    })
}

fn grpc_timeout(value: &pb::RouteAction, path: &Path<'_>) -> Result<Option<GrpcTimeout>, Error> {
    let most = convert::optional_duration(value.max_grpc_timeout.as_ref(), &path.field("max_grpc_timeout"))?;
    let offset = convert::optional_duration(value.grpc_timeout_offset.as_ref(), &path.field("grpc_timeout_offset"))?;
    Ok(most.map(|most| GrpcTimeout { most, offset: offset.unwrap_or_default() }))
}

fn edits(add: &[core::HeaderValueOption], remove: &[String], path: &Path<'_>) -> Result<HeaderEdits, Error> {
    HeaderEdits::decode(add, remove, &path.field("headers_to_add"))
}
