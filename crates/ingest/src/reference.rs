//! Names of other objects that an object uses.

use serin_model::{Hostname, ObjectName};

use crate::node::Position;

/// A use of another object's name, kept with its place so that a dangling one can be pointed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A destination.
    Destination {
        /// The service.
        host: Hostname,
        /// Its place.
        host_at: (Position, String),
        /// The subset with its place.
        subset: Option<(String, Position, String)>,
        /// The port with its place.
        port: Option<(u16, Position, String)>,
    },
    /// A gateway.
    Gateway {
        /// Its name.
        name: ObjectName,
        /// Its place.
        at: (Position, String),
    },
}

impl Reference {
    /// Whether it uses a subset of that name, defined for `rule_host` (possibly a wildcard).
    #[must_use]
    pub fn is_subset(&self, rule_host: &Hostname, name: &str) -> bool {
        match self {
            Self::Destination { host, subset: Some((subset, _, _)), .. } => rule_host.covers(host) && subset == name,
            _ => false,
        }
    }

    /// Whether it uses that gateway.
    #[must_use]
    pub fn is_gateway(&self, wanted: &ObjectName) -> bool {
        matches!(self, Self::Gateway { name, .. } if name == wanted)
    }
}
