//! Circuit breakers: the limits on what may be in flight to a cluster.

use envoy_types::pb::envoy::config::cluster::v3 as pb;

use super::Cluster;
use crate::convert;
use crate::{Audit, Error, Path};

/// The limits on what may be in flight before more is refused; `None` is unlimited.
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
    /// The number of retries that may be in flight beside so many requests.
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

pub(super) fn decode(
    value: &pb::Cluster,
    cluster: &mut Cluster,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<(), Error> {
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

impl Cluster {
    pub(super) fn proto_breakers(&self) -> Option<pb::CircuitBreakers> {
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
}
