//! Access logs in Envoy's format strings.

mod format;
mod writer;

pub use format::{Format, FormatError, Record};
pub use writer::{Destination, Writer};
