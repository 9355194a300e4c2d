//! Where requests go: destinations as clusters, and where the routes to them are used.

use serin_model::{Attachment, Destination, Headers, HttpMatch, MeshSnapshot, ProxyIdentity, selects};
use serin_resources::route::WeightedCluster;

use crate::{naming, policy};

/// Where routes will be used, which decides which of them are.
pub(crate) struct RouteScope<'a> {
    pub(crate) mesh: &'a MeshSnapshot,
    pub(crate) proxy: &'a ProxyIdentity,
    /// Port that callers used.
    pub(crate) port: u16,
    /// The mesh, or one gateway.
    pub(crate) gateway: &'a Attachment,
    /// Whether all ports of services are reached from here, so that a service's only port is meant where none is said. A listener
    /// of one port in the mesh reaches that port alone.
    pub(crate) any_port: bool,
}

/// Whether a cohort can come this way: what is known of callers when routes are made.
pub(crate) fn reaches_here(cohort: &HttpMatch, place: &RouteScope<'_>) -> bool {
    let namespace = cohort.source_namespace.as_ref().is_none_or(|n| *n == place.proxy.name.namespace);
    cohort.port.is_none_or(|p| p == place.port) && namespace && selects(&cohort.source_labels, &place.proxy.labels)
}

/// The cluster of a subset of a destination, with its part of the requests.
pub(crate) fn cluster_of(
    destination: &Destination,
    place: &RouteScope<'_>,
    subset: Option<&str>,
    weight: u32,
) -> WeightedCluster {
    let Headers { request, response } = &destination.headers;
    let subset = subset.unwrap_or_default();
    WeightedCluster {
        name: naming::outbound(port_of(destination, place), subset, &destination.host),
        weight,
        request_headers: policy::headers(request),
        response_headers: policy::headers(response),
        host_rewrite: policy::authority(request),
        ..WeightedCluster::default()
    }
}

/// The port a destination means: its own, or that by which the request came; where all ports are reached, a service's only one.
/// A port that the service does not have leads to no cluster, and is answered 503 (Istio: `GetDestinationCluster`).
pub(crate) fn port_of(destination: &Destination, place: &RouteScope<'_>) -> u16 {
    let only = || match place.mesh.service(&destination.host)?.ports.as_slice() {
        [only] if place.any_port => Some(only.number),
        _ => None,
    };
    destination.port.or_else(only).unwrap_or(place.port)
}
