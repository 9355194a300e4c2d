//! gRPC statuses (gRPC, "Status codes and their use in gRPC").

use serin_http1::HeaderBlock;

/// The status with which a call ended; backends may send numbers that gRPC does not define.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcStatus(u32);

impl GrpcStatus {
    /// The call succeeded.
    pub const OK: Self = Self(0);
    /// Nobody knows why it failed.
    pub const UNKNOWN: Self = Self(2);
    /// Its time was up.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The caller may not do this.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// Nobody does this.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// Something is broken.
    pub const INTERNAL: Self = Self(13);
    /// The service is away for now.
    pub const UNAVAILABLE: Self = Self(14);
    /// Nobody knows who the caller is.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The status of that number.
    #[must_use]
    pub fn new(code: u32) -> Self {
        Self(code)
    }

    /// Its number.
    #[must_use]
    pub fn code(self) -> u32 {
        self.0
    }

    /// The status in the fields of a head or of trailers.
    #[must_use]
    pub fn of(fields: &HeaderBlock) -> Option<Self> {
        fields.get_str("grpc-status").and_then(|code| code.parse().ok()).map(Self)
    }

    /// Returns true when it is what HTTP has 5xx for; numbers that gRPC does not define count as UNKNOWN (Envoy, `grpcToHttpStatus`).
    #[must_use]
    pub fn is_server_error(self) -> bool {
        matches!(self.0, 2 | 4 | 12..=15 | 17..)
    }

    /// The HTTP status that stands for it (Envoy, `grpcToHttpStatus`).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        }
    }

    /// The status that stands for an HTTP status without one (gRPC, "HTTP to gRPC Status Code Mapping").
    #[must_use]
    pub fn from_http(status: u16) -> Self {
        match status {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }
}
