//! Routing rules: which requests to which hosts go where. Istio's VirtualService is lowered to them.

use std::time::Duration;

use crate::name::{Hostname, Labels, ObjectName};
use crate::share::Share;

/// Rules for requests to a set of hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRules {
    /// Its name.
    pub name: ObjectName,
    /// Hosts it speaks of.
    pub hosts: Vec<Hostname>,
    /// Where they apply.
    pub attachments: Vec<Attachment>,
    /// Rules for HTTP, first match wins.
    pub http: Vec<HttpRoute>,
    /// Namespaces that may see it; `None` is all.
    pub export_to: Option<Vec<String>>,
}

impl RouteRules {
    /// The destinations of its routes, of copies of requests too.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.http.iter().flat_map(|route| {
            let forwarded = match &route.action {
                Action::Forward { destinations, .. } => destinations.as_slice(),
                Action::Redirect(_) | Action::Respond(_) | Action::Refuse(_) => &[],
            };
            forwarded.iter().chain(route.mirrors.iter().map(|mirror| &mirror.destination))
        })
    }
}

/// Where rules apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Every sidecar.
    Mesh,
    /// A gateway.
    Gateway(ObjectName),
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// For logs.
    pub name: String,
    /// Any of these; none means every request.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: Action,
    /// Edits for all destinations.
    pub headers: Headers,
    /// Copies of requests.
    pub mirrors: Vec<Mirror>,
    /// Which other sites may make browsers send requests here.
    pub cors: Option<CorsPolicy>,
}

/// A copy of requests to another destination, whose answer nobody waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// For which share of requests.
    pub share: Share,
}

/// Which other sites may make browsers send requests here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsPolicy {
    /// Their origins.
    pub origins: Vec<StringMatch>,
    /// Methods they may use.
    pub methods: Vec<String>,
    /// Headers they may send.
    pub headers: Vec<String>,
    /// Headers of answers that they may see.
    pub expose: Vec<String>,
    /// How long a browser may remember that.
    pub max_age: Option<Duration>,
    /// Whether cookies may be sent.
    pub credentials: Option<bool>,
    /// Whether a preflight of another site goes on to the service.
    pub forward_others: Option<bool>,
}

/// What happens to a matching request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Forward it.
    Forward {
        /// Where, by weight.
        destinations: Vec<Destination>,
        /// Path and authority rewrite.
        rewrite: Option<Rewrite>,
        /// Whole time, zero is none.
        timeout: Duration,
        /// Retry policy; `None` is the mesh's default.
        retries: Option<Retries>,
        /// Faults to inject.
        fault: Option<Fault>,
    },
    /// Redirect it.
    Redirect(Redirect),
    /// Answer it.
    Respond(Respond),
    /// Refuse it: the rule demands something that is not carried out, in words.
    Refuse(String),
}

/// A predicate on a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole.
    Exact(String),
    /// The start.
    Prefix(String),
    /// RE2, for the whole string.
    Regex(String),
    /// Anything, as long as it is there.
    Present,
}

/// All of these must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpMatch {
    /// For logs.
    pub name: String,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Whether case is ignored in exact and prefix path matches.
    pub ignore_uri_case: bool,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Authority.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: Vec<(String, StringMatch)>,
    /// Headers that must not match.
    pub without_headers: Vec<(String, StringMatch)>,
    /// Query parameters.
    pub query: Vec<(String, StringMatch)>,
    /// Port of the listener.
    pub port: Option<u16>,
    /// Labels of the calling workload.
    pub source_labels: Labels,
    /// Namespace of the calling workload.
    pub source_namespace: Option<String>,
    /// Where it applies; `None` is where the rules do.
    pub attachments: Option<Vec<Attachment>>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Service.
    pub host: Hostname,
    /// Subset, from a policy of its host.
    pub subset: Option<String>,
    /// Port; `None` is the only one, or the listener's.
    pub port: Option<u16>,
    /// Relative weight.
    pub weight: u32,
    /// Edits for this destination.
    pub headers: Headers,
}

/// Edits to requests and responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// To requests.
    pub request: HeaderOperations,
    /// To responses.
    pub response: HeaderOperations,
}

/// Edits to one header block, in this order: set, add, remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Replace.
    pub set: Vec<(String, String)>,
    /// Append.
    pub add: Vec<(String, String)>,
    /// Remove.
    pub remove: Vec<String>,
}

/// Path and authority rewrite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Replaces the matched prefix, or an exact path whole.
    pub uri: Option<String>,
    /// Pattern and substitution; wins over `uri`.
    pub regex: Option<(String, String)>,
    /// New authority.
    pub authority: Option<String>,
}

/// Retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Tries beyond the first; zero switches retries off.
    pub attempts: u32,
    /// Time for one try.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's `retry_on` list; `None` is the default.
    pub retry_on: Option<String>,
    /// Base of the back-off.
    pub backoff: Option<Duration>,
    /// Whether hosts that were tried are avoided; `None` is so unless a hash chooses the instance.
    pub ignore_previous_hosts: Option<bool>,
}

/// Faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Forced delay.
    pub delay: Option<Delay>,
    /// Forced abort.
    pub abort: Option<Abort>,
}

/// A forced delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub fixed: Duration,
    /// For which share of requests.
    pub share: Share,
}

/// A forced abort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// The answer.
    pub status: AbortStatus,
    /// For which share of requests.
    pub share: Share,
}

/// What an aborted request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status code.
    Grpc(u32),
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// New path.
    pub path: Option<PathRedirect>,
    /// New authority.
    pub authority: Option<String>,
    /// New scheme.
    pub scheme: Option<String>,
    /// New port.
    pub port: Option<RedirectPort>,
    /// Status.
    pub status: u16,
}

/// The port that a redirect leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The one that the request came to.
    OfRequest,
}

/// How a redirect changes the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRedirect {
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
