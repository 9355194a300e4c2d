//! Settings of the whole mesh.

use crate::route::Retries;

/// Istio's MeshConfig, as far as it is carried out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeshConfig {
    /// How requests are tried again where a rule says nothing of it (`defaultHttpRetryPolicy`).
    pub default_retries: Option<Retries>,
}
