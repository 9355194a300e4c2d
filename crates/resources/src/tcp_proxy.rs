//! TCP proxy: bytes to a cluster, unread (`envoy.filters.network.tcp_proxy`).
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as pb_inner;

use crate::convert;
use crate::{Audit, Error, Path};

/// The destination of a connection's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// Clusters with their weights, of which a connection draws one.
    pub clusters: Vec<(String, u32)>,
    /// Longest time without a byte either way; zero is for ever.
    pub idle_timeout: Duration,
    /// Endpoints that are tried before the client is let go.
    pub connect_attempts: u32,
}

impl TcpProxy {
    /// A proxy to one cluster with every setting at its default.
    #[must_use]
    pub fn new(stat_prefix: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            clusters: vec![(cluster.into(), 1)],
            idle_timeout: Duration::from_secs(3600),
            connect_attempts: 1,
        }
    }

    pub(crate) fn decode(value: &pb::TcpProxy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::TcpProxy as pb::TcpProxy, audit, path;
            supported: stat_prefix, idle_timeout, max_connect_attempts, cluster_specifier;
            ignored: access_log, backoff_options, access_log_flush_interval, flush_access_log_on_connected, access_log_options;
            refused: on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, hash_policy,
                tunneling_config, max_downstream_connection_duration,
                max_downstream_connection_duration_jitter_percentage, proxy_protocol_tlvs,
                proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes, check_drain_close);
        let clusters = match &value.cluster_specifier {
            Some(pb_inner::ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 1)],
            Some(pb_inner::ClusterSpecifier::WeightedClusters(weighted)) => {
                if weighted.clusters.iter().all(|c| c.weight == 0) {
                    let path = path.field("weighted_clusters");
                    return Err(path.field("clusters").error("needs a weight that is not 0"));
                }
                match weighted.clusters.as_slice() {
                    [only] => vec![(only.name.clone(), 1)],
                    several => several.iter().map(|c| (c.name.clone(), c.weight)).collect(),
                }
            }
            None => return Err(path.error("needs cluster or weighted_clusters")),
        };
        let mut proxy = Self { clusters, ..Self::new(value.stat_prefix.clone(), "") };
        if let Some(idle) = convert::optional_duration(value.idle_timeout.as_ref(), &path.field("idle_timeout"))? {
            proxy.idle_timeout = idle;
        }
        proxy.connect_attempts = value.max_connect_attempts.as_ref().map_or(1, |v| v.value.max(1));
        Ok(proxy)
    }

    pub(crate) fn encode(&self) -> pb::TcpProxy {
        let weight = |(name, weight): &(String, u32)| pb_inner::weighted_cluster::ClusterWeight {
            name: name.clone(),
            weight: *weight,
            ..Default::default()
        };
        let specifier = match self.clusters.as_slice() {
            [(only, _)] => pb_inner::ClusterSpecifier::Cluster(only.clone()),
            several => pb_inner::ClusterSpecifier::WeightedClusters(pb_inner::WeightedCluster {
                clusters: several.iter().map(weight).collect(),
            }),
        };
        pb::TcpProxy {
            stat_prefix: self.stat_prefix.clone(),
            cluster_specifier: Some(specifier),
            idle_timeout: Some(convert::proto_duration(self.idle_timeout)),
            max_connect_attempts: Some(convert::wrap_u32(self.connect_attempts)),
            ..Default::default()
        }
    }
}
