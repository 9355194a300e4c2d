//! Endpoint assignment: which addresses a cluster has, with weight, locality, priority and health.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use prost::Message as _;

use crate::convert;
use crate::{Audit, Error, Path};

/// The endpoints of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadAssignment {
    /// The name EDS knows it by.
    pub cluster: String,
    /// All endpoints, grouped as they came.
    pub endpoints: Vec<Endpoint>,
    /// The over-provisioning of a priority, in per cent: with 140, two endpoints in seven may be missing before the next one takes over.
    pub overprovisioning: u32,
}

impl Default for LoadAssignment {
    fn default() -> Self {
        Self { cluster: String::new(), endpoints: Vec::new(), overprovisioning: 140 }
    }
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address, or a name where the cluster resolves names.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name for `auto_host_rewrite`.
    pub hostname: String,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Region, zone and sub-zone joined by slashes; empty when unknown.
    pub locality: String,
    /// Weight of the locality, when given.
    pub locality_weight: Option<u32>,
    /// The health that the control plane sends.
    pub health: Health,
    /// The metadata by which load balancing may select it.
    pub metadata: BTreeMap<String, String>,
    /// The metadata by which its TLS is chosen.
    pub transport: BTreeMap<String, String>,
    /// The port of health checks, if it is another one.
    pub health_check_port: Option<u16>,
    /// The workload, for metrics, in Istio's form: `workload;namespace;app;version;cluster`; may be empty.
    pub workload: String,
}

/// Health as the control plane tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known; it counts as healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Not to be used.
    Unhealthy,
    /// Leaving: no new requests.
    Draining,
    /// To be used when nothing better is there.
    Degraded,
}

impl Health {
    /// Returns true when requests may go there.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Degraded)
    }
}

impl Endpoint {
    /// An endpoint of weight 1 at priority 0.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            hostname: String::new(),
            weight: 1,
            priority: 0,
            locality: String::new(),
            locality_weight: None,
            health: Health::Unknown,
            metadata: BTreeMap::new(),
            transport: BTreeMap::new(),
            health_check_port: None,
            workload: String::new(),
        }
    }
}

impl LoadAssignment {
    /// Decodes the bytes of an EDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("ClusterLoadAssignment");
        let value = pb::ClusterLoadAssignment::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        Self::from_proto(&value, audit, &path)
    }

    pub(crate) fn from_proto(
        value: &pb::ClusterLoadAssignment,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        audit!(value, pb::ClusterLoadAssignment as pb::ClusterLoadAssignment, audit, path;
            supported: cluster_name, endpoints, policy; ignored: named_endpoints; refused: );
        let mut endpoints = Vec::new();
        let list_path = path.field("endpoints");
        for (i, group) in value.endpoints.iter().enumerate() {
            decode_group(group, audit, &list_path.index(i), &mut endpoints)?;
        }
        if value.endpoints.len() > 1 {
            gather(&mut endpoints);
        }
        let overprovisioning = match &value.policy {
            Some(policy) => overprovisioning(policy, audit, &path.field("policy"))?,
            None => 140,
        };
        Ok(Self { cluster: value.cluster_name.clone(), endpoints, overprovisioning })
    }

    /// The bytes of an EDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub(crate) fn to_proto(&self) -> pb::ClusterLoadAssignment {
        let mut groups: Vec<pb::LocalityLbEndpoints> = Vec::new();
        let mut keys: Vec<(&str, u32)> = Vec::new();
        for endpoint in &self.endpoints {
            let key = (endpoint.locality.as_str(), endpoint.priority);
            let at = keys.iter().position(|k| *k == key).unwrap_or_else(|| {
                keys.push(key);
                groups.push(pb::LocalityLbEndpoints {
                    locality: Some(proto_locality(&endpoint.locality)),
                    priority: endpoint.priority,
                    load_balancing_weight: endpoint.locality_weight.map(convert::wrap_u32),
                    ..Default::default()
                });
                groups.len() - 1
            });
            if let Some(group) = groups.get_mut(at) {
                group.lb_endpoints.push(proto_endpoint(endpoint));
            }
        }
        let policy = (self.overprovisioning != 140).then(|| pb::cluster_load_assignment::Policy {
            overprovisioning_factor: Some(convert::wrap_u32(self.overprovisioning)),
            ..Default::default()
        });
        pb::ClusterLoadAssignment {
            cluster_name: self.cluster.clone(),
            endpoints: groups,
            policy,
            ..Default::default()
        }
    }
}

/// Brings together the endpoints of a locality at one priority that several groups have. The last weight that one of these groups
/// gives is the locality's (Envoy, `PriorityStateManager::initializePriorityFor`).
fn gather(endpoints: &mut [Endpoint]) {
    let mut groups: BTreeMap<(u32, String), (usize, Option<u32>)> = BTreeMap::new();
    for endpoint in endpoints.iter() {
        let order = groups.len();
        let group = groups.entry((endpoint.priority, endpoint.locality.clone())).or_insert((order, None));
        group.1 = endpoint.locality_weight.or(group.1);
    }
    let group = |endpoint: &Endpoint| groups.get(&(endpoint.priority, endpoint.locality.clone())).copied();
    for endpoint in endpoints.iter_mut() {
        endpoint.locality_weight = group(endpoint).and_then(|(_, weight)| weight);
    }
    endpoints.sort_by_cached_key(|endpoint| group(endpoint).map(|(order, _)| order));
}

