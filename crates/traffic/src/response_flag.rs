//! Envoy's response flags: why a response is not simply what an upstream sent.
//!
//! Source: Envoy, "Access logging", `%RESPONSE_FLAGS%` and `%RESPONSE_FLAGS_LONG%`.

/// The reason why a response is not simply what an upstream sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResponseFlag {
    /// No reason.
    #[default]
    None,
    /// The client ended the connection.
    DownstreamConnectionTermination,
    /// The client broke the protocol.
    DownstreamProtocolError,
    /// The time for the whole stream was up.
    DurationTimeout,
    /// The fault filter aborted it.
    FaultInjected,
    /// The health check filter answered, and this proxy is not healthy.
    FailedLocalHealthCheck,
    /// A header of the request that Envoy looks at is not right.
    InvalidEnvoyRequestHeaders,
    /// No endpoint is healthy.
    NoHealthyUpstream,
    /// The cluster does not exist.
    NoClusterFound,
    /// No route matches.
    NoRouteFound,
    /// The process holds all that it may.
    OverloadManager,
    /// The rate limit filter refused it.
    RateLimited,
    /// Nothing moved for the idle timeout.
    StreamIdleTimeout,
    /// The upstream connection failed.
    UpstreamConnectionFailure,
    /// The upstream ended its connection.
    UpstreamConnectionTermination,
    /// A circuit breaker is open.
    UpstreamOverflow,
    /// The upstream broke the protocol.
    UpstreamProtocolError,
    /// The upstream reset the stream.
    UpstreamRemoteReset,
    /// The upstream did not respond in time.
    UpstreamRequestTimeout,
}

impl ResponseFlag {
    /// The short form, as in `%RESPONSE_FLAGS%`; `-` for none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.names().0
    }

    /// The long form, as in `%RESPONSE_FLAGS_LONG%`; `-` for none.
    #[must_use]
    pub fn long(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("-", "-"),
            Self::DownstreamConnectionTermination => ("DC", "DownstreamConnectionTermination"),
            Self::DownstreamProtocolError => ("DPE", "DownstreamProtocolError"),
            Self::DurationTimeout => ("DT", "DurationTimeout"),
            Self::FaultInjected => ("FI", "FaultInjected"),
            Self::FailedLocalHealthCheck => ("LH", "FailedLocalHealthCheck"),
            Self::InvalidEnvoyRequestHeaders => ("IH", "InvalidEnvoyRequestHeaders"),
            Self::NoHealthyUpstream => ("UH", "NoHealthyUpstream"),
            Self::NoClusterFound => ("NC", "NoClusterFound"),
            Self::NoRouteFound => ("NR", "NoRouteFound"),
            Self::OverloadManager => ("OM", "OverloadManagerTerminated"),
            Self::RateLimited => ("RL", "RateLimited"),
            Self::StreamIdleTimeout => ("SI", "StreamIdleTimeout"),
            Self::UpstreamConnectionFailure => ("UF", "UpstreamConnectionFailure"),
            Self::UpstreamConnectionTermination => ("UC", "UpstreamConnectionTermination"),
            Self::UpstreamOverflow => ("UO", "UpstreamOverflow"),
            Self::UpstreamProtocolError => ("UPE", "UpstreamProtocolError"),
            Self::UpstreamRemoteReset => ("UR", "UpstreamRemoteReset"),
            Self::UpstreamRequestTimeout => ("UT", "UpstreamRequestTimeout"),
        }
    }
}
