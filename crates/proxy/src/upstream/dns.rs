//! Names of endpoints, looked up again and again.

use std::net::SocketAddr;
use std::time::Duration;

use serin_resources::cluster::Names;
use serin_resources::endpoint::{Endpoint, LoadAssignment};

/// Longest time that one look-up may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Replaces every name by the addresses it has now, those of the family that is asked for; a name that cannot be resolved keeps those it had
/// in `before`.
pub(crate) async fn resolve(names: &Names, before: &LoadAssignment) -> LoadAssignment {
    let assignment = &names.assignment;
    let mut endpoints = Vec::new();
    for endpoint in &assignment.endpoints {
        let hostname = if endpoint.hostname.is_empty() { &endpoint.host } else { &endpoint.hostname };
        let looked_up = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
        let mut found: Vec<SocketAddr> = match tokio::time::timeout(PATIENCE, looked_up).await {
            Ok(Ok(addresses)) => addresses.collect(),
            failed => {
                let error = failed
                    .map_or_else(|_| "no answer".to_owned(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
                tracing::warn!(cluster = assignment.cluster, host = endpoint.host, error, "cannot resolve");
                let same = |e: &&Endpoint| e.hostname == *hostname && e.port == endpoint.port;
                endpoints.extend(before.endpoints.iter().filter(same).cloned());
                continue;
            }
        };
        names.family.choose(&mut found);
        if found.is_empty() {
            tracing::warn!(
                cluster = assignment.cluster,
                host = endpoint.host,
                "has no address of the family that is asked for"
            );
        }
        found.sort();
        found.dedup();
        let named = |address: SocketAddr| Endpoint {
            host: address.ip().to_string(),
            hostname: hostname.clone(),
            ..endpoint.clone()
        };
        endpoints.extend(found.into_iter().map(named));
    }
    LoadAssignment { endpoints, ..assignment.clone() }
}
