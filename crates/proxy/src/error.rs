//! The errors that users of the proxy read: of its options, of its admin interface and of the export of spans.

/// An option or a parameter that cannot be used, or spans that cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An option's label that is not a pair.
    #[error("'{0}' is not KEY=VALUE")]
    Label(String),
    /// An option's duration that cannot be read.
    #[error("'{0}' is not a duration such as 500ms, 5s or 2m")]
    Duration(String),
    /// `/explain` without a listener, where there is not exactly one; holds the names of all.
    #[error("say listener=NAME; there are: {0}")]
    NoListener(String),
    /// `/explain` without a chain, where there are several; holds the names of all.
    #[error("say chain=NAME; the listener has: {0}")]
    NoChain(String),
    /// `/explain` for a chain that is not of HTTP.
    #[error("chain {0} passes TCP on: it has no routes")]
    NoHttp(String),
    /// `/explain` without a URL.
    #[error("say url=http://AUTHORITY/PATH")]
    NoUrl,
    /// `/explain` with a header that is not a pair.
    #[error("'{0}' is no name:value")]
    Header(String),
    /// `/explain` with a draw out of range.
    #[error("draw is a number from 0 to 1")]
    Draw,
    /// A resource that cannot be decoded.
    #[error(transparent)]
    Resource(#[from] serin_resources::Error),
    /// A route configuration with VHDS from a control plane that sends the state of the world.
    #[error("RouteConfiguration.vhds: needs the delta variant of the protocol")]
    NoDelta,
    /// A virtual host that names no route configuration.
    #[error("'{0}': a virtual host is named ROUTE CONFIGURATION/VIRTUAL HOST")]
    HostName(String),
    /// A resource of a type that was not asked for.
    #[error("type '{0}' was not asked for")]
    UnknownType(String),
    /// A listener's address that cannot be bound.
    #[error("cannot bind {address}: {error}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// The reason.
        error: std::io::Error,
    },
    /// The same of a listener that discovery gave.
    #[error("{0}; it is tried again every second")]
    Unbound(Box<Self>),
    /// Certificates, keys or lists that cannot be used.
    #[error("its TLS cannot be used: {0}")]
    Certificates(String),
    /// The cluster of a collector of spans has no endpoint.
    #[error("its cluster has no endpoint")]
    NoCollector,
    /// The connection to a collector failed.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// A collector refused spans.
    #[error(transparent)]
    Status(#[from] tonic::Status),
}
