//! Settings of the whole mesh.

use crate::route::Retries;

/// Istio's MeshConfig, as far as it is carried out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeshConfig {
    /// How requests are tried again where a rule says nothing of it (`defaultHttpRetryPolicy`).
    pub default_retries: Option<Retries>,
    /// Where policies without a selector are for the whole mesh (`rootNamespace`).
    pub root_namespace: Option<String>,
}
