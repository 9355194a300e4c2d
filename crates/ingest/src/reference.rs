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
