//! The outputs of access logs.

mod writer;

pub use writer::{Destination, Writer};
