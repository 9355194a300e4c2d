//! TCP proxy: bytes to a cluster, unread (`envoy.filters.network.tcp_proxy`).
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::collections::BTreeMap;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as pb_inner;
use envoy_types::pb::envoy::r#type::v3 as pb_hash;

use crate::access_log::AccessLog;
use crate::convert;
use crate::{Audit, Error, Path};

/// The destination of a connection's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Clusters, of which a connection draws one.
    pub clusters: Vec<WeightedTarget>,
    /// Metadata that endpoints must have, by key.
    pub metadata: BTreeMap<String, String>,
    /// Whether connections of one source go to the same endpoint, where its cluster goes by hash.
    pub hashes_source: bool,
    /// Longest time that a connection lasts; zero is for ever.
    pub max_duration: Duration,
    /// The logs of connections.
    pub access_logs: Vec<AccessLog>,
    /// The moments at which they are logged, besides their end.
    pub log_moments: TcpLogMoments,
    /// Longest time without a byte either way; zero is for ever.
    pub idle_timeout: Duration,
    /// Endpoints that are tried before the client is let go.
    pub connect_attempts: u32,
}

/// A cluster, and how many connections of all it gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightedTarget {
    /// Its name.
    pub name: String,
    /// Its weight among all.
    pub weight: u32,
    /// Metadata that endpoints must have besides, by key.
    pub metadata: BTreeMap<String, String>,
}

impl WeightedTarget {
    fn only(name: String) -> Self {
        Self { name, weight: 1, metadata: BTreeMap::new() }
    }
}

/// The moments at which connections are logged, besides their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpLogMoments {
    /// When the connection has come.
    pub start: bool,
    /// When its upstream is connected.
    pub connected: bool,
}

