//! The outcome of one attempt.

use crate::grpc::GrpcStatus;
use crate::response_flag::ResponseFlag;

/// The end of one attempt, as far as retries and statistics care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response came.
    Response {
        /// Its status.
        status: u16,
        /// Its gRPC status, when the head has one.
        grpc: Option<GrpcStatus>,
    },
    /// No connection could be made.
    ConnectFailure,
    /// No connection was made in time.
    ConnectTimeout,
    /// The upstream gave the stream up, after it may have processed the request.
    RemoteReset,
    /// The connection or stream ended before a response.
    Reset {
        /// True when any of the request may have reached the upstream.
        sent: bool,
        /// True when the upstream said that it did not process the request (REFUSED_STREAM).
        refused: bool,
    },
    /// The time for this attempt ran out.
    Timeout,
    /// The response was not HTTP.
    Protocol,
    /// A breaker let it not even try.
    Overflow,
}

impl Outcome {
    /// The status that a client is answered when this is the last attempt.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Response { status, .. } => status,
            Self::ConnectFailure | Self::ConnectTimeout | Self::RemoteReset | Self::Reset { .. } | Self::Overflow => {
                503
            }
            Self::Timeout => 504,
            Self::Protocol => 502,
        }
    }

    /// Envoy's response flag for access logs.
    #[must_use]
    pub fn flag(self) -> ResponseFlag {
        match self {
            Self::Response { .. } => ResponseFlag::None,
            Self::ConnectFailure | Self::ConnectTimeout => ResponseFlag::UpstreamConnectionFailure,
            Self::RemoteReset | Self::Reset { refused: true, .. } => ResponseFlag::UpstreamRemoteReset,
            Self::Reset { .. } => ResponseFlag::UpstreamConnectionTermination,
            Self::Timeout => ResponseFlag::UpstreamRequestTimeout,
            Self::Protocol => ResponseFlag::UpstreamProtocolError,
            Self::Overflow => ResponseFlag::UpstreamOverflow,
        }
    }

    /// Why a client gets a local reply, as access logs say it (Envoy: response code details of the router).
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::Response { .. } => "via_upstream",
            Self::ConnectFailure => "upstream_reset_before_response_started{remote_connection_failure}",
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::RemoteReset => "upstream_reset_before_response_started{remote_reset}",
            Self::Reset { refused: true, .. } => "upstream_reset_before_response_started{remote_refused_stream_reset}",
            Self::Reset { .. } => "upstream_reset_before_response_started{connection_termination}",
            Self::Timeout => "upstream_per_try_timeout",
            Self::Protocol => "upstream_reset_before_response_started{protocol_error}",
            Self::Overflow => "upstream_reset_before_response_started{overflow}",
        }
    }

    /// The body of Envoy's local reply; `retried` says that this was not the first attempt.
    #[must_use]
    pub fn reason(self, retried: bool) -> String {
        let reset = match self {
            Self::Response { .. } => return String::new(),
            Self::Timeout => return "upstream request timeout".to_owned(),
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::RemoteReset => "remote reset",
            Self::Reset { refused: true, .. } => "remote refused stream reset",
            Self::Reset { .. } => "connection termination",
            Self::Overflow => "overflow",
            Self::Protocol => "protocol error",
        };
        let before = if retried { "retried and the latest reset reason" } else { "reset reason" };
        format!("upstream connect error or disconnect/reset before headers. {before}: {reset}")
    }
}
