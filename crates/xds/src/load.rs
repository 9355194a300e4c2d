//! Load reports (LRS): what proxies tell of the requests they sent, both ends.
//!
//! Source: Envoy's `envoy.service.load_stats.v3`. Numbers are of the time since the report before; only what is in flight
//! is of the moment. Times travel as named metrics of an endpoint, see [`Named`].

mod collector;
mod metrics;
mod reporter;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

pub use collector::{Collect, Collector};
pub use metrics::{Clock, Clocked, Times};
pub use reporter::{Measure, run};

/// What was sent to one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// The cluster's name.
    pub cluster: String,
    /// The name under which its endpoints are known; may be empty.
    pub service: String,
    /// Requests that were not sent at all.
    pub dropped: u64,
    /// What was sent, one entry for each endpoint, or for a whole locality when the reporter does not tell them apart.
    pub parts: Vec<Part>,
    /// The time that this is about.
    pub during: Duration,
}

/// Requests to one endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Its address; none for a whole locality.
    pub address: Option<SocketAddr>,
    /// Region, zone and sub-zone joined by slashes.
    pub locality: String,
    /// Its priority.
    pub priority: u32,
    /// Requests that began.
    pub issued: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that are in flight.
    pub active: u64,
    /// Other metrics.
    pub named: Vec<Named>,
}

/// A metric with a name.
///
/// Serin's proxies send `first_attempts` (requests that were sent to this endpoint first and ended; the total is how many of
/// them failed there) and, for each bucket of their times that is not empty, `first_attempt_ms_le_B` (requests that took
/// at most B milliseconds and longer than the bucket before; the total is the sum of their times in milliseconds); and
/// `first_attempt_answer_N` for those that were not answered with 2xx: N is the HTTP status, 1000 and the gRPC status, or 0 for no
/// acceptable answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Requests that it was measured for.
    pub count: u64,
    /// The sum of what was measured.
    pub total: f64,
}

/// What a server wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Clusters by name; `None` for all.
    pub clusters: Option<Vec<String>>,
    /// How often.
    pub every: Duration,
    /// Whether endpoints are told apart.
    pub endpoints: bool,
}