impl TcpProxy {
    /// A proxy to one cluster with every setting at its default.
    #[must_use]
    pub fn new(stat_prefix: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            clusters: vec![WeightedTarget::only(cluster.into())],
            metadata: BTreeMap::new(),
            hashes_source: false,
            max_duration: Duration::ZERO,
            access_logs: Vec::new(),
            log_moments: TcpLogMoments::default(),
            idle_timeout: Duration::from_secs(3600),
            connect_attempts: 1,
        }
    }

    pub(crate) fn decode(value: &pb::TcpProxy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::TcpProxy as pb::TcpProxy, audit, path;
            supported: stat_prefix, idle_timeout, max_connect_attempts, cluster_specifier, access_log,
                flush_access_log_on_connected, access_log_options, metadata_match, hash_policy,
                max_downstream_connection_duration;
            ignored: backoff_options, access_log_flush_interval;
            refused: on_demand, downstream_idle_timeout, upstream_idle_timeout, tunneling_config,
                max_downstream_connection_duration_jitter_percentage, proxy_protocol_tlvs,
                proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes, check_drain_close);
        let clusters = match &value.cluster_specifier {
            Some(pb_inner::ClusterSpecifier::Cluster(name)) => {
                if name.is_empty() {
                    return Err(path.field("cluster").error("is required"));
                }
                vec![WeightedTarget::only(name.clone())]
            }
            Some(pb_inner::ClusterSpecifier::WeightedClusters(weighted)) => {
                let path = path.field("weighted_clusters");
                let path = path.field("clusters");
                if weighted.clusters.is_empty() {
                    return Err(path.error("needs a cluster"));
                }
                let target = |(i, c): (usize, &pb_inner::weighted_cluster::ClusterWeight)| {
                    let here = path.index(i);
                    match c {
                        _ if c.name.is_empty() => Err(here.field("name").error("is required")),
                        _ if c.weight == 0 => Err(here.field("weight").error("must be at least 1")),
                        _ => Ok(WeightedTarget {
                            name: c.name.clone(),
                            weight: c.weight,
                            metadata: convert::metadata(c.metadata_match.as_ref(), &here.field("metadata_match"))?,
                        }),
                    }
                };
                weighted.clusters.iter().enumerate().map(target).collect::<Result<_, _>>()?
            }
            None => return Err(path.error("needs cluster or weighted_clusters")),
        };
        let mut proxy = Self { clusters, ..Self::new(value.stat_prefix.clone(), "") };
        if let Some(idle) = convert::optional_duration(value.idle_timeout.as_ref(), &path.field("idle_timeout"))? {
            proxy.idle_timeout = idle;
        }
        proxy.connect_attempts = value.max_connect_attempts.as_ref().map_or(1, |v| v.value);
        if proxy.connect_attempts == 0 {
            return Err(path.field("max_connect_attempts").error("must be at least 1"));
        }
        proxy.metadata = convert::metadata(value.metadata_match.as_ref(), &path.field("metadata_match"))?;
        proxy.hashes_source = hashes_source(&value.hash_policy, &path.field("hash_policy"))?;
        let most = value.max_downstream_connection_duration.as_ref();
        let of_most = path.field("max_downstream_connection_duration");
        if let Some(most) = convert::optional_duration(most, &of_most)? {
            if most < Duration::from_millis(1) {
                return Err(of_most.error("must be at least 1 ms"));
            }
            proxy.max_duration = most;
        }
        let log_path = path.field("access_log");
        for (i, log) in value.access_log.iter().enumerate() {
            proxy.access_logs.push(AccessLog::decode(log, audit, &log_path.index(i))?);
        }
        proxy.log_moments = TcpLogMoments { start: false, connected: value.flush_access_log_on_connected };
        if let Some(options) = &value.access_log_options {
            if options.access_log_flush_interval.is_some() {
                audit.ignore(&path.field("access_log_options"), "access_log_flush_interval");
            }
            let (start, connected) = (options.flush_access_log_on_start, options.flush_access_log_on_connected);
            proxy.log_moments = TcpLogMoments { start, connected };
        }
        Ok(proxy)
    }

    pub(crate) fn encode(&self) -> pb::TcpProxy {
        let weight = |target: &WeightedTarget| pb_inner::weighted_cluster::ClusterWeight {
            name: target.name.clone(),
            weight: target.weight,
            metadata_match: convert::proto_metadata(&target.metadata),
        };
        let specifier = match self.clusters.as_slice() {
            [only] if only.metadata.is_empty() && only.weight == 1 => {
                pb_inner::ClusterSpecifier::Cluster(only.name.clone())
            }
            several => pb_inner::ClusterSpecifier::WeightedClusters(pb_inner::WeightedCluster {
                clusters: several.iter().map(weight).collect(),
            }),
        };
        pb::TcpProxy {
            stat_prefix: self.stat_prefix.clone(),
            cluster_specifier: Some(specifier),
            idle_timeout: Some(convert::proto_duration(self.idle_timeout)),
            max_connect_attempts: Some(convert::wrap_u32(self.connect_attempts)),
            metadata_match: convert::proto_metadata(&self.metadata),
            hash_policy: self.hashes_source.then(source_hash).into_iter().collect(),
            max_downstream_connection_duration: (!self.max_duration.is_zero())
                .then(|| convert::proto_duration(self.max_duration)),
            access_log: self.access_logs.iter().map(AccessLog::encode).collect(),
            access_log_options: (self.log_moments != TcpLogMoments::default()).then(|| pb_inner::TcpAccessLogOptions {
                flush_access_log_on_start: self.log_moments.start,
                flush_access_log_on_connected: self.log_moments.connected,
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// Whether connections go by their source.
fn hashes_source(policies: &[pb_hash::HashPolicy], path: &Path<'_>) -> Result<bool, Error> {
    use pb_hash::hash_policy::PolicySpecifier as P;
    match policies {
        [] => Ok(false),
        [only] => match &only.policy_specifier {
            Some(P::SourceIp(_)) => Ok(true),
            Some(P::FilterState(_)) => Err(Audit::refuse(path, "filter_state")),
            None => Err(path.error("needs a policy")),
        },
        _ => Err(path.error("at most one is supported")),
    }
}

fn source_hash() -> pb_hash::HashPolicy {
    use pb_hash::hash_policy::{PolicySpecifier, SourceIp};
    pb_hash::HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) }
}
