//! Cluster: how the endpoints of one upstream are found, chosen between and spoken to.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

mod balancer;
mod balancing;
mod breakers;
mod discovery;
mod policy;
mod transport;

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as pb_http;
use prost::Message as _;

use crate::convert;
use crate::health_check::HealthCheck;
use crate::outlier::OutlierDetection;
use crate::protocol::{Http1Options, Http2Options};
use crate::route::HashPolicy;
use crate::tls::UpstreamTls;
use crate::{Audit, Error, Path};

use discovery::DNS_REFRESH;

pub use balancer::{Balancer, Reported, SlowStart, SubsetConfig, SubsetFallback, SubsetSelector, ZoneAware};
pub use breakers::{Breakers, RetryBudget};
pub use discovery::{Discovery, LookupFamily, Names};
pub use serin_http1::Codec;
pub use transport::{RequestNames, TlsMatch};

/// One upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name.
    pub name: String,
    /// Name of its statistics, where it is another one; may be empty.
    pub alt_stat_name: String,
    /// Host name of the service it leads to, for metrics, as Istio says it; may be empty.
    pub service: String,
    /// The source of the endpoints.
    pub discovery: Discovery,
    /// The load balancer.
    pub balancer: Balancer,
    /// The rule by which weights follow from reports, where they do.
    pub reported: Option<Reported>,
    /// The conditions under which endpoints of the own zone are preferred.
    pub zone_aware: Option<ZoneAware>,
    /// Most requests of an endpoint that a hash chooses, in per cent of the average; 0 is without limit.
    pub hash_balance_factor: u32,
    /// True when host names are hashed instead of addresses.
    pub hash_hostnames: bool,
    /// True when weights of localities count.
    pub locality_weighted: bool,
    /// The share of new endpoints.
    pub slow_start: Option<SlowStart>,
    /// The division of endpoints by their metadata.
    pub subsets: Option<SubsetConfig>,
    /// Time to make a connection.
    pub connect_timeout: Duration,
    /// The codec that its endpoints get.
    pub codec: UpstreamCodec,
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
    /// The active health check.
    pub health_check: Option<HealthCheck>,
    /// The rules by which an endpoint is ejected; `None` ejects none.
    pub outlier: Option<OutlierDetection>,
    /// The TLS of its endpoints; `None` is plain text.
    pub tls: Option<UpstreamTls>,
    /// The TLS of endpoints with certain metadata, the first that matches; `tls` is for all others.
    pub tls_matches: Vec<TlsMatch>,
    /// How the name that is told to servers follows from a request.
    pub names: RequestNames,
    /// Settings of HTTP/1.
    pub http1: Http1Options,
    /// Settings of HTTP/2.
    pub http2: Http2Options,
    /// The policies by which its requests are hashed, instead of those of their route.
    pub hash: Vec<HashPolicy>,
    /// The policy because of which it has no endpoints: requests are refused, and told so. Serin's own, in the cluster's metadata
    /// under `serin` as `refused`; other proxies find no healthy host.
    pub refused: Option<String>,
    /// True when its loads are reported to the server that it is from. gRPC asks each cluster; proxies are told elsewhere.
    pub reports_loads: bool,
}

/// The codec that an upstream gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamCodec {
    /// This one, without negotiation.
    Fixed(Codec),
    /// The one that the client uses.
    Downstream,
    /// The one that both agree on in the TLS handshake; HTTP/1 without TLS.
    Negotiated,
}

impl Default for UpstreamCodec {
    fn default() -> Self {
        Self::Fixed(Codec::Http1)
    }
}

impl UpstreamCodec {
    /// Returns the codec for a request that came by `downstream`; `None` when the endpoint has a say.
    #[must_use]
    pub fn of(self, downstream: Codec) -> Option<Codec> {
        match self {
            Self::Fixed(codec) => Some(codec),
            Self::Downstream => Some(downstream),
            Self::Negotiated => None,
        }
    }
}

