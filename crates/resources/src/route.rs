//! Route configuration: virtual hosts, routes and what they do.
//!
//! Order matters: within a virtual host the first matching route wins.

mod decode;
mod encode;

use std::time::Duration;

use crate::fault::Fault;
use crate::header::HeaderEdits;
use crate::matcher::{HeaderMatcher, QueryMatcher, RegexRewrite};
use crate::retry::RetryPolicy;

/// A named set of virtual hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteConfiguration {
    /// The name RDS knows it by.
    pub name: String,
    /// The hosts.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Edits to requests, applied after those of route and virtual host.
    pub request_headers: HeaderEdits,
    /// Edits to responses.
    pub response_headers: HeaderEdits,
    /// Whether `host:port` is looked up as `host`.
    pub ignore_port_in_host_matching: bool,
}

/// Routes for a set of domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualHost {
    /// For logs and statistics.
    pub name: String,
    /// Exact (`a.example`), suffix (`*.example`), prefix (`a.*`) or `*`; with or without port.
    pub domains: Vec<String>,
    /// In order of precedence.
    pub routes: Vec<Route>,
    /// Whether plain-text requests are redirected to https.
    pub require_tls: bool,
    /// Edits to requests.
    pub request_headers: HeaderEdits,
    /// Edits to responses.
    pub response_headers: HeaderEdits,
    /// Policy for routes without one.
    pub retry: Option<RetryPolicy>,
    /// Faults for routes without any.
    pub fault: Option<Fault>,
    /// Whether `x-envoy-attempt-count` is sent upstream.
    pub include_attempt_count: bool,
}

/// A match with an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For logs, may be empty.
    pub name: String,
    /// What it applies to.
    pub matches: RouteMatch,
    /// What it does.
    pub action: Action,
    /// Edits to requests.
    pub request_headers: HeaderEdits,
    /// Edits to responses.
    pub response_headers: HeaderEdits,
    /// Faults injected on this route.
    pub fault: Option<Fault>,
}

/// All of these must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether case counts in exact and prefix matches.
    pub case_sensitive: bool,
    /// Predicates on headers.
    pub headers: Vec<HeaderMatcher>,
    /// Predicates on query parameters.
    pub query: Vec<QueryMatcher>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// Only a share of requests, in parts of a million.
    pub share: Option<u32>,
}

/// How the path, without its query, must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Its start, as raw string.
    Prefix(String),
    /// Its start up to the end or a slash.
    PathPrefix(String),
    /// A regular expression for the whole path.
    Regex(String),
}

/// What happens to a matching request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Forward to a cluster.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with this.
    Respond(Respond),
}

/// Forwarding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forward {
    /// Clusters with weights; a single one gets everything.
    pub clusters: Vec<WeightedCluster>,
    /// Time for the whole request, tries and all; zero is none.
    pub timeout: Duration,
    /// Time without a byte in either direction; `None` takes the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// When to try again.
    pub retry: Option<RetryPolicy>,
    /// Path rewrite.
    pub path_rewrite: Option<PathRewrite>,
    /// Authority rewrite.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the original authority is kept in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Status when the cluster does not exist.
    pub cluster_not_found_status: u16,
    /// Whether `Upgrade: websocket` is passed on; `None` takes the connection manager's.
    pub websocket: Option<bool>,
}

/// A cluster and its part of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Cluster name.
    pub name: String,
    /// Relative weight.
    pub weight: u32,
    /// Edits to requests that go there.
    pub request_headers: HeaderEdits,
    /// Edits to responses from there.
    pub response_headers: HeaderEdits,
    /// Authority for requests that go there.
    pub host_rewrite: Option<String>,
}

/// How the path is rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replace the matched prefix (or the whole of an exact path).
    Prefix(String),
    /// Replace what a pattern finds.
    Regex(RegexRewrite),
}

/// How the authority is rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// To this.
    Literal(String),
    /// To the endpoint's host name.
    Auto,
    /// To the value of this header.
    Header(String),
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<RedirectPath>,
    /// Status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// How a redirect changes the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// The whole path.
    Full(String),
    /// The matched prefix.
    Prefix(String),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl RouteMatch {
    /// A match on the path alone.
    #[must_use]
    pub fn path(path: PathMatch) -> Self {
        Self { path, case_sensitive: true, headers: Vec::new(), query: Vec::new(), grpc: false, share: None }
    }

    /// Whether it matches every request, so that no later route is reached.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        let any_path = match &self.path {
            PathMatch::Prefix(p) => p == "/" || p.is_empty(),
            PathMatch::Regex(r) => r == ".*",
            PathMatch::Exact(_) | PathMatch::PathPrefix(_) => false,
        };
        any_path && self.headers.is_empty() && self.query.is_empty() && !self.grpc && self.share.is_none()
    }
}
