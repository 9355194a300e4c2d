//! Cluster: how the endpoints of one upstream are found, chosen between and spoken to.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

mod balancing;
mod policy;

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as pb_http;
use prost::Message as _;

use crate::convert;
use crate::endpoint::LoadAssignment;
use crate::health_check::HealthCheck;
use crate::outlier::OutlierDetection;
use crate::route::HashPolicy;
use crate::{Audit, Error, Path};

pub use balancing::{Balancer, Reported, SlowStart, SubsetConfig, SubsetFallback, SubsetSelector, ZoneAware};

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name, also of its statistics.
    pub name: String,
    /// Host name of the service it leads to, for metrics, as Istio says it; may be empty.
    pub service: String,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// How one is chosen.
    pub balancer: Balancer,
    /// How weights follow from reports, where they do.
    pub reported: Option<Reported>,
    /// When endpoints of the own zone are preferred.
    pub zone_aware: Option<ZoneAware>,
    /// Most requests of an endpoint that a hash chooses, in per cent of the average; 0 is without limit.
    pub hash_balance_factor: u32,
    /// Whether host names are hashed instead of addresses.
    pub hash_hostnames: bool,
    /// Whether weights of localities count.
    pub locality_weighted: bool,
    /// How new endpoints get their share.
    pub slow_start: Option<SlowStart>,
    /// How endpoints are divided by their metadata.
    pub subsets: Option<SubsetConfig>,
    /// Time to make a connection.
    pub connect_timeout: Duration,
    /// What is spoken.
    pub protocol: Protocol,
    /// Time a pooled connection may be idle; zero is for ever.
    pub idle_timeout: Duration,
    /// Requests on one connection before it is closed; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Limits for requests of normal and of high priority.
    pub breakers: [Breakers; 2],
    /// Connections to one endpoint; `None` is unlimited.
    pub max_host_connections: Option<u32>,
    /// Per cent of usable endpoints below which health is disregarded.
    pub panic_threshold: u8,
    /// How endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// When an endpoint is ejected; `None` is never.
    pub outlier: Option<OutlierDetection>,
    /// What its requests are hashed by, instead of what their route says.
    pub hash: Vec<HashPolicy>,
    /// The policy because of which it has no endpoints: requests are refused, and told so. Serin's own, in the cluster's metadata
    /// under `serin` as `refused`; other proxies find no healthy host.
    pub refused: Option<String>,
    /// Whether its loads are reported to the server that it is from. gRPC asks each cluster; proxies are told elsewhere.
    pub reports_loads: bool,
}

/// How much may be in flight before more is refused; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breakers {
    /// Connections.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests.
    pub requests: Option<u32>,
    /// Retries.
    pub retries: Option<u32>,
    /// Retries as a share of requests instead.
    pub budget: Option<RetryBudget>,
}

/// Retries as a share of the requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share, in parts of a million.
    pub share: u32,
    /// That many may always be.
    pub least: u32,
}

impl RetryBudget {
    /// How many retries may be in flight beside so many requests.
    #[must_use]
    pub fn limit(self, requests: u64) -> u32 {
        let share = requests.saturating_mul(self.share.into()) / 1_000_000;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.least)
    }
}

impl Breakers {
    /// No limits.
    pub const NONE: Self = Self { connections: None, pending: None, requests: None, retries: None, budget: None };
}

impl Default for Breakers {
    /// Envoy's limits.
    fn default() -> Self {
        Self { connections: Some(1024), pending: Some(1024), requests: Some(1024), retries: Some(3), budget: None }
    }
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// From EDS under this name.
    Eds(String),
    /// From the cluster itself.
    Static(LoadAssignment),
    /// Names in the cluster, which are looked up.
    Dns(Names),
}

/// Endpoints by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The endpoints, whose hosts may be names.
    pub assignment: LoadAssignment,
    /// Time until they are looked up again.
    pub refresh: Duration,
    /// Which of their addresses are used.
    pub family: LookupFamily,
}

impl Names {
    /// Names with Envoy's settings.
    #[must_use]
    pub fn new(assignment: LoadAssignment) -> Self {
        Self { assignment, refresh: DNS_REFRESH, family: LookupFamily::Auto }
    }
}

/// Which addresses of a name are used (Envoy, `Cluster.DnsLookupFamily`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LookupFamily {
    /// Those of IPv6, or those of IPv4 where it has none.
    #[default]
    Auto,
    /// Those of IPv4.
    V4Only,
    /// Those of IPv6.
    V6Only,
    /// Those of IPv4, or those of IPv6 where it has none.
    V4Preferred,
    /// All.
    All,
}

