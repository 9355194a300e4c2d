//! Policies towards backends. Istio's DestinationRule is lowered to them.

use std::time::Duration;

use crate::name::{Hostname, Labels, ObjectName};

/// Subsets of a host and policies towards it.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendPolicy {
    /// Its name.
    pub name: ObjectName,
    /// The host, possibly a wildcard.
    pub host: Hostname,
    /// Labels of the workloads that it is for, in its namespace; `None` is everybody.
    pub workloads: Option<Labels>,
    /// Policy for all of it.
    pub policy: Box<TrafficPolicy>,
    /// Named sets of instances.
    pub subsets: Vec<Subset>,
    /// Namespaces that may see it; `None` is all.
    pub export_to: Option<Vec<String>>,
    /// The same as the document says it, sorted; empty when it says nothing.
    pub exported: Vec<String>,
}

impl BackendPolicy {
    /// Whether a younger rule is made part of this one: it is of the same namespace and host, for the same workloads, and says the same
    /// `exportTo`, to the letter (none is not `["*"]`), or more than this one does (Istio: `mergeDestinationRule`).
    #[must_use]
    pub fn takes_in(&self, younger: &Self) -> bool {
        let same = self.name.namespace == younger.name.namespace && self.host == younger.host;
        let has_all = self.exported.iter().all(|namespace| younger.exported.contains(namespace));
        let more = !self.exported.is_empty() && has_all;
        same && self.workloads == younger.workloads && (self.exported == younger.exported || more)
    }
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
    /// How new instances get their share.
    pub warmup: Option<Warmup>,
    /// How many retries there may be.
    pub retry_budget: Option<RetryBudget>,
    /// Limits and timers of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When an instance that misbehaves gets no more requests for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Whether TLS is spoken.
    pub tls: Option<Tls>,
    /// What it demands besides that is not carried out, in words: requests are refused.
    pub refused: Option<String>,
    /// Policies that replace this one on one port.
    pub ports: Vec<(u16, Self)>,
}

/// Whether TLS is spoken to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Off,
    /// It is spoken.
    On(Box<ClientTls>),
    /// It is demanded in this mode, and not carried out: requests are refused.
    NotCarriedOut(String),
}

/// TLS towards a host. Files are those of the proxy's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The files of the own certificate and its key, if one is shown.
    pub identity: Option<(String, String)>,
    /// The rules for the server's certificate; `None` accepts every server.
    pub server: Option<ServerCheck>,
    /// The name that is told to the server; empty for the host that a request is for.
    pub sni: String,
}

/// The rules for a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCheck {
    /// The file of the authorities that are trusted; `None` for those of the system.
    pub authorities: Option<String>,
    /// The file of revoked certificates, if there is one.
    pub revoked: Option<String>,
    /// The names, one of which its certificate must have; empty: that which it was told, if a request decided it, else any.
    pub names: Vec<String>,
}

/// How an instance is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balancer {
    /// One after the other.
    RoundRobin,
    /// At random.
    Random,
    /// The less busy of two.
    LeastRequest,
    /// The same for the same key.
    Hash(ConsistentHash),
}

/// What keeps a user with one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How hashes lead to instances.
    pub table: HashTable,
}

/// What is hashed of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// A header.
    Header(String),
    /// A cookie, issued when absent if it has a time to live.
    Cookie {
        /// Its name.
        name: String,
        /// Its path, may be empty.
        path: String,
        /// How long it lives; zero is a session.
        ttl: Option<Duration>,
        /// Further attributes with which it is issued.
        attributes: Vec<(String, String)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// How hashes lead to instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// A ring with at least so many places.
    Ring(u64),
    /// A table of that size, a prime.
    Maglev(u64),
}

/// How new instances get their share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// Where it begins, in per cent.
    pub least_percent: u32,
    /// In thousandths: 1000 is linear.
    pub aggression: u32,
}

/// Retries as a share of the requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Per cent.
    pub percent: u32,
    /// That many may always be.
    pub least: u32,
}

/// Limits and timers of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Connections.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending: Option<u32>,
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
    /// What it demands that is not carried out, in words; requests are refused as long as it does.
    #[must_use]
    pub fn not_carried_out(&self) -> Option<&str> {
        match &self.tls {
            Some(Tls::NotCarriedOut(what)) => Some(what),
            _ => self.refused.as_deref(),
        }
    }

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
            balancer: self.balancer.clone().or_else(|| wider.balancer.clone()),
            warmup: self.warmup.or(wider.warmup),
            retry_budget: self.retry_budget.or(wider.retry_budget),
            connection_pool: self.connection_pool.clone().or_else(|| wider.connection_pool.clone()),
            outlier_detection: self.outlier_detection.clone().or_else(|| wider.outlier_detection.clone()),
            tls: self.tls.clone().or_else(|| wider.tls.clone()),
            refused: self.refused.clone().or_else(|| wider.refused.clone()),
            ports: Vec::new(),
        }
    }
}
