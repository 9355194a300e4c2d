//! Documents of every kind lowered into the model: the one place where a kind of Istio's, of Kubernetes' or of Serin's becomes values that do
//! not know where they come from.
//!
//! A kind has one function that reads its specification, and says what it cannot read or carry out; nothing behind it asks for the kind
//! again. A new kind is a line here, a file in the folder of its API, and its group in [`Kind::group`].

pub(crate) mod guard;
pub(crate) mod istio;
pub(crate) mod kubernetes;
pub(crate) mod release;

use serin_model::{Kind, Object, ObjectName};

use crate::cursor::{Cursor, Object as Fields};

/// Reads the content of an object of a kind whose metadata is read; `None` when it is not sound, which was said then.
///
/// `text` is its kind as the document says it, `document` and `root` are the whole document.
pub(crate) fn lower(
    kind: Kind,
    text: &str,
    name: &ObjectName,
    document: &Cursor<'_>,
    root: &Fields<'_>,
) -> Option<Object> {
    let spec = || root.required("spec");
    match kind {
        Kind::VirtualService => istio::virtual_service::read(&spec()?, name),
        Kind::DestinationRule => istio::destination_rule::read(&spec()?, name),
        Kind::Gateway => istio::gateway::read(&spec()?, name),
        Kind::ServiceEntry => istio::service_entry::read(&spec()?, name),
        Kind::WorkloadEntry => istio::workload_entry::read(&spec()?, name),
        Kind::Sidecar => istio::sidecar::read(&spec()?, name),
        Kind::MeshConfig => {
            root.skip(&["immutable"]);
            istio::mesh_config::read(&root.required("data")?)
        }
        Kind::Service => kubernetes::service(&spec()?, name),
        Kind::EndpointSlice => kubernetes::endpoint_slice(document, root, name),
        Kind::Release => release::read(&spec()?, name),
        Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::SecurityPolicy
        | Kind::BackendTLSPolicy
        | Kind::EnvoyFilter
        | Kind::WasmPlugin => Some(guard::read(text, root.get("spec").as_ref(), name, document)),
    }
}
