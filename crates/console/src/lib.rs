//! The commands for users: they explain and check.
//!
//! Every command returns an exit code; what it found goes to standard output, what went wrong to standard error.

mod analyze;
mod bootstrap;
mod error;
mod pilot;
mod release;

pub use analyze::{AnalyzeOptions, analyze};
pub use bootstrap::{BootstrapOptions, bootstrap};
pub use release::{ReleaseOptions, release};
