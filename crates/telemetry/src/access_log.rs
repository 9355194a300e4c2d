//! Where access logs go.

mod writer;

pub use writer::{Destination, Writer};
