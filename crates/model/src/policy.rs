//! Policies of a DestinationRule.

use std::time::Duration;

use crate::name::{Hostname, Labels, ObjectName};

/// Subsets of a host and policies towards it.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// Its name.
    pub name: ObjectName,
    /// The host, possibly a wildcard.
    pub host: Hostname,
    /// Policy for all of it.
    pub policy: TrafficPolicy,
    /// Named sets of instances.
    pub subsets: Vec<Subset>,
    /// Namespaces that may see it; `None` is all.
    pub export_to: Option<Vec<String>>,
}

/// Instances with certain labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Subset {
    /// Name that routes use.
    pub name: String,
    /// Labels an instance must have.
    pub labels: Labels,
    /// Policy that goes before the rule's.
    pub policy: TrafficPolicy,
}

/// How to speak to a host. A block that is absent falls back to the next wider policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficPolicy {
    /// How an instance is chosen.
    pub balancer: Option<Balancer>,
    /// Limits and timers of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When an instance that misbehaves gets no more requests for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Policies that replace this one on one port.
    pub ports: Vec<(u16, Self)>,
}

/// How an instance is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// One after the other.
    RoundRobin,
    /// At random.
    Random,
    /// The less busy of two.
    LeastRequest,
}

/// Limits and timers of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests on one connection.
    pub max_requests_per_connection: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Idle time of a pooled connection.
    pub idle_timeout: Option<Duration>,
}

/// When an instance is ejected; what is not said is the proxy's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// 5xx in a row; 0 switches that off.
    pub server_errors: Option<u32>,
    /// 502, 503 and 504 in a row; 0, and nothing said, is off.
    pub gateway_errors: Option<u32>,
    /// Failures of the connection in a row, when they count for themselves.
    pub local_failures: Option<u32>,
    /// Whether failures of the connection count for themselves.
    pub split_local: bool,
    /// Time between looks at all instances.
    pub interval: Option<Duration>,
    /// Time of the first ejection.
    pub base_ejection_time: Option<Duration>,
    /// Per cent of instances that may be ejected.
    pub max_ejection_percent: Option<u32>,
    /// Per cent of healthy instances below which health is disregarded; 0 is never.
    pub min_health_percent: u32,
}

impl TrafficPolicy {
    /// The policy for one port: a port's own settings replace the rest whole.
    #[must_use]
    pub fn for_port(&self, port: u16) -> Self {
        match self.ports.iter().find(|(number, _)| *number == port) {
            Some((_, own)) => own.clone(),
            None => Self { ports: Vec::new(), ..self.clone() },
        }
    }

    /// This policy with absent blocks taken from `wider`.
    #[must_use]
    pub fn over(&self, wider: &Self) -> Self {
        Self {
            balancer: self.balancer.or(wider.balancer),
            connection_pool: self.connection_pool.clone().or_else(|| wider.connection_pool.clone()),
            outlier_detection: self.outlier_detection.clone().or_else(|| wider.outlier_detection.clone()),
            ports: Vec::new(),
        }
    }
}
