//! Any object of the mesh, with its identity.

use std::fmt;
use std::sync::Arc;

use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::mesh_config::MeshConfig;
use crate::name::ObjectName;
use crate::policy::BackendPolicy;
use crate::release::Release;
use crate::route::RouteRules;
use crate::service::{EndpointSlice, Service, Workload};
use crate::sidecar::Sidecar;

/// The kinds of objects. A kind is of one API group ([`Kind::group`]): one that two groups have, such as Gateway, is two kinds here, so an
/// [`ObjectKey`] names an object wherever it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` Gateway.
    Gateway,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry,
    /// `networking.istio.io` Sidecar.
    Sidecar,
    /// Kubernetes Service.
    Service,
    /// Kubernetes EndpointSlice.
    EndpointSlice,
    /// `serin.dev` Release.
    Release,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication,
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `gateway.networking.k8s.io` BackendTLSPolicy.
    BackendTLSPolicy,
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter,
    /// `extensions.istio.io` WasmPlugin.
    WasmPlugin,
    /// Another kind of `security.istio.io`, whose name has its kind in front.
    SecurityPolicy,
    /// Istio's MeshConfig, which stands in the ConfigMap `istio` of the root namespace.
    MeshConfig,
}

impl Kind {
    /// Returns the group of its API; the core group of Kubernetes, and Istio's ConfigMap in it, have the empty one.
    #[must_use]
    pub fn group(self) -> &'static str {
        match self {
            Self::VirtualService
            | Self::DestinationRule
            | Self::Gateway
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::Sidecar
            | Self::EnvoyFilter => "networking.istio.io",
            Self::PeerAuthentication
            | Self::RequestAuthentication
            | Self::AuthorizationPolicy
            | Self::SecurityPolicy => "security.istio.io",
            Self::WasmPlugin => "extensions.istio.io",
            Self::BackendTLSPolicy => "gateway.networking.k8s.io",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Release => "serin.dev",
            Self::Service | Self::MeshConfig => "",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// When and where an object was made, which is its place among others of its kind: by time of creation, then by place.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provenance {
    /// Time of creation, in seconds since 1970; documents that say none are older than those that do, as in Istio.
    pub created: Option<i64>,
    /// Its file; empty for one that says when it was created, because then its name decides.
    pub file: Arc<str>,
    /// Its number in the file.
    pub number: u32,
}

/// What makes an object the same object when it changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Routing rules.
    RouteRules(RouteRules),
    /// Subsets and policies.
    BackendPolicy(BackendPolicy),
    /// An entrance.
    Gateway(Gateway),
    /// Services (a ServiceEntry with several hosts makes several).
    Services(Vec<Service>),
    /// An instance.
    Workload(Workload),
    /// Instances of a Kubernetes service.
    EndpointSlice(EndpointSlice),
    /// What one workload's proxy listens to.
    Sidecar(Sidecar),
    /// A new version on its way.
    Release(Box<Release>),
    /// A policy that is not carried out.
    Guard(Guard),
    /// Settings of the whole mesh.
    MeshConfig(Box<MeshConfig>),
}
