//! How named, versioned bytes travel: the xDS v3 discovery protocol, incremental and state of the world, both ends.
//!
//! The sessions are state machines without I/O: messages in, messages out, the time as an argument. The transports
//! are thin: the serving end is [`grpc`] over our own HTTP/2, the asking end is tonic. Nothing here looks inside a resource.
//!
//! Duties come from Envoy's xDS protocol page: a nonce is per stream and type; a NACK is recognised by its error
//! detail only; a stale nonce is not answered in state of the world but still changes subscriptions in delta.

pub mod bootstrap;
pub mod client;
mod error;
pub mod grpc;
pub mod load;
mod message;
pub mod server;
pub mod type_spec;

pub use error::Error;
pub use message::{Node, Peer, Resource, ResourceMap, Step, TypeMap};
pub use type_spec::{TYPES, TypeSpec};
