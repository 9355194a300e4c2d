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
            ports: Vec::new(),
        }
    }
}
