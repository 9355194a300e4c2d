//! `load_balancing_policy`: the newer way to say how an endpoint is chosen, read as the older fields of the cluster that mean
//! the same, and the policies that have no older form.
//!
//! Policies are tried in order, and the first that is known here is taken (Envoy, `LoadBalancingPolicy`).

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::cluster::v3::cluster as pbc;
use envoy_types::pb::envoy::extensions::load_balancing_policies as ext;
use envoy_types::pb::google::protobuf as wkt;
use prost::Name;

use super::Cluster;
use super::balancer::{Balancer, Reported};

/// A policy, with what it weighs by where backends report.
pub(super) type Chosen = (Balancer, Option<Reported>);
use crate::convert;
use crate::{Audit, Error, Path};

/// Envoy's contributed policy of that name; Serin reads the time in which a measurement loses its weight.
#[derive(Clone, PartialEq, prost::Message)]
struct PeakEwma {
    #[prost(message, optional, tag = "1")]
    decay_time: Option<wkt::Duration>,
}

const PEAK_EWMA: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma";

/// The time for which a measurement counts by default.
const DECAY: Duration = Duration::from_secs(10);

/// Puts into the older fields of `cluster` what the newer one says; a policy that has none is returned.
pub(super) fn apply(
    policy: &pb::LoadBalancingPolicy,
    cluster: &mut pb::Cluster,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<Chosen>, Error> {
    let list = path.field("policies");
    let mut unknown = Vec::new();
    for (i, policy) in policy.policies.iter().enumerate() {
        let item = list.index(i);
        let here = item.field("typed_extension_config");
        let Some(any) = policy.typed_extension_config.as_ref().and_then(|c| c.typed_config.as_ref()) else {
            return Err(here.error("needs a typed_config"));
        };
        match one(any, cluster, audit, &here)? {
            Found::Older => return Ok(None),
            Found::New(chosen) => return Ok(Some(*chosen)),
            Found::Nothing => unknown.push(any.type_url.clone()),
        }
    }
    Err(path.error(format!("no policy is supported: {}", unknown.join(", "))))
}

enum Found {
    Older,
    New(Box<Chosen>),
    Nothing,
}

fn one(any: &wkt::Any, cluster: &mut pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Found, Error> {
    use pbc::{LbConfig, LbPolicy};
    let is = |url: String| any.type_url == url;
    if is(ext::round_robin::v3::RoundRobin::type_url()) {
        let c: ext::round_robin::v3::RoundRobin = convert::from_any(any, path)?;
        locality(c.locality_lb_config, cluster, path)?;
        cluster.set_lb_policy(LbPolicy::RoundRobin);
        let config = pbc::RoundRobinLbConfig { slow_start_config: c.slow_start_config.map(slow) };
        cluster.lb_config = Some(LbConfig::RoundRobinLbConfig(config));
    } else if is(ext::random::v3::Random::type_url()) {
        let c: ext::random::v3::Random = convert::from_any(any, path)?;
        locality(c.locality_lb_config, cluster, path)?;
        cluster.set_lb_policy(LbPolicy::Random);
    } else if is(ext::least_request::v3::LeastRequest::type_url()) {
        let c: ext::least_request::v3::LeastRequest = convert::from_any(any, path)?;
        if c.enable_full_scan.is_some_and(|v| v.value) || c.selection_method != 0 {
            return Err(Audit::refuse(path, "selection_method"));
        }
        locality(c.locality_lb_config, cluster, path)?;
        cluster.set_lb_policy(LbPolicy::LeastRequest);
        cluster.lb_config = Some(LbConfig::LeastRequestLbConfig(pbc::LeastRequestLbConfig {
            choice_count: c.choice_count,
            active_request_bias: c.active_request_bias,
            slow_start_config: c.slow_start_config.map(slow),
        }));
    } else if is(ext::ring_hash::v3::RingHash::type_url()) {
        let c: ext::ring_hash::v3::RingHash = convert::from_any(any, path)?;
        let old = ext::common::v3::ConsistentHashingLbConfig {
            use_hostname_for_hashing: c.use_hostname_for_hashing,
            hash_balance_factor: c.hash_balance_factor,
            ..Default::default()
        };
        hashing(&c.consistent_hashing_lb_config.unwrap_or(old), cluster, path)?;
        weighted(c.locality_weighted_lb_config.is_some(), cluster);
        cluster.set_lb_policy(LbPolicy::RingHash);
        cluster.lb_config = Some(LbConfig::RingHashLbConfig(pbc::RingHashLbConfig {
            minimum_ring_size: c.minimum_ring_size,
            maximum_ring_size: c.maximum_ring_size,
            // There: 0 default, 1 xxHash, 2 MurmurHash2; here 0 and 1.
            hash_function: i32::from(c.hash_function == 2),
        }));
    } else if is(ext::maglev::v3::Maglev::type_url()) {
        let c: ext::maglev::v3::Maglev = convert::from_any(any, path)?;
        hashing(&c.consistent_hashing_lb_config.unwrap_or_default(), cluster, path)?;
        weighted(c.locality_weighted_lb_config.is_some(), cluster);
        cluster.set_lb_policy(LbPolicy::Maglev);
        cluster.lb_config = Some(LbConfig::MaglevLbConfig(pbc::MaglevLbConfig { table_size: c.table_size }));
    } else if is(ext::wrr_locality::v3::WrrLocality::type_url()) {
        let c: ext::wrr_locality::v3::WrrLocality = convert::from_any(any, path)?;
        let inner = c.endpoint_picking_policy.unwrap_or_default();
        let found = apply(&inner, cluster, audit, &path.field("endpoint_picking_policy"))?;
        weighted(true, cluster);
        return Ok(found.map_or(Found::Older, |chosen| Found::New(Box::new(chosen))));
    } else if is(ext::subset::v3::Subset::type_url()) {
        let c: ext::subset::v3::Subset = convert::from_any(any, path)?;
        let inner = c.subset_lb_policy.clone().unwrap_or_default();
        cluster.lb_subset_config = Some(subset(c));
        let found = apply(&inner, cluster, audit, &path.field("subset_lb_policy"))?;
        return Ok(found.map_or(Found::Older, |chosen| Found::New(Box::new(chosen))));
    } else if is(ext::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin::type_url()) {
        return Ok(Found::New(Box::new((Balancer::Reported, Some(reported(any, cluster, audit, path)?)))));
    } else if any.type_url == PEAK_EWMA {
        let c = <PeakEwma as prost::Message>::decode(any.value.as_slice()).map_err(|e| path.error(e.to_string()))?;
        let decay = convert::optional_duration(c.decay_time.as_ref(), &path.field("decay_time"))?;
        let decay = decay.filter(|d| !d.is_zero()).unwrap_or(DECAY);
        return Ok(Found::New(Box::new((Balancer::PeakEwma { decay }, None))));
    } else {
        return Ok(Found::Nothing);
    }
    Ok(Found::Older)
}

fn slow(c: ext::common::v3::SlowStartConfig) -> pbc::SlowStartConfig {
    pbc::SlowStartConfig {
        slow_start_window: c.slow_start_window,
        aggression: c.aggression,
        min_weight_percent: c.min_weight_percent,
    }
}

fn common(cluster: &mut pb::Cluster) -> &mut pbc::CommonLbConfig {
    cluster.common_lb_config.get_or_insert_default()
}

fn weighted(on: bool, cluster: &mut pb::Cluster) {
    use pbc::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let new = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    common(cluster).locality_config_specifier = on.then_some(new);
}

fn locality(
    config: Option<ext::common::v3::LocalityLbConfig>,
    cluster: &mut pb::Cluster,
    path: &Path<'_>,
) -> Result<(), Error> {
    use ext::common::v3::locality_lb_config::LocalityConfigSpecifier as L;
    use pbc::common_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
    match config.and_then(|c| c.locality_config_specifier) {
        Some(L::LocalityWeightedLbConfig(_)) => weighted(true, cluster),
        Some(L::ZoneAwareLbConfig(zone))
            if zone.force_locality_direct_routing || zone.force_local_zone.is_some() || zone.locality_basis != 0 =>
        {
            let path = path.field("locality_lb_config");
            return Err(Audit::refuse(&path, "zone_aware_lb_config"));
        }
        Some(L::ZoneAwareLbConfig(zone)) => {
            let zone = ZoneAwareLbConfig {
                routing_enabled: zone.routing_enabled,
                min_cluster_size: zone.min_cluster_size,
                fail_traffic_on_panic: zone.fail_traffic_on_panic,
            };
            common(cluster).locality_config_specifier = Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone));
        }
        None => weighted(false, cluster),
    }
    Ok(())
}

