//! The types of resources, and how each travels.

/// The rules by which the resources of a type travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeSpec {
    /// The type URL.
    pub url: &'static str,
    /// Place in the order of additions and changes: what others name goes first (make before break).
    pub addition: u8,
    /// Place in the order of removals: what names others goes first.
    pub removal: u8,
    /// True when a response in state of the world holds all resources of the type, so that an absent one is gone.
    pub is_full_state: bool,
    /// The type that these resources complete, name by name: a new resource there waits for its counterpart here, and a changed one
    /// gets its counterpart again.
    pub completes: Option<&'static str>,
    /// True when a subscription to a name is one to everything below it too: `A` to every `A/…` (Envoy: namespace matching of VHDS).
    pub is_on_demand: bool,
    /// True when two resources may exclude each other, as virtual hosts with the same domain do: what goes is removed in the response
    /// that adds what comes in its place. Nothing else may name such resources.
    pub is_exclusive: bool,
}

/// Clusters.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Endpoints of a cluster.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Listeners.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Route configurations.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Virtual hosts of route configurations that leave them to VHDS.
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";

/// The types that a mesh is made of (Envoy's xDS protocol page, "Eventual consistency considerations").
pub const TYPES: [TypeSpec; 5] = [
    TypeSpec {
        url: CLUSTER,
        addition: 0,
        removal: 4,
        is_full_state: true,
        completes: None,
        is_on_demand: false,
        is_exclusive: false,
    },
    TypeSpec {
        url: ENDPOINT,
        addition: 1,
        removal: 3,
        is_full_state: false,
        completes: Some(CLUSTER),
        is_on_demand: false,
        is_exclusive: false,
    },
    TypeSpec {
        url: LISTENER,
        addition: 2,
        removal: 2,
        is_full_state: true,
        completes: None,
        is_on_demand: false,
        is_exclusive: false,
    },
    TypeSpec {
        url: ROUTE,
        addition: 3,
        removal: 1,
        is_full_state: false,
        completes: None,
        is_on_demand: false,
        is_exclusive: false,
    },
    TypeSpec {
        url: VIRTUAL_HOST,
        addition: 4,
        removal: 0,
        is_full_state: false,
        completes: None,
        is_on_demand: true,
        is_exclusive: true,
    },
];
