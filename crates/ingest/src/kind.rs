//! Kinds of objects, by API version and name.

use serin_model::Kind;

use crate::diagnostic::Severity;
use crate::spelling::{distance, is_slip};

/// The kinds that are read, with their API versions.
const KINDS: [(&str, &str); 14] = [
    ("Release", "serin.dev/v1alpha1"),
    ("VirtualService", ISTIO_NETWORKING),
    ("DestinationRule", ISTIO_NETWORKING),
    ("Gateway", ISTIO_NETWORKING),
    ("ServiceEntry", ISTIO_NETWORKING),
    ("WorkloadEntry", ISTIO_NETWORKING),
    ("Sidecar", ISTIO_NETWORKING),
    ("EnvoyFilter", "networking.istio.io/v1alpha3"),
    ("PeerAuthentication", "security.istio.io/v1"),
    ("RequestAuthentication", "security.istio.io/v1"),
    ("AuthorizationPolicy", "security.istio.io/v1"),
    ("BackendTLSPolicy", "gateway.networking.k8s.io/v1"),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
];

const ISTIO_NETWORKING: &str = "networking.istio.io/v1";

/// What was probably meant by a kind that is not known.
pub(crate) fn known_instead(kind: &str) -> String {
    if let Some((name, version)) = KINDS.iter().find(|(known, _)| *known == kind) {
        return format!("the {name} that is read here is that of {version}; this document is not used");
    }
    let near = |(known, _): &&(&str, &str)| is_slip(&known.to_ascii_lowercase(), &kind.to_ascii_lowercase());
    match KINDS.iter().find(near) {
        Some((known, _)) => format!("did you mean '{known}'? The document is not used"),
        None => "the document is not used".to_owned(),
    }
}

/// The kind of that name in that version, if it is read.
pub(crate) fn known_kind(version: &str, kind: &str) -> Option<Kind> {
    let istio =
        matches!(version, "networking.istio.io/v1" | "networking.istio.io/v1beta1" | "networking.istio.io/v1alpha3");
    Some(match (version, kind) {
        (_, "VirtualService") if istio => Kind::VirtualService,
        (_, "DestinationRule") if istio => Kind::DestinationRule,
        (_, "Gateway") if istio => Kind::Gateway,
        (_, "ServiceEntry") if istio => Kind::ServiceEntry,
        (_, "WorkloadEntry") if istio => Kind::WorkloadEntry,
        (_, "Sidecar") if istio => Kind::Sidecar,
        ("serin.dev/v1alpha1", "Release") => Kind::Release,
        ("security.istio.io/v1" | "security.istio.io/v1beta1", "PeerAuthentication") => Kind::PeerAuthentication,
        ("security.istio.io/v1" | "security.istio.io/v1beta1", "RequestAuthentication") => Kind::RequestAuthentication,
        ("security.istio.io/v1" | "security.istio.io/v1beta1", "AuthorizationPolicy") => Kind::AuthorizationPolicy,
        (version, _) if version.starts_with("security.istio.io/") => Kind::SecurityPolicy,
        ("networking.istio.io/v1alpha3", "EnvoyFilter") => Kind::EnvoyFilter,
        (version, "WasmPlugin") if version.starts_with("extensions.istio.io/") => Kind::WasmPlugin,
        (version, "BackendTLSPolicy") if version.starts_with("gateway.networking.k8s.io/") => Kind::BackendTLSPolicy,
        ("v1", "Service") => Kind::Service,
        ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
        _ => return None,
    })
}

/// The kind that is probably meant where the version or the kind cannot be trusted.
pub(crate) fn probable_kind(version: &str, kind: &str) -> Option<Kind> {
    if let Some(kind) = known_kind(version, kind) {
        return Some(kind);
    }
    let group = version.split('/').next().unwrap_or_default();
    let near = |known: &str| distance(known, group) <= 3;
    if !version.is_empty()
        && !version.contains("istio.io")
        && !near("security.istio.io")
        && !near("networking.istio.io")
    {
        return None;
    }
    let security = || known_kind("security.istio.io/v1", kind).filter(|kind| *kind != Kind::SecurityPolicy);
    match known_kind(version, kind) {
        Some(kind) => Some(kind),
        None if version.starts_with("security.istio.io") => Some(Kind::SecurityPolicy),
        None => security().or_else(|| known_kind("networking.istio.io/v1", kind)).or_else(|| misspelt(kind)),
    }
}

/// A kind that may have to close something, misspelt.
fn misspelt(kind: &str) -> Option<Kind> {
    let kinds = [
        ("authorizationpolicy", Kind::AuthorizationPolicy),
        ("peerauthentication", Kind::PeerAuthentication),
        ("requestauthentication", Kind::RequestAuthentication),
        ("destinationrule", Kind::DestinationRule),
    ];
    let lower = kind.to_ascii_lowercase();
    kinds.into_iter().find(|(name, _)| is_slip(name, &lower)).map(|(_, kind)| kind)
}

/// Kubernetes objects that are none of ours stand beside rules in most folders; elsewhere an unknown kind is a mistake.
pub(crate) fn unknown_severity(version: &str) -> Severity {
    let foreign = ["v1", "apps/v1", "batch/v1", "autoscaling/v2", "policy/v1", "rbac.authorization.k8s.io/v1"];
    if foreign.contains(&version) { Severity::Info } else { Severity::Error }
}
