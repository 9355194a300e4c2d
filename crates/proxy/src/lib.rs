//! The data plane: sockets, connections, pools and timers that carry out what `traffic` decides on the snapshot that
//! `xds` delivered.
//!
//! There is one front door: xDS resources, from a control plane or from a bootstrap file. Configuration is immutable
//! and published whole; live state (counts, pools) outlives it. Nothing on the request path takes a lock or writes a
//! cache line that another worker writes.

mod admin;
mod arrival;
mod bootstrap;
mod collector;
mod discovery;
mod error;
mod handshake;
mod health;
mod http;
mod loads;
mod metric;
mod mirrors;
mod options;
mod peers;
mod run;
mod runtime;
mod snapshot;
mod spans;
mod state;
mod tcp;
mod threads;
mod timer;
mod times;
mod tls;
mod upstream;
mod wire;
mod worker;

/// The time since some instant at the start.
fn since_start() -> std::time::Duration {
    use std::sync::OnceLock;
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

pub use options::{ProxyOptions, XdsMode};
pub use run::run;
