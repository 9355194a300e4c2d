//! From received bytes to a published snapshot.
//!
//! One bad resource is rejected by name and path; the rest of its response applies, and its own last good version
//! stays. A change rebuilds only what it touches: endpoints their cluster, routes their table.

mod dns;
mod handler;
mod listeners;
mod store;

pub(crate) use dns::watch as watch_dns;
pub(crate) use handler::StoreHandler;
pub(crate) use store::{Held, SharedStore, Store, watch_outliers};
