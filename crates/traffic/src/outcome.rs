//! How one try ended.

/// The end of one try, as far as retries and statistics care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer came.
    Response {
        /// Its status.
        status: u16,
        /// Its gRPC status, when the head has one.
        grpc: Option<u32>,
    },
    /// No connection could be made.
    ConnectFailure,
    /// The connection or stream ended before an answer.
    Reset {
        /// Whether any of the request may have reached the upstream.
        sent: bool,
        /// Whether the upstream said that it did not process the request (REFUSED_STREAM).
        refused: bool,
    },
    /// The time for this try ran out.
    Timeout,
    /// What came back was no HTTP.
    Protocol,
}

impl Outcome {
    /// The status that a client is answered when this is the last try.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Response { status, .. } => status,
            Self::ConnectFailure | Self::Reset { .. } => 503,
            Self::Timeout => 504,
            Self::Protocol => 502,
        }
    }

    /// Envoy's response flag for access logs.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Response { .. } => "-",
            Self::ConnectFailure => "UF",
            Self::Reset { refused: true, .. } => "UR",
            Self::Reset { .. } => "UC",
            Self::Timeout => "UT",
            Self::Protocol => "UPE",
        }
    }

    /// What Envoy says in the body of its answer.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Response { .. } => "",
            Self::ConnectFailure => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            }
            Self::Reset { .. } => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            Self::Timeout => "upstream request timeout",
            Self::Protocol => "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        }
    }
}
