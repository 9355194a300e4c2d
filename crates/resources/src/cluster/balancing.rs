//! Reads and writes the fields of a cluster that say how an endpoint of it is chosen.

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::cluster as pbc;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::balancer::{Balancer, SlowStart, SubsetConfig, SubsetFallback, SubsetSelector, ZoneAware};
use super::{Cluster, policy};
use crate::convert;
use crate::{Audit, Error, Path};

pub(super) fn balancer(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Balancer, Error> {
    use pbc::{LbConfig, LbPolicy};
    let config = value.lb_config.as_ref();
    match LbPolicy::try_from(value.lb_policy) {
        Ok(LbPolicy::RoundRobin) => Ok(Balancer::RoundRobin),
        Ok(LbPolicy::Random) => Ok(Balancer::Random),
        Ok(LbPolicy::LeastRequest) => {
            let Some(LbConfig::LeastRequestLbConfig(c)) = config else {
                return Ok(Balancer::LeastRequest { choices: 2, bias: 1000 });
            };
            audit!(c, pbc::LeastRequestLbConfig as pbc::LeastRequestLbConfig, audit, path;
                supported: choice_count, active_request_bias, slow_start_config; ignored: ; refused: );
            let bias = c.active_request_bias.as_ref().map_or(1.0, |b| convert::runtime_f64(b, audit));
            Ok(Balancer::LeastRequest {
                choices: c.choice_count.as_ref().map_or(2, |v| v.value).max(2),
                bias: convert::thousandths(bias.max(0.0)),
            })
        }
        Ok(LbPolicy::RingHash) => {
            let (mut least, mut most, mut murmur) = (1024, RING_LIMIT, false);
            if let Some(LbConfig::RingHashLbConfig(c)) = config {
                audit!(c, pbc::RingHashLbConfig as pbc::RingHashLbConfig, audit, path;
                    supported: minimum_ring_size, maximum_ring_size, hash_function; ignored: ; refused: );
                least = c.minimum_ring_size.as_ref().map_or(least, |v| v.value);
                most = c.maximum_ring_size.as_ref().map_or(most, |v| v.value);
                murmur = c.hash_function == pbc::ring_hash_lb_config::HashFunction::MurmurHash2 as i32;
            }
            if least > most || most > RING_LIMIT {
                return Err(path
                    .field("ring_hash_lb_config")
                    .error("the ring's sizes must be at most 8388608, in order"));
            }
            Ok(Balancer::RingHash { least, most, murmur })
        }
        Ok(LbPolicy::Maglev) => {
            let mut size = 65_537;
            if let Some(LbConfig::MaglevLbConfig(c)) = config {
                audit!(c, pbc::MaglevLbConfig as pbc::MaglevLbConfig, audit, path;
                    supported: table_size; ignored: ; refused: );
                size = c.table_size.as_ref().map_or(size, |v| v.value);
            }
            let prime = size > 1 && (2..).take_while(|d| d * d <= size).all(|d| size % d != 0);
            if !prime || size > 5_000_011 {
                let here = path.field("maglev_lb_config");
                return Err(here.field("table_size").error("must be a prime number up to 5000011"));
            }
            Ok(Balancer::Maglev { size })
        }
        Ok(other) => Err(path.field("lb_policy").error(format!("{} is not supported", other.as_str_name()))),
        Err(_) => Err(path.field("lb_policy").error("is no known policy")),
    }
}

const RING_LIMIT: u64 = 8_388_608;

pub(super) fn slow_start(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Option<SlowStart>, Error> {
    use pbc::LbConfig;
    use pbc::LbPolicy as P;
    let config = match (&value.lb_config, value.lb_policy()) {
        (Some(LbConfig::LeastRequestLbConfig(c)), P::LeastRequest) => c.slow_start_config.as_ref(),
        (Some(LbConfig::RoundRobinLbConfig(c)), P::RoundRobin) => c.slow_start_config.as_ref(),
        (Some(LbConfig::RingHashLbConfig(_)), P::RingHash)
        | (Some(LbConfig::MaglevLbConfig(_)), P::Maglev)
        | (None, _) => None,
        (Some(_), _) => {
            // The settings of another policy.
            audit.ignore(path, "lb_config");
            None
        }
    };
    let Some(config) = config else { return Ok(None) };
    let window = convert::optional_duration(config.slow_start_window.as_ref(), &path.field("slow_start_window"))?;
    let aggression = config.aggression.as_ref().map_or(1.0, |a| convert::runtime_f64(a, audit));
    Ok(window.filter(|w| !w.is_zero()).map(|window| SlowStart {
        window,
        aggression: convert::thousandths(aggression.max(0.001)),
        least_percent: config.min_weight_percent.as_ref().map_or(10, |p| p.value.clamp(0.0, 100.0) as u32),
    }))
}

pub(super) fn common(
    value: &pbc::CommonLbConfig,
    cluster: &mut Cluster,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<(), Error> {
    use pbc::common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier as L, ZoneAwareLbConfig};
    audit!(value, pbc::CommonLbConfig as pbc::CommonLbConfig, audit, path;
        supported: healthy_panic_threshold, consistent_hashing_lb_config, locality_config_specifier;
        ignored: update_merge_window, ignore_new_hosts_until_first_hc, close_connections_on_host_set_change,
            override_host_status;
        refused: );
    if let Some(percent) = &value.healthy_panic_threshold {
        cluster.panic_threshold = percent.value.clamp(0.0, 100.0) as u8;
    }
    if let Some(hashing) = &value.consistent_hashing_lb_config {
        audit!(hashing, ConsistentHashingLbConfig as ConsistentHashingLbConfig, audit, path;
            supported: use_hostname_for_hashing, hash_balance_factor; ignored: ; refused: );
        cluster.hash_hostnames = hashing.use_hostname_for_hashing;
        cluster.hash_balance_factor = hashing.hash_balance_factor.as_ref().map_or(0, |v| v.value);
    }
    match &value.locality_config_specifier {
        Some(L::LocalityWeightedLbConfig(_)) => cluster.locality_weighted = true,
        Some(L::ZoneAwareLbConfig(zone)) => {
            let here = path.field("zone_aware_lb_config");
            audit!(zone, ZoneAwareLbConfig as ZoneAwareLbConfig, audit, &here;
                supported: routing_enabled, min_cluster_size;
                ignored: ; refused: fail_traffic_on_panic);
            cluster.zone_aware = Some(ZoneAware {
                enabled: convert::percent_parts(zone.routing_enabled.as_ref().map_or(100.0, |p| p.value)),
                smallest: zone.min_cluster_size.as_ref().map_or(6, |v| v.value),
            });
        }
        None => {}
    }
    Ok(())
}

pub(super) fn subsets(
    value: &pbc::LbSubsetConfig,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<SubsetConfig>, Error> {
    use pbc::lb_subset_config::LbSubsetSelector;
    audit!(value, pbc::LbSubsetConfig as pbc::LbSubsetConfig, audit, path;
        supported: fallback_policy, default_subset, subset_selectors;
        ignored: ;
        refused: locality_weight_aware, scale_locality_weight, panic_mode_any, list_as_any, metadata_fallback_policy);
    if value.subset_selectors.is_empty() {
        return Ok(None);
    }
    let mut selectors = Vec::new();
    let list = path.field("subset_selectors");
    for (i, selector) in value.subset_selectors.iter().enumerate() {
        let here = list.index(i);
        audit!(selector, LbSubsetSelector as LbSubsetSelector, audit, &here;
            supported: keys, fallback_policy, fallback_keys_subset; ignored: ; refused: single_host_per_subset);
        let mut keys = selector.keys.clone();
        keys.sort();
        let fewer = &selector.fallback_keys_subset;
        let proper =
            !fewer.is_empty() && fewer.iter().all(|k| keys.contains(k)) && !keys.iter().all(|k| fewer.contains(k));
        if selector.fallback_policy == 4 && !proper {
            return Err(here.field("fallback_keys_subset").error("must be some of the keys, and not all"));
        }
        selectors.push(SubsetSelector {
            keys,
            fallback: match selector.fallback_policy {
                0 => None,
                1 => Some(SubsetFallback::None),
                2 => Some(SubsetFallback::Any),
                3 => Some(SubsetFallback::Default),
                4 => Some(SubsetFallback::Keys),
                _ => return Err(here.field("fallback_policy").error("is no known policy")),
            },
            fallback_keys: selector.fallback_keys_subset.clone(),
        });
    }
    Ok(Some(SubsetConfig {
        selectors,
        fallback: match value.fallback_policy {
            0 => SubsetFallback::None,
            1 => SubsetFallback::Any,
            2 => SubsetFallback::Default,
            _ => return Err(path.field("fallback_policy").error("is no known policy")),
        },
        default: value.default_subset.as_ref().map(convert::plain_fields).unwrap_or_default(),
    }))
}

/// Puts into a cluster's message how its endpoints are chosen.
pub(super) fn encode(cluster: &Cluster, proto: &mut pb::Cluster) {
    use pbc::{LbConfig, LbPolicy};
    let wrap = |value| Some(envoy_types::pb::google::protobuf::UInt64Value { value });
    let slow = cluster.slow_start.map(|s| pbc::SlowStartConfig {
        slow_start_window: Some(convert::proto_duration(s.window)),
        min_weight_percent: Some(convert::proto_percent(s.least_percent)),
        aggression: (s.aggression != 1000).then(|| thousandths(s.aggression, "slow_start.aggression")),
    });
    let (policy, config) = match cluster.balancer {
        Balancer::RoundRobin => (
            LbPolicy::RoundRobin,
            slow.map(|s| LbConfig::RoundRobinLbConfig(pbc::RoundRobinLbConfig { slow_start_config: Some(s) })),
        ),
        Balancer::Random => (LbPolicy::Random, None),
        Balancer::LeastRequest { choices, bias } => (
            LbPolicy::LeastRequest,
            (choices != 2 || bias != 1000 || slow.is_some()).then(|| {
                LbConfig::LeastRequestLbConfig(pbc::LeastRequestLbConfig {
                    choice_count: Some(convert::wrap_u32(choices)),
                    active_request_bias: (bias != 1000).then(|| thousandths(bias, "least_request.bias")),
                    slow_start_config: slow,
                })
            }),
        ),
        Balancer::RingHash { least, most, murmur } => (
            LbPolicy::RingHash,
            Some(LbConfig::RingHashLbConfig(pbc::RingHashLbConfig {
                minimum_ring_size: wrap(least),
                maximum_ring_size: wrap(most),
                hash_function: i32::from(murmur),
            })),
        ),
        Balancer::Maglev { size } => {
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(pbc::MaglevLbConfig { table_size: wrap(size) })))
        }
        Balancer::Reported | Balancer::PeakEwma { .. } => {
            proto.load_balancing_policy = Some(policy::encode(cluster, slow));
            (LbPolicy::RoundRobin, None)
        }
    };
    proto.lb_policy = policy as i32;
    proto.lb_config = config;
    proto.common_lb_config = Some(encode_common(cluster));
    proto.lb_subset_config = cluster.subsets.as_ref().map(encode_subsets);
}

/// A number of thousandths. Envoy wants a key, under which nothing stands.
fn thousandths(value: u32, key: &str) -> core::RuntimeDouble {
    core::RuntimeDouble { default_value: f64::from(value) / 1000.0, runtime_key: key.to_owned() }
}

fn encode_common(cluster: &Cluster) -> pbc::CommonLbConfig {
    use pbc::common_lb_config::{
        ConsistentHashingLbConfig, LocalityConfigSpecifier as L, LocalityWeightedLbConfig, ZoneAwareLbConfig,
    };
    let hashing = cluster.hash_hostnames || cluster.hash_balance_factor > 0;
    let weighted = cluster.locality_weighted.then_some(L::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    let zone_aware = cluster.zone_aware.map(|zone| {
        L::ZoneAwareLbConfig(ZoneAwareLbConfig {
            routing_enabled: Some(Percent { value: f64::from(zone.enabled) / 10_000.0 }),
            min_cluster_size: Some(envoy_types::pb::google::protobuf::UInt64Value { value: zone.smallest }),
            ..Default::default()
        })
    });
    pbc::CommonLbConfig {
        healthy_panic_threshold: Some(convert::proto_percent(cluster.panic_threshold.into())),
        consistent_hashing_lb_config: hashing.then(|| ConsistentHashingLbConfig {
            use_hostname_for_hashing: cluster.hash_hostnames,
            hash_balance_factor: (cluster.hash_balance_factor > 0)
                .then(|| convert::wrap_u32(cluster.hash_balance_factor)),
        }),
        locality_config_specifier: weighted.or(zone_aware),
        ..Default::default()
    }
}

fn encode_subsets(subsets: &SubsetConfig) -> pbc::LbSubsetConfig {
    let selector = |selector: &SubsetSelector| pbc::lb_subset_config::LbSubsetSelector {
        keys: selector.keys.clone(),
        fallback_policy: match selector.fallback {
            None => 0,
            Some(SubsetFallback::None) => 1,
            Some(SubsetFallback::Any) => 2,
            Some(SubsetFallback::Default) => 3,
            Some(SubsetFallback::Keys) => 4,
        },
        fallback_keys_subset: selector.fallback_keys.clone(),
        ..Default::default()
    };
    pbc::LbSubsetConfig {
        // Only a selector can fall back to fewer keys.
        fallback_policy: match subsets.fallback {
            SubsetFallback::None | SubsetFallback::Keys => 0,
            SubsetFallback::Any => 1,
            SubsetFallback::Default => 2,
        },
        default_subset: (!subsets.default.is_empty()).then(|| convert::proto_fields(&subsets.default)),
        subset_selectors: subsets.selectors.iter().map(selector).collect(),
        ..Default::default()
    }
}
