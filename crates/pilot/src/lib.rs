//! The control plane: watch sources, keep the store, build snapshots, push them to proxies, tell how they stand.
//!
//! A document that is broken, or that names something that does not exist, never takes down what was good before:
//! its last good version stays in force and the finding is printed with file, line and column.

mod accept;
mod admin;
mod clock;
mod copies;
mod fleet;
mod loads;
mod options;
mod reconcile;
mod releases;
mod run;
mod source;
mod store;

pub use options::PilotOptions;
pub use run::run;
