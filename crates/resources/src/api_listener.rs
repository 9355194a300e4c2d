//! The listener of a gRPC client: it holds the routes of requests to one target.
//!
//! <https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md>

use envoy_types::pb::envoy::config::listener::v3 as pb;
use prost::Message as _;

use crate::connection_manager::HttpConnectionManager;
use crate::convert;

/// The listener of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiListener {
    /// The target as the client writes it after `xds:///`.
    pub name: String,
    /// Filters, and where the routes are.
    pub manager: HttpConnectionManager,
}

impl ApiListener {
    /// The bytes of an LDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let manager = pb::ApiListener { api_listener: Some(convert::any(&self.manager.encode())) };
        pb::Listener { name: self.name.clone(), api_listener: Some(manager), ..Default::default() }.encode_to_vec()
    }

    /// Returns true when an LDS resource is of this kind.
    #[must_use]
    pub fn is_one(body: &[u8]) -> bool {
        pb::Listener::decode(body).is_ok_and(|listener| listener.api_listener.is_some())
    }
}
