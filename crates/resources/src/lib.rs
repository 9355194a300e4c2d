//! The resources that a proxy *runs*: listener, route configuration, cluster and endpoint assignment as Rust types,
//! decoded from and encoded to the xDS v3 protobufs side by side, so that the two directions cannot drift.
//!
//! Decoding looks at **every** field of every message. A field is supported, or ignored and reported, or refused
//! with its path; refused only where ignoring it would change where traffic goes or how safe it is.
//! The lists are written with [`audit!`], which destructures the message: a new field in the protobufs does
//! not compile until somebody has decided about it.
//!
//! It deliberately holds no live state (counts, health, pools) and decides nothing about a request.

#[macro_use]
mod audit;
pub mod access_log;
mod api_listener;
pub mod bootstrap;
pub mod cluster;
pub mod connection_manager;
mod convert;
pub mod endpoint;
mod error;
mod format_string;
pub mod header;
pub mod health_check;
pub mod http_filter;
pub mod json_format;
pub mod listener;
pub mod local_reply;
pub mod matcher;
pub mod network;
pub mod orca;
pub mod outlier;
pub mod protocol;
pub mod proxy_protocol;
pub mod re2;
pub mod retry;
pub mod route;
pub mod substitution;
pub mod tcp_proxy;
pub mod tls;
pub mod tracing;
pub mod type_url;
pub mod upgrade;

pub use api_listener::ApiListener;
pub use audit::{Audit, Runtime, RuntimeValue};
pub use cluster::Cluster;
pub use connection_manager::HttpConnectionManager;
pub use endpoint::LoadAssignment;
pub use error::{Error, Path};
pub use format_string::{FormatKind, FormatString};
pub use listener::Listener;
pub use route::RouteConfiguration;

/// The name of an encoded resource of any type here, for messages about one that cannot be decoded; empty when there is
/// none. (Clusters, assignments, listeners and routes all have it as field 1.)
#[must_use]
pub fn name_of(body: &[u8]) -> String {
    #[derive(prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    <Named as prost::Message>::decode(body).map(|named| named.name).unwrap_or_default()
}
