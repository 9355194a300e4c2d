//! Load reports as messages, in both directions.

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::service::load_stats::v3 as service;
use envoy_types::pb::google::protobuf as google;

use super::{Load, Named, Part, Wanted};

/// Says that a server may ask for all clusters.
pub(super) const ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

pub(super) fn to_message(load: Load, endpoints: bool) -> pb::ClusterStats {
    let mut stats = pb::ClusterStats {
        cluster_name: load.cluster,
        cluster_service_name: load.service,
        total_dropped_requests: load.dropped,
        load_report_interval: Some(proto_duration(load.during)),
        ..Default::default()
    };
    for part in load.parts {
        let locality = locality(&part.locality);
        let of =
            |l: &&mut pb::UpstreamLocalityStats| l.priority == part.priority && l.locality == Some(locality.clone());
        let group = match stats.upstream_locality_stats.iter_mut().find(of) {
            Some(group) => group,
            None => {
                let new = pb::UpstreamLocalityStats {
                    locality: Some(locality),
                    priority: part.priority,
                    ..Default::default()
                };
                stats.upstream_locality_stats.push(new);
                let last = stats.upstream_locality_stats.len() - 1;
                &mut stats.upstream_locality_stats[last]
            }
        };
        group.total_issued_requests += part.issued;
        group.total_successful_requests += part.succeeded;
        group.total_error_requests += part.failed;
        group.total_requests_in_progress += part.active;
        for named in &part.named {
            match group.load_metric_stats.iter_mut().find(|m| m.metric_name == named.name) {
                Some(sum) => {
                    sum.num_requests_finished_with_metric += named.count;
                    sum.total_metric_value += named.total;
                }
                None => group.load_metric_stats.push(metric(named)),
            }
        }
        if let Some(address) = part.address.filter(|_| endpoints) {
            group.upstream_endpoint_stats.push(pb::UpstreamEndpointStats {
                address: Some(proto_address(address)),
                total_issued_requests: part.issued,
                total_successful_requests: part.succeeded,
                total_error_requests: part.failed,
                total_requests_in_progress: part.active,
                load_metric_stats: part.named.iter().map(metric).collect(),
                ..Default::default()
            });
        }
    }
    stats
}

pub(super) fn from_message(stats: pb::ClusterStats) -> Load {
    let mut load = Load {
        cluster: stats.cluster_name,
        service: stats.cluster_service_name,
        dropped: stats.total_dropped_requests,
        parts: Vec::new(),
        during: stats.load_report_interval.as_ref().map_or(Duration::ZERO, duration),
    };
    for group in stats.upstream_locality_stats {
        let locality = match &group.locality {
            Some(l) => [&l.region, &l.zone, &l.sub_zone].map(String::as_str).join("/"),
            None => String::new(),
        };
        let locality = if locality == "//" { String::new() } else { locality };
        let priority = group.priority;
        if group.upstream_endpoint_stats.is_empty() {
            load.parts.push(Part {
                address: None,
                locality,
                priority,
                issued: group.total_issued_requests,
                succeeded: group.total_successful_requests,
                failed: group.total_error_requests,
                active: group.total_requests_in_progress,
                named: group.load_metric_stats.into_iter().map(named).collect(),
            });
            continue;
        }
        for endpoint in group.upstream_endpoint_stats {
            load.parts.push(Part {
                address: endpoint.address.as_ref().and_then(address),
                locality: locality.clone(),
                priority,
                issued: endpoint.total_issued_requests,
                succeeded: endpoint.total_successful_requests,
                failed: endpoint.total_error_requests,
                active: endpoint.total_requests_in_progress,
                named: endpoint.load_metric_stats.into_iter().map(named).collect(),
            });
        }
    }
    load
}

/// What an answer of the server asks for.
pub(super) fn wanted(response: service::LoadStatsResponse) -> Wanted {
    Wanted {
        clusters: (!response.send_all_clusters).then_some(response.clusters),
        every: response.load_reporting_interval.as_ref().map_or(Duration::ZERO, duration),
        endpoints: response.report_endpoint_granularity,
    }
}

pub(super) fn asking(wanted: &Wanted) -> service::LoadStatsResponse {
    service::LoadStatsResponse {
        clusters: wanted.clusters.clone().unwrap_or_default(),
        send_all_clusters: wanted.clusters.is_none(),
        load_reporting_interval: Some(proto_duration(wanted.every)),
        report_endpoint_granularity: wanted.endpoints,
    }
}

fn metric(named: &Named) -> pb::EndpointLoadMetricStats {
    pb::EndpointLoadMetricStats {
        metric_name: named.name.clone(),
        num_requests_finished_with_metric: named.count,
        total_metric_value: named.total,
    }
}

fn named(metric: pb::EndpointLoadMetricStats) -> Named {
    Named {
        name: metric.metric_name,
        count: metric.num_requests_finished_with_metric,
        total: metric.total_metric_value,
    }
}

fn locality(text: &str) -> core::Locality {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    core::Locality { region: next(), zone: next(), sub_zone: next() }
}

fn proto_duration(d: Duration) -> google::Duration {
    google::Duration { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() as i32 }
}

fn duration(d: &google::Duration) -> Duration {
    // Protobuf's longest duration.
    let seconds = u64::try_from(d.seconds).unwrap_or(0).min(315_576_000_000);
    Duration::new(seconds, u32::try_from(d.nanos).unwrap_or(0).min(999_999_999))
}

fn proto_address(address: SocketAddr) -> core::Address {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn address(address: &core::Address) -> Option<SocketAddr> {
    use core::socket_address::PortSpecifier;
    let Some(core::address::Address::SocketAddress(socket)) = &address.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, u16::try_from(port).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(port: u16, issued: u64) -> Part {
        Part {
            address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            locality: "r/z/s".to_owned(),
            priority: 1,
            issued,
            succeeded: issued - 1,
            failed: 1,
            active: 0,
            named: vec![Named { name: "first_attempts".to_owned(), count: issued, total: 1.0 }],
        }
    }

    #[test]
    fn a_report_travels_whole_and_adds_up_where_endpoints_are_not_asked_for() {
        let load = Load {
            cluster: "c".to_owned(),
            service: "s".to_owned(),
            dropped: 3,
            parts: vec![part(1, 10), part(2, 20)],
            during: Duration::from_millis(1500),
        };
        assert_eq!(from_message(to_message(load.clone(), true)), load);
        let sum = from_message(to_message(load.clone(), false));
        let whole = Part { address: None, issued: 30, succeeded: 28, failed: 2, ..part(1, 10) };
        let named = vec![Named { name: "first_attempts".to_owned(), count: 30, total: 2.0 }];
        assert_eq!(sum, Load { parts: vec![Part { named, ..whole }], ..load });
    }
}
