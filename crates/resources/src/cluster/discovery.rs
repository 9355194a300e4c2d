//! The sources of a cluster's endpoints: EDS, the cluster itself, or DNS.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;

use crate::convert;
use crate::endpoint::LoadAssignment;
use crate::{Audit, Error, Path};

/// The source of a cluster's endpoints.
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
    /// The addresses that are used.
    pub family: LookupFamily,
}

impl Names {
    /// Names with Envoy's settings.
    #[must_use]
    pub fn new(assignment: LoadAssignment) -> Self {
        Self { assignment, refresh: DNS_REFRESH, family: LookupFamily::Auto }
    }
}

/// The addresses of a name that are used (Envoy, `Cluster.DnsLookupFamily`).
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

/// Envoy's time between two resolutions of a name.
pub(super) const DNS_REFRESH: Duration = Duration::from_secs(5);

pub(super) fn decode(value: &pb::Cluster, audit: &mut Audit, path: &Path<'_>) -> Result<Discovery, Error> {
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
