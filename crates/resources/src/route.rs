//! Route configuration: virtual hosts, routes and what they do.
//!
//! Order matters: within a virtual host the first matching route wins.

mod decode;
mod encode;
mod internal_redirect;
mod policy;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::FormatString;
use crate::header::HeaderEdits;
use crate::http_filter::PerRoutes;
use crate::matcher::{CookieMatcher, HeaderMatcher, QueryMatcher, RegexRewrite};
use crate::retry::RetryPolicy;
use crate::upgrade::RouteUpgrade;

pub use encode::append_virtual_hosts;
pub use policy::{HashCookie, HashPolicy, HashSource, Mirror, RandomSource};

/// A named set of virtual hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteConfiguration {
    /// The name RDS knows it by.
    pub name: String,
    /// The hosts.
    pub virtual_hosts: Vec<VirtualHost>,
    /// True when more virtual hosts come as resources of their own (VHDS), named `ROUTE CONFIGURATION/VIRTUAL HOST`.
    pub has_vhds: bool,
    /// Edits to requests, applied after those of route and virtual host.
    pub request_headers: HeaderEdits,
    /// Edits to responses.
    pub response_headers: HeaderEdits,
    /// Whether `host:port` is looked up as `host`.
    pub ignore_port_in_host_matching: bool,
    /// Whether `;…` at the end of a path is left out when it is matched.
    pub ignore_path_parameters: bool,
    /// Whether edits are applied from the least specific level to the most specific one.
    pub most_specific_edits_win: bool,
    /// Copies of requests, for virtual hosts without any.
    pub mirrors: Vec<Mirror>,
    /// What filters do for its virtual hosts.
    pub filters: PerRoutes,
    /// Headers that only internal clients may send.
    pub internal_only_headers: Vec<String>,
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
    /// Which plain-text requests are redirected to https, whatever their path.
    pub require_tls: RequireTls,
    /// Edits to requests.
    pub request_headers: HeaderEdits,
    /// Edits to responses.
    pub response_headers: HeaderEdits,
    /// Policy for routes without one.
    pub retry: Option<RetryPolicy>,
    /// Whether a try that takes too long goes on beside the next, for routes that do not say.
    pub hedge: bool,
    /// What filters do for its routes.
    pub filters: PerRoutes,
    /// Whether `x-envoy-attempt-count` is sent upstream.
    pub include_attempt_count: bool,
    /// Whether it is sent to the client.
    pub include_attempt_count_in_response: bool,
    /// Copies of requests, for routes without any.
    pub mirrors: Vec<Mirror>,
    /// How much of a request's body is kept, for routes that do not say.
    pub buffers: BufferLimits,
    /// Documents of which an older version is in force here, in words; empty when there is none. Serin's own, in the host's metadata under
    /// `serin` as `outdated`; nothing but explanations rests on it.
    pub outdated: String,
}

/// Which plain-text requests are redirected to https.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// None.
    #[default]
    No,
    /// Those of clients that are not internal.
    External,
    /// All.
    All,
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
    /// What filters do here.
    pub filters: PerRoutes,
    /// How much of a request's body is kept.
    pub buffers: BufferLimits,
}

/// How much of a request's body may be kept for another attempt; what is not said is as the virtual host says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BufferLimits {
    /// Bytes (`per_request_buffer_limit_bytes`).
    pub per_request: Option<u32>,
    /// Bytes, which go before the others (`request_body_buffer_limit`).
    pub of_body: Option<u64>,
}

impl BufferLimits {
    /// Returns the limit for a route with these in a virtual host with those, behind a listener with that limit.
    #[must_use]
    pub fn within(self, host: Self, listener: u32) -> u64 {
        let per_request = self.per_request.or(host.per_request);
        self.of_body.or(host.of_body).unwrap_or(per_request.unwrap_or(listener).into())
    }
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
    /// Predicates on cookies.
    pub cookies: Vec<CookieMatcher>,
    /// Only gRPC requests.
    pub grpc: bool,
    /// Only a share of requests, in parts of a million.
    pub share: Option<u32>,
    /// The client's certificate.
    pub certificate: Option<CertificateMatch>,
}

/// Whether a client over TLS has shown a certificate, and a trusted one; what is `None` does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificateMatch {
    /// Whether it has shown one.
    pub presented: Option<bool>,
    /// Whether that leads to a trusted one.
    pub validated: Option<bool>,
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
    /// None: only CONNECT requests, which have no path.
    Connect,
}