fn hashing(
    config: &ext::common::v3::ConsistentHashingLbConfig,
    cluster: &mut pb::Cluster,
    path: &Path<'_>,
) -> Result<(), Error> {
    if !config.hash_policy.is_empty() {
        return Err(Audit::refuse(&path.field("consistent_hashing_lb_config"), "hash_policy"));
    }
    common(cluster).consistent_hashing_lb_config = Some(pbc::common_lb_config::ConsistentHashingLbConfig {
        use_hostname_for_hashing: config.use_hostname_for_hashing,
        hash_balance_factor: config.hash_balance_factor,
    });
    Ok(())
}

fn subset(c: ext::subset::v3::Subset) -> pbc::LbSubsetConfig {
    let selector = |s: ext::subset::v3::subset::LbSubsetSelector| pbc::lb_subset_config::LbSubsetSelector {
        keys: s.keys,
        single_host_per_subset: s.single_host_per_subset,
        fallback_policy: s.fallback_policy,
        fallback_keys_subset: s.fallback_keys_subset,
    };
    pbc::LbSubsetConfig {
        fallback_policy: c.fallback_policy,
        default_subset: c.default_subset,
        subset_selectors: c.subset_selectors.into_iter().map(selector).collect(),
        locality_weight_aware: c.locality_weight_aware,
        scale_locality_weight: c.scale_locality_weight,
        panic_mode_any: c.panic_mode_any,
        list_as_any: c.list_as_any,
        metadata_fallback_policy: c.metadata_fallback_policy,
    }
}

