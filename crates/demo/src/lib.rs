//! Bookinfo's services written small, and the script that stands the mesh up on one machine.
//!
//! The demo uses Serin as a user would: it starts processes and talks to their public ports. It shares no code
//! with the pilot or the proxy.

mod app;
mod client;
mod envoy;
mod orchestra;

pub use app::{AppOptions, run as app};
pub use envoy::{EnvoyOptions, run as envoy};
pub use orchestra::{DataPlane, DemoOptions, run};
