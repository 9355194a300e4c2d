//! Names of endpoints, looked up again and again.

use std::net::SocketAddr;

use serin_resources::endpoint::{Endpoint, LoadAssignment};

/// Replaces every name of an assignment by the addresses it has now; a name that cannot be resolved yields none.
pub(crate) async fn resolve(assignment: &LoadAssignment) -> LoadAssignment {
    let mut endpoints = Vec::new();
    for endpoint in &assignment.endpoints {
        let mut found: Vec<SocketAddr> = match tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                tracing::warn!(cluster = assignment.cluster, host = endpoint.host, %error, "cannot resolve");
                Vec::new()
            }
        };
        found.sort();
        found.dedup();
        let named = |address: SocketAddr| Endpoint {
            host: address.ip().to_string(),
            hostname: if endpoint.hostname.is_empty() { endpoint.host.clone() } else { endpoint.hostname.clone() },
            ..endpoint.clone()
        };
        endpoints.extend(found.into_iter().map(named));
    }
    LoadAssignment { cluster: assignment.cluster.clone(), endpoints }
}