impl Cluster {
    /// A cluster with every setting at its default.
    #[must_use]
    pub fn new(name: impl Into<String>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            alt_stat_name: String::new(),
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
            codec: UpstreamCodec::default(),
            idle_timeout: Duration::from_secs(3600),
            max_requests_per_connection: None,
            breakers: [Breakers::NONE, Breakers::default()],
            max_host_connections: None,
            panic_threshold: 50,
            health_check: None,
            outlier: None,
            tls: None,
            tls_matches: Vec::new(),
            names: RequestNames::default(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
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

    /// The name of its statistics.
    #[must_use]
    pub fn stat_name(&self) -> &str {
        if self.alt_stat_name.is_empty() { &self.name } else { &self.alt_stat_name }
    }

    pub(crate) fn from_proto(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Cluster as pb::Cluster, audit, path;
            supported: name, eds_cluster_config, connect_timeout, lb_policy, load_assignment, max_requests_per_connection,
                circuit_breakers, http_protocol_options, http2_protocol_options, typed_extension_protocol_options, dns_refresh_rate,
                dns_lookup_family, common_lb_config, transport_socket, cluster_discovery_type, lb_config, outlier_detection, lb_subset_config, health_checks,
                metadata, load_balancing_policy, alt_stat_name, transport_socket_matches, upstream_http_protocol_options;
            ignored: stats_matcher, per_connection_buffer_limit_bytes,
                per_connection_buffer_high_watermark_timeout, dns_jitter, dns_failure_refresh_rate,
                respect_dns_ttl, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
                typed_dns_resolver_config, wait_for_warm_on_init, cleanup_interval, protocol_selection,
                upstream_connection_options, close_connections_on_host_health_failure, ignore_health_on_host_removal,
                lrs_server, lrs_report_endpoint_metrics, track_timeout_budgets, track_cluster_stats, preconnect_policy,
                queuing_policies;
            refused: transport_socket_matcher, common_http_protocol_options, upstream_bind_config, filters,
                upstream_config, connection_pool_per_downstream_connection);
        if value.name.is_empty() {
            return Err(path.field("name").error("is required"));
        }
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
        let mut cluster = Self::new(value.name.clone(), discovery::decode(value, audit, path)?);
        cluster.alt_stat_name.clone_from(&value.alt_stat_name);
        cluster.tls = UpstreamTls::of_socket(value.transport_socket.as_ref(), audit, path)?;
        let of_matches = path.field("transport_socket_matches");
        for (i, matching) in value.transport_socket_matches.iter().enumerate() {
            cluster.tls_matches.push(TlsMatch::decode(matching, audit, &of_matches.index(i))?);
        }
        cluster.names = RequestNames::decode(value.upstream_http_protocol_options.as_ref(), audit, path)?;
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
        if let Some(http1) = &value.http_protocol_options {
            cluster.http1 = Http1Options::decode(http1, audit, &path.field("http_protocol_options"))?;
        }
        if let Some(http2) = &value.http2_protocol_options {
            cluster.http2 = Http2Options::decode(http2, audit, &path.field("http2_protocol_options"))?;
            cluster.codec = UpstreamCodec::Fixed(Codec::Http2);
        }
        protocol_options(value, &mut cluster, audit, path)?;
        // What is said of a protocol that is not spoken means nothing.
        match cluster.codec {
            UpstreamCodec::Fixed(Codec::Http1) => cluster.http2 = Http2Options::default(),
            UpstreamCodec::Fixed(Codec::Http2) => cluster.http1 = Http1Options::default(),
            UpstreamCodec::Downstream | UpstreamCodec::Negotiated => {}
        }
        breakers::decode(value, &mut cluster, audit, path)?;
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

    /// Takes the settings of the protocols.
    fn options(
        &mut self,
        http1: Option<&core::Http1ProtocolOptions>,
        http2: Option<&core::Http2ProtocolOptions>,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        if let Some(http1) = http1 {
            self.http1 = Http1Options::decode(http1, audit, &path.field("http_protocol_options"))?;
        }
        if let Some(http2) = http2 {
            self.http2 = Http2Options::decode(http2, audit, &path.field("http2_protocol_options"))?;
        }
        Ok(())
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
            alt_stat_name: self.alt_stat_name.clone(),
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
            transport_socket: self.tls.as_ref().map(UpstreamTls::encode),
            transport_socket_matches: self.tls_matches.iter().map(TlsMatch::encode).collect(),
            typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), convert::any(&self.proto_options()))].into(),
            ..Default::default()
        };
        balancing::encode(self, &mut proto);
        proto
    }

    fn proto_options(&self) -> pb_http::HttpProtocolOptions {
        use pb_http::http_protocol_options::{
            AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        };
        let explicit =
            |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
        pb_http::HttpProtocolOptions {
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: Some(convert::proto_duration(self.idle_timeout)),
                max_requests_per_connection: self.max_requests_per_connection.map(convert::wrap_u32),
                ..Default::default()
            }),
            upstream_protocol_options: Some(match self.codec {
                UpstreamCodec::Fixed(Codec::Http1) => {
                    explicit(ProtocolConfig::HttpProtocolOptions(self.http1.encode()))
                }
                UpstreamCodec::Fixed(Codec::Http2) => {
                    explicit(ProtocolConfig::Http2ProtocolOptions(self.http2.encode()))
                }
                UpstreamCodec::Downstream => {
                    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                        http_protocol_options: self.http1.said(),
                        http2_protocol_options: self.http2.said(),
                        ..Default::default()
                    })
                }
                UpstreamCodec::Negotiated => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
                    http_protocol_options: Some(self.http1.encode()),
                    http2_protocol_options: Some(self.http2.encode()),
                    ..Default::default()
                }),
            }),
            upstream_http_protocol_options: self.names.encode(),
            hash_policy: self.hash.iter().map(HashPolicy::encode).collect(),
            ..Default::default()
        }
    }
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

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
            supported: common_http_protocol_options, upstream_protocol_options, hash_policy, upstream_http_protocol_options;
            ignored: header_validation_config;
            refused: http_filters, outlier_detection, request_mirror_policies, retry_policy);
        if options.upstream_http_protocol_options.is_some() {
            cluster.names = RequestNames::decode(options.upstream_http_protocol_options.as_ref(), audit, &here)?;
        }
        let hash_path = here.field("hash_policy");
        for (i, policy) in options.hash_policy.iter().enumerate() {
            cluster.hash.push(HashPolicy::decode(policy, audit, &hash_path.index(i))?);
        }
        if let Some(common) = &options.common_http_protocol_options {
            let of = here.field("common_http_protocol_options");
            convert::audit_common_options(common, audit, &of)?;
            // These are carried out for clients alone.
            let only_downstream = [
                ("max_connection_duration", common.max_connection_duration.is_some()),
                ("max_headers_count", common.max_headers_count.is_some()),
                ("max_stream_duration", common.max_stream_duration.is_some()),
                ("headers_with_underscores_action", common.headers_with_underscores_action != 0),
            ];
            only_downstream.iter().filter(|(_, is_set)| *is_set).for_each(|(field, _)| audit.ignore(&of, field));
            if let Some(idle) = convert::optional_duration(common.idle_timeout.as_ref(), &here.field("idle_timeout"))? {
                cluster.idle_timeout = idle;
            }
            let limit = common.max_requests_per_connection.as_ref().map(|v| v.value).filter(|v| *v > 0);
            cluster.max_requests_per_connection = limit.or(cluster.max_requests_per_connection);
        }
        cluster.codec = match &options.upstream_protocol_options {
            Some(U::ExplicitHttpConfig(e)) => {
                let here = here.field("explicit_http_config");
                match &e.protocol_config {
                    Some(P::Http2ProtocolOptions(http2)) => {
                        cluster.options(None, Some(http2), audit, &here)?;
                        UpstreamCodec::Fixed(Codec::Http2)
                    }
                    Some(P::Http3ProtocolOptions(_)) => return Err(here.error("HTTP/3 is not supported")),
                    Some(P::HttpProtocolOptions(http1)) => {
                        cluster.options(Some(http1), None, audit, &here)?;
                        UpstreamCodec::Fixed(Codec::Http1)
                    }
                    None => return Err(here.error("needs a protocol")),
                }
            }
            Some(U::UseDownstreamProtocolConfig(of)) => {
                let here = here.field("use_downstream_protocol_config");
                let (http1, http2) = (of.http_protocol_options.as_ref(), of.http2_protocol_options.as_ref());
                cluster.options(http1, http2, audit, &here)?;
                UpstreamCodec::Downstream
            }
            Some(U::AutoConfig(of)) => {
                let here = here.field("auto_config");
                let (http1, http2) = (of.http_protocol_options.as_ref(), of.http2_protocol_options.as_ref());
                cluster.options(http1, http2, audit, &here)?;
                UpstreamCodec::Negotiated
            }
            None => cluster.codec,
        };
    }
    Ok(())
}