fn overprovisioning(
    value: &pb::cluster_load_assignment::Policy,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<u32, Error> {
    use pb::cluster_load_assignment::Policy;
    audit!(value, Policy as Policy, audit, path;
        supported: overprovisioning_factor; ignored: endpoint_stale_after;
        refused: drop_overloads, weighted_priority_health);
    Ok(value.overprovisioning_factor.as_ref().map_or(140, |v| v.value))
}

fn decode_group(
    group: &pb::LocalityLbEndpoints,
    audit: &mut Audit,
    path: &Path<'_>,
    out: &mut Vec<Endpoint>,
) -> Result<(), Error> {
    audit!(group, pb::LocalityLbEndpoints as pb::LocalityLbEndpoints, audit, path;
        supported: locality, lb_endpoints, load_balancing_weight, priority, metadata;
        ignored: proximity;
        refused: lb_config);
    // Envoy: PGV, at most 128. Everything below a priority is looked at.
    if group.priority > 128 {
        return Err(path.field("priority").error("must not be greater than 128"));
    }
    let locality = group.locality.as_ref().map(convert::locality);
    let of_group = convert::transport_metadata(group.metadata.as_ref(), &path.field("metadata"))?;
    let list_path = path.field("lb_endpoints");
    for (i, item) in group.lb_endpoints.iter().enumerate() {
        let here = list_path.index(i);
        audit!(item, pb::LbEndpoint as pb::LbEndpoint, audit, &here;
            supported: health_status, load_balancing_weight, host_identifier, metadata; ignored: ; refused: );
        let Some(pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &item.host_identifier else {
            return Err(here.error("needs an endpoint"));
        };
        audit!(endpoint, pb::Endpoint as pb::Endpoint, audit, &here.field("endpoint");
            supported: address, hostname, health_check_config; ignored: observability_name; refused: additional_addresses);
        let (host, port) = convert::host_port(endpoint.address.as_ref(), &here.field("endpoint").field("address"))?;
        out.push(Endpoint {
            host,
            port,
            hostname: endpoint.hostname.clone(),
            weight: item.load_balancing_weight.as_ref().map_or(1, |w| w.value).max(1),
            priority: group.priority,
            locality: locality.clone().unwrap_or_default(),
            locality_weight: group.load_balancing_weight.as_ref().map(|w| w.value),
            health: health(item.health_status),
            metadata: convert::metadata(item.metadata.as_ref(), &here.field("metadata"))?,
            transport: match convert::transport_metadata(item.metadata.as_ref(), &here.field("metadata"))? {
                own if own.is_empty() => of_group.clone(),
                own => own,
            },
            health_check_port: health_check_port(endpoint, audit, &here.field("endpoint"))?,
            workload: convert::workload(item.metadata.as_ref()),
        });
    }
    Ok(())
}

fn health_check_port(value: &pb::Endpoint, audit: &mut Audit, path: &Path<'_>) -> Result<Option<u16>, Error> {
    use pb::endpoint::HealthCheckConfig;
    let Some(config) = &value.health_check_config else { return Ok(None) };
    let here = path.field("health_check_config");
    audit!(config, HealthCheckConfig as HealthCheckConfig, audit, &here;
        supported: port_value; ignored: hostname; refused: address, disable_active_health_check);
    let port = u16::try_from(config.port_value).map_err(|_| here.field("port_value").error("must be at most 65535"))?;
    Ok((port != 0).then_some(port))
}

fn health(status: i32) -> Health {
    match core::HealthStatus::try_from(status) {
        Ok(core::HealthStatus::Healthy) => Health::Healthy,
        Ok(core::HealthStatus::Unhealthy | core::HealthStatus::Timeout) => Health::Unhealthy,
        Ok(core::HealthStatus::Draining) => Health::Draining,
        Ok(core::HealthStatus::Degraded) => Health::Degraded,
        Ok(core::HealthStatus::Unknown) | Err(_) => Health::Unknown,
    }
}

fn proto_locality(locality: &str) -> core::Locality {
    let mut parts = locality.splitn(3, '/').map(str::to_owned);
    core::Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        sub_zone: parts.next().unwrap_or_default(),
    }
}

fn proto_endpoint(endpoint: &Endpoint) -> pb::LbEndpoint {
    pb::LbEndpoint {
        health_status: match endpoint.health {
            Health::Unknown => core::HealthStatus::Unknown,
            Health::Healthy => core::HealthStatus::Healthy,
            Health::Unhealthy => core::HealthStatus::Unhealthy,
            Health::Draining => core::HealthStatus::Draining,
            Health::Degraded => core::HealthStatus::Degraded,
        } as i32,
        load_balancing_weight: Some(convert::wrap_u32(endpoint.weight)),
        metadata: convert::proto_transport(
            convert::proto_workload(&endpoint.workload, convert::proto_metadata(&endpoint.metadata)),
            &endpoint.transport,
        ),
        host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(convert::proto_address(&endpoint.host, endpoint.port)),
            hostname: endpoint.hostname.clone(),
            health_check_config: endpoint
                .health_check_port
                .map(|port| pb::endpoint::HealthCheckConfig { port_value: port.into(), ..Default::default() }),
            ..Default::default()
        })),
    }
}
