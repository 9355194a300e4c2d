//! What every worker works from: an immutable picture, published whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use serin_resources::access_log::LogFormat;
use serin_resources::listener::Listener;
use serin_telemetry::Counters;
use serin_telemetry::access_log::Writer;
use serin_traffic::filter::Chain;
use serin_traffic::router::RouteTable;

use crate::runtime::ClusterRuntime;

/// A listener with what its requests need.
#[derive(Debug)]
pub(crate) struct ListenerRuntime {
    pub(crate) config: Listener,
    pub(crate) stats: Arc<Counters>,
    pub(crate) logs: Vec<(LogFormat, Arc<Writer>)>,
    /// Its filters with what they remember.
    pub(crate) chain: Arc<Chain>,
    /// Faults that go on.
    pub(crate) faults: Arc<AtomicU32>,
}

/// One consistent configuration.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Listeners that have their routes.
    pub(crate) listeners: HashMap<String, (Arc<ListenerRuntime>, Arc<RouteTable>)>,
    pub(crate) clusters: HashMap<String, Arc<ClusterRuntime>>,
}