impl LookupFamily {
    /// Keeps of a name's addresses those that are used.
    pub fn choose(self, addresses: &mut Vec<SocketAddr>) {
        let has = |v6: bool| addresses.iter().any(|a| a.is_ipv6() == v6);
        let v6 = match self {
            Self::All => return,
            Self::V4Only => false,
            Self::V6Only => true,
            Self::Auto => has(true),
            Self::V4Preferred => !has(false),
        };
        addresses.retain(|a| a.is_ipv6() == v6);
    }
}

/// What is spoken to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Whatever the client spoke.
    Downstream,
}

impl Protocol {
    /// Whether HTTP/2 is spoken for a client who does or does not.
    #[must_use]
    pub fn is_h2(self, client: bool) -> bool {
        match self {
            Self::Http1 => false,
            Self::Http2 => true,
            Self::Downstream => client,
        }
    }
}

impl Cluster {
    /// A cluster with every setting at its default.
    #[must_use]
    pub fn new(name: impl Into<String>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            service: String::new(),
            discovery,
            balancer: Balancer::default(),
            reported: None,
            zone_aware: None,
            hash_balance_factor: 0,
            hash_hostnames: false,
            locality_weighted: false,
            slow_start: None,
            subsets: None,
            connect_timeout: Duration::from_secs(5),
            protocol: Protocol::default(),
            idle_timeout: Duration::from_secs(3600),
            max_requests_per_connection: None,
            breakers: [Breakers::NONE, Breakers::default()],
            max_host_connections: None,
            panic_threshold: 50,
            health_check: None,
            outlier: None,
            hash: Vec::new(),
            refused: None,
            reports_loads: false,
        }
    }

    /// Decodes the bytes of a CDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("Cluster");
        let value = pb::Cluster::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        Self::from_proto(&value, audit, &path)
    }

    pub(crate) fn from_proto(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Cluster as pb::Cluster, audit, path;
            supported: name, eds_cluster_config, connect_timeout, lb_policy, load_assignment, max_requests_per_connection,
                circuit_breakers, http2_protocol_options, typed_extension_protocol_options, dns_refresh_rate,
                dns_lookup_family, common_lb_config, transport_socket, cluster_discovery_type, lb_config, outlier_detection, lb_subset_config, health_checks,
                metadata, load_balancing_policy;
            ignored: alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes,
                per_connection_buffer_high_watermark_timeout, http_protocol_options, dns_jitter, dns_failure_refresh_rate,
                respect_dns_ttl, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
                typed_dns_resolver_config, wait_for_warm_on_init, cleanup_interval, protocol_selection,
                upstream_connection_options, close_connections_on_host_health_failure, ignore_health_on_host_removal,
                lrs_server, lrs_report_endpoint_metrics, track_timeout_budgets, track_cluster_stats, preconnect_policy,
                queuing_policies;
            refused: transport_socket_matches, transport_socket_matcher, upstream_http_protocol_options,
                common_http_protocol_options, upstream_bind_config, filters,
                upstream_config, connection_pool_per_downstream_connection);
        if value.name.is_empty() {
            return Err(path.field("name").error("is required"));
        }
        refuse_tls(value.transport_socket.as_ref(), path)?;
        let mut older = None;
        let mut chosen = None;
        if let Some(policy) = &value.load_balancing_policy {
            let cluster = older.insert(value.clone());
            cluster.lb_config = None;
            chosen = policy::apply(policy, cluster, audit, &path.field("load_balancing_policy"))?;
            if chosen.is_some() {
                cluster.set_lb_policy(pb::cluster::LbPolicy::RoundRobin);
            }
        }
        let value = older.as_ref().unwrap_or(value);
        let mut cluster = Self::new(value.name.clone(), discovery(value, audit, path)?);
        cluster.service = convert::service(value.metadata.as_ref());
        cluster.refused = convert::own(value.metadata.as_ref(), "refused");
        cluster.balancer = balancing::balancer(value, audit, path)?;
        if let Some((balancer, reported)) = chosen {
            (cluster.balancer, cluster.reported) = (balancer, reported);
        }
        cluster.slow_start = balancing::slow_start(value, audit, path)?;
        if let Some(subsets) = &value.lb_subset_config {
            cluster.subsets = balancing::subsets(subsets, audit, &path.field("lb_subset_config"))?;
        }
        if let Some(timeout) =
            convert::optional_duration(value.connect_timeout.as_ref(), &path.field("connect_timeout"))?
        {
            cluster.connect_timeout = timeout;
        }
        cluster.max_requests_per_connection =
            value.max_requests_per_connection.as_ref().map(|v| v.value).filter(|v| *v > 0);
        if let Some(http2) = &value.http2_protocol_options {
            convert::audit_http2_options(http2, audit, &path.field("http2_protocol_options"))?;
            cluster.protocol = Protocol::Http2;
        }
        protocol_options(value, &mut cluster, audit, path)?;
        breakers(value, &mut cluster, audit, path)?;
        if let Some(common) = &value.common_lb_config {
            balancing::common(common, &mut cluster, audit, &path.field("common_lb_config"))?;
        }
        let checks_path = path.field("health_checks");
        cluster.health_check = match value.health_checks.as_slice() {
            [] => None,
            [only] => Some(HealthCheck::decode(only, audit, &checks_path.index(0))?),
            _ => return Err(checks_path.error("at most one is supported")),
        };
        if let Some(outlier) = &value.outlier_detection {
            cluster.outlier = Some(OutlierDetection::from_proto(outlier, audit, &path.field("outlier_detection"))?);
        }
        Ok(cluster)
    }

    /// The bytes of a CDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub(crate) fn to_proto(&self) -> pb::Cluster {
        use pb::cluster::{ClusterDiscoveryType::Type, DiscoveryType};
        let (kind, assignment) = match &self.discovery {
            Discovery::Eds(_) => (DiscoveryType::Eds, None),
            Discovery::Static(a) => (DiscoveryType::Static, Some(a.to_proto())),
            Discovery::Dns(names) => (DiscoveryType::StrictDns, Some(names.assignment.to_proto())),
        };
        let mut proto = pb::Cluster {
            name: self.name.clone(),
            metadata: convert::proto_own(convert::proto_service(&self.service), "refused", self.refused.as_deref()),
            cluster_discovery_type: Some(Type(kind as i32)),
            eds_cluster_config: match &self.discovery {
                Discovery::Eds(service) => Some(pb::cluster::EdsClusterConfig {
                    eds_config: Some(convert::ads()),
                    service_name: service.clone(),
                }),
                _ => None,
            },
            load_assignment: assignment,
            lrs_server: self.reports_loads.then(|| core::ConfigSource {
                config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Self_(Default::default())),
                ..Default::default()
            }),
            connect_timeout: Some(convert::proto_duration(self.connect_timeout)),
            dns_refresh_rate: match &self.discovery {
                Discovery::Dns(names) if names.refresh != DNS_REFRESH => Some(convert::proto_duration(names.refresh)),
                _ => None,
            },
            dns_lookup_family: match &self.discovery {
                Discovery::Dns(names) => names.family as i32,
                _ => 0,
            },
            circuit_breakers: self.proto_breakers(),
            health_checks: self.health_check.iter().map(HealthCheck::encode).collect(),
            outlier_detection: self.outlier.map(OutlierDetection::to_proto),
            typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), convert::any(&self.proto_options()))].into(),
            ..Default::default()
        };
        balancing::encode(self, &mut proto);
        proto
    }

    fn proto_breakers(&self) -> Option<pb::CircuitBreakers> {
        let limit = |value: Option<u32>| Some(convert::wrap_u32(value.unwrap_or(u32::MAX)));
        let threshold = |(priority, breakers): (usize, &Breakers)| pb::circuit_breakers::Thresholds {
            priority: priority as i32,
            max_connections: limit(breakers.connections),
            max_pending_requests: limit(breakers.pending),
            max_requests: limit(breakers.requests),
            max_retries: limit(breakers.retries),
            retry_budget: breakers.budget.map(|b| pb::circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(envoy_types::pb::envoy::r#type::v3::Percent {
                    value: f64::from(b.share) / 10_000.0,
                }),
                min_retry_concurrency: Some(convert::wrap_u32(b.least)),
                ..Default::default()
            }),
            ..Default::default()
        };
        // What is not said of high priority is Envoy's default.
        let [_, high] = &self.breakers;
        let list = if *high == Breakers::default() { &self.breakers[..1] } else { &self.breakers[..] };
        let host = |most| pb::circuit_breakers::Thresholds {
            max_connections: Some(convert::wrap_u32(most)),
            ..Default::default()
        };
        Some(pb::CircuitBreakers {
            thresholds: list.iter().enumerate().map(threshold).collect(),
            per_host_thresholds: self.max_host_connections.map(host).into_iter().collect(),
        })
    }

    fn proto_options(&self) -> pb_http::HttpProtocolOptions {
        use pb_http::http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
        };
        let explicit =
            |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
        pb_http::HttpProtocolOptions {
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: Some(convert::proto_duration(self.idle_timeout)),
                max_requests_per_connection: self.max_requests_per_connection.map(convert::wrap_u32),
                ..Default::default()
            }),
            upstream_protocol_options: Some(match self.protocol {
                Protocol::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default())),
                Protocol::Http2 => {
                    explicit(ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()))
                }
                Protocol::Downstream => {
                    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig::default())
                }
            }),
            hash_policy: self.hash.iter().map(HashPolicy::encode).collect(),
            ..Default::default()
        }
    }
}

