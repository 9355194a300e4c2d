//! The HTTP connection manager: how connections of a listener are read and which routes they use.

mod client_address;
mod client_certificate;
mod decode;
mod encode;

use std::time::Duration;

use serin_http1::{Codec, Scheme};

use crate::access_log::AccessLog;
use crate::header::Mutation;
use crate::http_filter::HttpFilter;
use crate::local_reply::LocalReplyConfig;
use crate::network::Network;
use crate::protocol::{Http1Options, Http2Options};
use crate::route::RouteConfiguration;
use crate::tracing::Tracing;
use crate::upgrade::Upgrade;

pub use client_address::{AddressDetection, TrustedProxies};
pub use client_certificate::{CertificateDetails, ClientCertificate, ForwardMode};

/// The HTTP settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConnectionManager {
    /// Prefix of its statistics.
    pub stat_prefix: String,
    /// The protocols that clients may use.
    pub codec: DownstreamCodec,
    /// The source of the routes.
    pub routes: RouteSource,
    /// The filters before the router, in their order.
    pub filters: Vec<HttpFilter>,
    /// The logs of requests.
    pub access_logs: Vec<AccessLog>,
    /// Timers.
    pub timeouts: Timeouts,
    /// Path normalisation.
    pub path: PathOptions,
    /// True when the peer is the client (an edge) rather than another proxy.
    pub use_remote_address: bool,
    /// True when `x-request-id` is made when absent.
    pub generate_request_id: bool,
    /// Value of the `server` response header; `None` leaves the upstream's.
    pub server_name: Option<String>,
    /// True when an upstream's `server` header stays all the same.
    pub server_if_absent: bool,
    /// The normalisation of clients' authorities.
    pub authority: AuthorityOptions,
    /// The trust in the addresses and ids that clients send.
    pub trust: Trust,
    /// True when the request id is sent to the client.
    pub request_id_in_response: bool,
    /// A pseudonym for `via`; empty is none.
    pub via: String,
    /// True when no `x-envoy-*` headers are added.
    pub suppress_envoy_headers: bool,
    /// True when a connection goes on after a request that was refused for what it says.
    pub keeps_after_error: bool,
    /// True when CONNECT requests that send bytes before they are answered are refused.
    pub rejects_early_data: bool,
    /// The moments at which requests are logged, besides their end.
    pub log_moments: LogMoments,
    /// The protocols that may take a connection over.
    pub upgrades: Vec<Upgrade>,
    /// Settings of HTTP/1.
    pub http1: Http1Options,
    /// Settings of HTTP/2.
    pub http2: Http2Options,
    /// The requests that are traced, if any.
    pub tracing: Option<Tracing>,
    /// Changes to local replies.
    pub local_replies: LocalReplyConfig,
    /// The limits of requests' heads.
    pub heads: HeadOptions,
    /// Requests on a connection before it is closed; `None` is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// The time after which a connection is closed when its request ends; zero is unlimited.
    pub max_connection_duration: Duration,
    /// True when requests say which node sent them.
    pub add_user_agent: bool,
    /// True when requests say to which port they came.
    pub append_forwarded_port: bool,
    /// True when the timeout of an earlier proxy counts (`x-envoy-expected-rq-timeout-ms`).
    pub respect_expected_timeout: bool,
    /// Headers that must be right when they are there.
    pub strict_headers: Vec<StrictHeader>,
    /// The scheme that all requests are taken for, instead of their own.
    pub scheme: Option<Scheme>,
    /// What upstreams are told of a client's certificate.
    pub client_certificate: ClientCertificate,
    /// Changes of requests before anything is decided by them.
    pub early_mutations: Vec<Mutation>,
}

/// The moments at which requests are logged, besides their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogMoments {
    /// When the head of the request has come.
    pub start: bool,
    /// When another protocol was agreed on.
    pub tunnel: bool,
}

/// The limits of requests' heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadOptions {
    /// KiB of all header fields.
    pub kib: u32,
    /// Number of header fields.
    pub fields: u32,
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
}

impl Default for HeadOptions {
    /// Envoy's defaults.
    fn default() -> Self {
        Self { kib: 60, fields: 100, underscores: Underscores::default() }
    }
}

/// What becomes of fields with an underscore in their name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    #[default]
    Allow,
    /// The request is refused.
    Reject,
    /// They are left out.
    Drop,
}

