//! The messages: named, versioned resources, and the node that asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf::value::Kind;

/// One named, versioned piece of configuration. Two are equal when name and version are.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its name, unique within its type.
    pub name: Arc<str>,
    /// Changes when the bytes do.
    pub version: String,
    /// The encoded message, without its `Any`.
    pub body: Bytes,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.name == other.name
    }
}

impl Eq for Resource {}

/// The resources of one type by name: a persistent map, of which a changed copy shares all that is unchanged.
pub type TypeMap = imbl::OrdMap<Arc<str>, Arc<Resource>>;

/// Everything for one client: resources by type URL and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceMap {
    /// Names this state in responses.
    pub version: Arc<str>,
    /// Resources by type and name.
    pub types: BTreeMap<&'static str, TypeMap>,
    /// The differences from the state before.
    pub step: Step,
}

/// The differences between a state and the one before it, so that clients that have the one need not compare both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The version of the state before; empty where it is not known.
    pub from: Arc<str>,
    /// Type and name of the resources that were added, changed or removed.
    pub changed: Vec<(&'static str, Arc<str>)>,
}

impl ResourceMap {
    /// Returns the resources that differ from the state of that version, when they are known.
    #[must_use]
    pub fn changed_since(&self, version: &str) -> Option<&[(&'static str, Arc<str>)]> {
        (!self.step.from.is_empty() && *self.step.from == *version).then_some(&self.step.changed)
    }

    /// Returns the resources of a type.
    #[must_use]
    pub fn of_type(&self, type_url: &str) -> Option<&TypeMap> {
        self.types.get(type_url)
    }
}

/// Who is at the other end of a stream, as the transport knows it: the claims of its node are not part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address, `IP:PORT`.
    pub address: String,
    /// The SPIFFE id that its certificate proved; `None` where nothing was authenticated.
    pub spiffe_id: Option<String>,
}

/// The node that a client says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The node id.
    pub id: String,
    /// `metadata.LABELS`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.GENERATOR`: by Istio's convention `grpc` of a client that is no proxy.
    pub generator: String,
    /// Program and version, as far as it says.
    pub user_agent: String,
}

impl From<&core::Node> for Node {
    fn from(node: &core::Node) -> Self {
        let labels = node.metadata.as_ref().and_then(|m| m.fields.get("LABELS")).and_then(|v| v.kind.as_ref());
        let labels = match labels {
            Some(Kind::StructValue(fields)) => fields
                .fields
                .iter()
                .filter_map(|(key, value)| match &value.kind {
                    Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
                    _ => None,
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        let generator = node.metadata.as_ref().and_then(|m| m.fields.get("GENERATOR")).and_then(|v| v.kind.as_ref());
        let generator = match generator {
            Some(Kind::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        Self { id: node.id.clone(), labels, generator, user_agent: node.user_agent_name.clone() }
    }
}