/// Envoy's time between two resolutions of a name.
const DNS_REFRESH: Duration = Duration::from_secs(5);

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn refuse_tls(socket: Option<&core::TransportSocket>, path: &Path<'_>) -> Result<(), Error> {
    match socket {
        Some(socket) if socket.name != "envoy.transport_sockets.raw_buffer" => {
            Err(path.field("transport_socket").error(format!("'{}' is not supported, only raw_buffer", socket.name)))
        }
        _ => Ok(()),
    }
}

fn discovery(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Discovery, Error> {
    use pb::cluster::{ClusterDiscoveryType as T, DiscoveryType as D};
    let kind = match &value.cluster_discovery_type {
        None => D::Static,
        Some(T::Type(kind)) => D::try_from(*kind).map_err(|_| path.field("type").error("is no known type"))?,
        Some(T::ClusterType(t)) => {
            return Err(path.field("cluster_type").error(format!("'{}' is not supported", t.name)));
        }
    };
    if kind == D::Eds {
        let eds_path = path.field("eds_cluster_config");
        let eds = value.eds_cluster_config.as_ref().ok_or_else(|| eds_path.error("is required"))?;
        convert::require_ads(eds.eds_config.as_ref(), &eds_path.field("eds_config"))?;
        let name = if eds.service_name.is_empty() { &value.name } else { &eds.service_name };
        return Ok(Discovery::Eds(name.clone()));
    }
    let assignment = match &value.load_assignment {
        Some(a) => LoadAssignment::from_proto(a, audit, &path.field("load_assignment"))?,
        None => LoadAssignment { cluster: value.name.clone(), ..LoadAssignment::default() },
    };
    match kind {
        D::Static => {
            for (i, endpoint) in assignment.endpoints.iter().enumerate() {
                if endpoint.host.parse::<std::net::IpAddr>().is_err() {
                    return Err(path
                        .field("load_assignment")
                        .field("endpoints")
                        .index(i)
                        .error(format!("'{}' is not an IP address; use type STRICT_DNS for names", endpoint.host)));
                }
            }
            Ok(Discovery::Static(assignment))
        }
        D::StrictDns | D::LogicalDns => {
            let refresh = convert::optional_duration(value.dns_refresh_rate.as_ref(), &path.field("dns_refresh_rate"))?;
            let family = match value.dns_lookup_family {
                0 => LookupFamily::Auto,
                1 => LookupFamily::V4Only,
                2 => LookupFamily::V6Only,
                3 => LookupFamily::V4Preferred,
                4 => LookupFamily::All,
                _ => return Err(path.field("dns_lookup_family").error("is no known family")),
            };
            Ok(Discovery::Dns(Names { assignment, refresh: refresh.unwrap_or(DNS_REFRESH), family }))
        }
        D::OriginalDst | D::Eds => Err(path.field("type").error("ORIGINAL_DST is not supported")),
    }
}

fn protocol_options(
    value: &pb::Cluster,
    cluster: &mut Cluster,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<(), Error> {
    use pb_http::http_protocol_options::{UpstreamProtocolOptions as U, explicit_http_config::ProtocolConfig as P};
    let path = path.field("typed_extension_protocol_options");
    for (name, any) in &value.typed_extension_protocol_options {
        let here = path.field(name);
        if name != HTTP_OPTIONS {
            audit.ignore(&path, name);
            continue;
        }
        let options: pb_http::HttpProtocolOptions = convert::from_any(any, &here)?;
        audit!(&options, pb_http::HttpProtocolOptions as pb_http::HttpProtocolOptions, audit, &here;
            supported: common_http_protocol_options, upstream_protocol_options, hash_policy;
            ignored: upstream_http_protocol_options, header_validation_config;
            refused: http_filters, outlier_detection, request_mirror_policies, retry_policy);
        let hash_path = here.field("hash_policy");
        for (i, policy) in options.hash_policy.iter().enumerate() {
            cluster.hash.push(HashPolicy::decode(policy, audit, &hash_path.index(i))?);
        }
        if let Some(common) = &options.common_http_protocol_options {
            convert::audit_common_options(common, audit, &here.field("common_http_protocol_options"))?;
            if let Some(idle) = convert::optional_duration(common.idle_timeout.as_ref(), &here.field("idle_timeout"))? {
                cluster.idle_timeout = idle;
            }
            let limit = common.max_requests_per_connection.as_ref().map(|v| v.value).filter(|v| *v > 0);
            cluster.max_requests_per_connection = limit.or(cluster.max_requests_per_connection);
        }
        cluster.protocol = match &options.upstream_protocol_options {
            Some(U::ExplicitHttpConfig(e)) => match e.protocol_config {
                Some(P::Http2ProtocolOptions(_)) => Protocol::Http2,
                Some(P::Http3ProtocolOptions(_)) => return Err(here.error("HTTP/3 is not supported")),
                _ => Protocol::Http1,
            },
            Some(U::UseDownstreamProtocolConfig(_)) => Protocol::Downstream,
            Some(U::AutoConfig(_)) | None => cluster.protocol,
        };
    }
    Ok(())
}

fn breakers(value: &pb::Cluster, cluster: &mut Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<(), Error> {
    cluster.breakers = [Breakers::default(); 2];
    let Some(breakers) = &value.circuit_breakers else { return Ok(()) };
    let path = path.field("circuit_breakers");
    let list_path = path.field("thresholds");
    let bounded = |v: &Option<envoy_types::pb::google::protobuf::UInt32Value>, default| {
        v.as_ref().map_or(Some(default), |v| (v.value != u32::MAX).then_some(v.value))
    };
    for (i, threshold) in breakers.thresholds.iter().enumerate() {
        let here = list_path.index(i);
        audit!(threshold, pb::circuit_breakers::Thresholds as pb::circuit_breakers::Thresholds, audit, &here;
            supported: priority, max_connections, max_pending_requests, max_requests, max_retries, retry_budget;
            ignored: track_remaining, max_connection_pools;
            refused: );
        let Some(place) = usize::try_from(threshold.priority).ok().and_then(|p| cluster.breakers.get_mut(p)) else {
            return Err(here.field("priority").error("is no known priority"));
        };
        *place = Breakers {
            connections: bounded(&threshold.max_connections, 1024),
            pending: bounded(&threshold.max_pending_requests, 1024),
            requests: bounded(&threshold.max_requests, 1024),
            retries: bounded(&threshold.max_retries, 3),
            budget: threshold.retry_budget.as_ref().map(|b| RetryBudget {
                share: convert::percent_parts(b.budget_percent.as_ref().map_or(20.0, |p| p.value)),
                least: b.min_retry_concurrency.as_ref().map_or(3, |v| v.value),
            }),
        };
    }
    // Of the limits for one endpoint Envoy knows only that of connections.
    let own = breakers.per_host_thresholds.iter().find(|t| t.priority == 0);
    cluster.max_host_connections = own.and_then(|t| bounded(&t.max_connections, u32::MAX)).filter(|n| *n != u32::MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_chooses_among_the_addresses_of_a_name() {
        let addresses = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (v4, v6) = (addresses(&["127.0.0.1:1"]), addresses(&["[::1]:1"]));
        let both = [v4.clone(), v6.clone()].concat();
        for (family, of_both, of_v4, of_v6) in [
            (LookupFamily::Auto, &v6, &v4, &v6),
            (LookupFamily::V4Only, &v4, &v4, &Vec::new()),
            (LookupFamily::V6Only, &v6, &Vec::new(), &v6),
            (LookupFamily::V4Preferred, &v4, &v4, &v6),
            (LookupFamily::All, &both, &v4, &v6),
        ] {
            for (found, expected) in [(&both, of_both), (&v4, of_v4), (&v6, of_v6)] {
                let mut chosen = found.clone();
                family.choose(&mut chosen);
                assert_eq!(&chosen, expected, "{family:?} of {found:?}");
            }
        }
    }
}