/// What happens to a matching request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Forward to a cluster.
    Forward(Box<Forward>),
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
    /// A header that names the cluster instead.
    pub cluster_header: Option<String>,
    /// What draws one of several.
    pub random: RandomSource,
    /// What the request's hash is made of.
    pub hash: Vec<HashPolicy>,
    /// Copies of requests.
    pub mirrors: Vec<Mirror>,
    /// How mirrors' answers are compared with the client's, if they are.
    pub comparison: Option<Comparison>,
    /// Metadata that endpoints must have, by key.
    pub metadata: BTreeMap<String, String>,
    /// Time for the whole request, tries and all; zero is none.
    pub timeout: Duration,
    /// How far a `grpc-timeout` header takes the place of `timeout` for calls (Envoy's older fields); `None` does not look at it.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Longest time from head to end, however lively the stream.
    pub max_stream: MaxStream,
    /// Which answers are followed instead of passed on.
    pub internal_redirect: Option<InternalRedirect>,
    /// Whether the breakers of high priority count.
    pub high_priority: bool,
    /// Time without a byte in either direction; `None` takes the connection manager's.
    pub idle_timeout: Option<Duration>,
    /// When to try again.
    pub retry: Option<RetryPolicy>,
    /// Whether a try that takes too long goes on beside the next; `None` is as the virtual host says.
    pub hedge: Option<bool>,
    /// Path rewrite.
    pub path_rewrite: Option<PathRewrite>,
    /// Authority rewrite.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the original authority is kept in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Status when the cluster does not exist.
    pub cluster_not_found_status: u16,
    /// The protocols that may take a connection over, or may not, whatever the connection manager says.
    pub upgrades: Vec<RouteUpgrade>,
}

/// How answers of mirrors are compared: Serin's own, in a route's metadata under `serin.mirror` as `compare: true`, with
/// `headers` and `ignore_json_paths` as lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Headers that must be the same, in lower case.
    pub headers: Vec<String>,
    /// JSON paths that are left out, with everything below.
    pub ignored: Vec<String>,
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
    /// A header that names it instead; its name is empty then.
    pub cluster_header: Option<String>,
    /// What filters do for requests that go there.
    pub filters: PerRoutes,
    /// Metadata that endpoints must have besides the route's.
    pub metadata: BTreeMap<String, String>,
}

/// Limits of a whole stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxStream {
    /// From head to end; `None` takes the connection manager's.
    pub limit: Option<Duration>,
    /// The longest that a `grpc-timeout` header may ask for, zero being no limit; `None` does not look at the header.
    pub grpc_timeout: Option<Duration>,
    /// What is taken off the header's time.
    pub grpc_offset: Duration,
}

/// How far a `grpc-timeout` header takes the place of a route's timeout (Envoy: `max_grpc_timeout`, `grpc_timeout_offset`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The longest that it may ask for; zero is without limit.
    pub most: Duration,
    /// What is taken off what it asks for, unless nothing would be left.
    pub offset: Duration,
}

impl GrpcTimeout {
    /// The header is obeyed up to that time, or without limit when it is zero.
    #[must_use]
    pub fn within(most: Duration) -> Option<Self> {
        Some(Self { most, offset: Duration::ZERO })
    }
}

/// Answers that are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirect {
    /// How often in a row.
    pub most: u32,
    /// Which statuses.
    pub statuses: Vec<u16>,
    /// Whether from http to https or back.
    pub cross_scheme: bool,
    /// Headers of the answer that the new request gets.
    pub copy_headers: Vec<String>,
    /// All of these must hold for the route that the new request finds.
    pub predicates: Vec<RedirectPredicate>,
}

/// A condition on the route that a followed redirect leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// It was not followed from this route before.
    NotPrevious,
    /// It has one of these names.
    Allowed(Vec<String>),
    /// It does not lead from plain text to TLS.
    SafeScheme,
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
    /// To what a pattern makes of the path.
    PathRegex(RegexRewrite),
}

/// A redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// What a pattern finds.
    Regex(RegexRewrite),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// What the body is made of instead.
    pub format: Option<FormatString>,
}

impl RouteMatch {
    /// A match on the path alone.
    #[must_use]
    pub fn path(path: PathMatch) -> Self {
        Self {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            grpc: false,
            share: None,
            certificate: None,
        }
    }

    /// Whether it matches every request, so that no later route is reached.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        let any_path = match &self.path {
            PathMatch::Prefix(p) => p == "/" || p.is_empty(),
            PathMatch::Regex(r) => r == ".*",
            PathMatch::Exact(_) | PathMatch::PathPrefix(_) | PathMatch::Connect => false,
        };
        any_path
            && self.headers.is_empty()
            && self.cookies.is_empty()
            && self.query.is_empty()
            && !self.grpc
            && self.share.is_none()
            && self.certificate.is_none()
    }
}