fn reported(any: &wkt::Any, cluster: &mut pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Reported, Error> {
    use ext::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
    let c: ClientSideWeightedRoundRobin = convert::from_any(any, path)?;
    audit!(&c, ClientSideWeightedRoundRobin as ClientSideWeightedRoundRobin, audit, path;
        supported: blackout_period, weight_expiration_period, error_utilization_penalty,
            metric_names_for_computing_utilization, enable_oob_load_report, slow_start_config, weight_update_period;
        ignored: oob_reporting_period, oob_reporting_config; refused: );
    if c.enable_oob_load_report.is_some_and(|v| v.value) {
        return Err(Audit::refuse(path, "enable_oob_load_report"));
    }
    cluster.lb_config = c
        .slow_start_config
        .map(|s| pbc::LbConfig::RoundRobinLbConfig(pbc::RoundRobinLbConfig { slow_start_config: Some(slow(s)) }));
    let time = |value: &Option<wkt::Duration>, field: &str, default: Duration| {
        convert::optional_duration(value.as_ref(), &path.field(field)).map(|given| given.unwrap_or(default))
    };
    let defaults = Reported::default();
    let penalty = c.error_utilization_penalty.map_or(1.0, |v| f64::from(v.value));
    if !(0.0..=1000.0).contains(&penalty) {
        return Err(path.field("error_utilization_penalty").error("must be from 0 to 1000"));
    }
    Ok(Reported {
        blackout: time(&c.blackout_period, "blackout_period", defaults.blackout)?,
        expiration: time(&c.weight_expiration_period, "weight_expiration_period", defaults.expiration)?,
        penalty: convert::thousandths(penalty),
        metrics: c.metric_names_for_computing_utilization,
        update: time(&c.weight_update_period, "weight_update_period", defaults.update)?.max(Duration::from_millis(100)),
    })
}

/// The policies that have no older form, as a cluster's message says them.
pub(super) fn encode(cluster: &Cluster, slow: Option<pbc::SlowStartConfig>) -> pb::LoadBalancingPolicy {
    use ext::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
    let time = |time: Duration| Some(convert::proto_duration(time));
    let (name, any) = match cluster.balancer {
        Balancer::PeakEwma { decay } => {
            let value = prost::Message::encode_to_vec(&PeakEwma { decay_time: time(decay) });
            ("envoy.load_balancing_policies.peak_ewma", wkt::Any { type_url: PEAK_EWMA.to_owned(), value })
        }
        _ => {
            let reported = cluster.reported.clone().unwrap_or_default();
            let slow = slow.map(|s| ext::common::v3::SlowStartConfig {
                slow_start_window: s.slow_start_window,
                aggression: s.aggression,
                min_weight_percent: s.min_weight_percent,
            });
            let config = ClientSideWeightedRoundRobin {
                blackout_period: time(reported.blackout),
                weight_expiration_period: time(reported.expiration),
                error_utilization_penalty: Some(wkt::FloatValue { value: reported.penalty as f32 / 1000.0 }),
                metric_names_for_computing_utilization: reported.metrics,
                weight_update_period: time(reported.update),
                slow_start_config: slow,
                ..Default::default()
            };
            ("envoy.load_balancing_policies.client_side_weighted_round_robin", convert::any(&config))
        }
    };
    let config = envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(any),
    };
    let policy = pb::load_balancing_policy::Policy { typed_extension_config: Some(config) };
    pb::LoadBalancingPolicy { policies: vec![policy] }
}
