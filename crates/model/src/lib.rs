//! What the mesh *is*: services, endpoints, subsets, routes, policies, gateways and releases as validated plain values,
//! and an immutable snapshot of them all.
//!
//! Values here are already parsed and in their canonical form: host names are fully qualified and lower-case,
//! shares are parts of a million, durations are [`std::time::Duration`]. It deliberately knows neither YAML nor
//! xDS, has no clock and does no I/O.

mod gateway;
mod guard;
mod mesh_config;
mod name;
mod object;
mod policy;
mod release;
mod route;
mod service;
mod share;
mod sidecar;
mod snapshot;

pub use gateway::{ClientCheck, Gateway, GatewayListener, HostFilter, ListenerTls, ServerTls, TlsVersion};
pub use guard::{Demand, Guard, Guarded, ROOT_NAMESPACE, Target, closed_by};
pub use mesh_config::MeshConfig;
pub use name::{DOMAIN, Hostname, InvalidHostname, Labels, ObjectName, selects};
pub use object::{Kind, Object, ObjectKey, Provenance};
pub use policy::{
    BackendPolicy, Balancer, ClientTls, ConnectionPool, ConsistentHash, HashKey, HashTable, OutlierDetection,
    RetryBudget, ServerCheck, Subset, Tls, TrafficPolicy, Warmup,
};
pub use release::{
    Alert, AlertForm, Analysis, Approval, Bake, Failing, Hook, HookCall, Kayenta, OnDeadline, OnMix, Overlay, Query,
    Release, Step, Supersede,
};
pub use route::{
    Abort, AbortStatus, Action, Attachment, CorsPolicy, Delay, Destination, Fault, HeaderOperations, Headers,
    HttpMatch, HttpRoute, Mirror, PathRedirect, Redirect, RedirectPort, Respond, Retries, Rewrite, RouteRules,
    StringMatch,
};
pub use service::{Endpoint, EndpointSlice, Port, Protocol, Resolution, Service, TargetPort, Workload};
pub use share::Share;
pub use sidecar::{EgressListener, IngressListener, InvalidNodeId, ProxyIdentity, ProxyRole, Sidecar};
pub use snapshot::{Changes, MeshSnapshot, Objects, Outdated};