/// A header that must be right when it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrictHeader {
    /// `x-envoy-upstream-rq-timeout-ms`
    Timeout,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`
    PerTryTimeout,
    /// `x-envoy-max-retries`
    MaxRetries,
    /// `x-envoy-retry-on`
    RetryOn,
    /// `x-envoy-retry-grpc-on`
    RetryGrpcOn,
}

impl StrictHeader {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Timeout, Self::PerTryTimeout, Self::MaxRetries, Self::RetryOn, Self::RetryGrpcOn];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "x-envoy-upstream-rq-timeout-ms",
            Self::PerTryTimeout => "x-envoy-upstream-rq-per-try-timeout-ms",
            Self::MaxRetries => "x-envoy-max-retries",
            Self::RetryOn => "x-envoy-retry-on",
            Self::RetryGrpcOn => "x-envoy-retry-grpc-on",
        }
    }
}

/// What becomes of slashes that are encoded in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They pass.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// The client is redirected to the decoded path.
    Redirect,
    /// They are decoded.
    Forward,
}

/// The codec that clients must use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DownstreamCodec {
    /// HTTP/2 when the connection starts with its preface, else HTTP/1.
    #[default]
    Auto,
    /// This one only.
    Fixed(Codec),
}

/// The source of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteSource {
    /// RDS, by name.
    Rds(String),
    /// The listener itself.
    Inline(RouteConfiguration),
}

/// Timers; zero switches one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connection without a request.
    pub idle: Duration,
    /// Stream without a byte.
    pub stream_idle: Duration,
    /// From the first byte of a request to its last.
    pub request: Duration,
    /// From the first byte of a request to the end of its head.
    pub request_headers: Duration,
    /// From head to end of a stream.
    pub max_stream: Duration,
}

/// The normalisation of clients' authorities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthorityOptions {
    /// The ports that are removed.
    pub strip_port: StripPort,
    /// True when a dot at the end is taken off.
    pub strip_dot: bool,
}

/// The ports that are removed from an authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    Never,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}

/// The trust in the addresses and ids that clients send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Proxies in front of this one, whose entries at the end of `x-forwarded-for` are true.
    pub hops: u32,
    /// True when the peer is left out of `x-forwarded-for`.
    pub skip_append: bool,
    /// Networks whose clients are internal.
    pub internal: Vec<Network>,
    /// True when a request id from outside is kept.
    pub keep_request_id: bool,
    /// Ways to find the address of the client, the first that finds one wins.
    pub detection: Vec<AddressDetection>,
}

/// Path normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathOptions {
    /// Resolve dot segments.
    pub normalise: bool,
    /// Merge slashes.
    pub merge_slashes: bool,
    /// What becomes of encoded slashes.
    pub escaped_slashes: EscapedSlashes,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            stream_idle: Duration::from_secs(300),
            request: Duration::ZERO,
            request_headers: Duration::from_secs(10),
            max_stream: Duration::ZERO,
        }
    }
}

impl HttpConnectionManager {
    /// A manager with every setting at its default.
    #[must_use]
    pub fn new(stat_prefix: impl Into<String>, routes: RouteSource) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            codec: DownstreamCodec::Auto,
            routes,
            filters: vec![HttpFilter::fault()],
            access_logs: Vec::new(),
            timeouts: Timeouts::default(),
            path: PathOptions { normalise: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep },
            use_remote_address: false,
            generate_request_id: true,
            server_name: None,
            server_if_absent: false,
            authority: AuthorityOptions::default(),
            trust: Trust::default(),
            request_id_in_response: false,
            via: String::new(),
            suppress_envoy_headers: false,
            keeps_after_error: false,
            rejects_early_data: false,
            log_moments: LogMoments::default(),
            upgrades: Vec::new(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            tracing: None,
            local_replies: LocalReplyConfig::default(),
            heads: HeadOptions::default(),
            max_requests_per_connection: None,
            max_connection_duration: Duration::ZERO,
            add_user_agent: false,
            append_forwarded_port: false,
            respect_expected_timeout: false,
            strict_headers: Vec::new(),
            scheme: None,
            client_certificate: ClientCertificate::default(),
            early_mutations: Vec::new(),
        }
    }
}
