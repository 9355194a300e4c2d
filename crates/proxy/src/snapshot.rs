//! The configuration that every worker works from: immutable, published whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use serin_resources::FormatString;
use serin_resources::http_filter::Rbac;
use serin_resources::listener::{Direction, FilterChain, FilterChainMatch, Listener};
use serin_telemetry::access_log::Writer;
use serin_telemetry::{Counters, Histogram};
use serin_traffic::filter::{Caller, Chain, FilterState as _, RbacGate};
use serin_traffic::filter_chain::{self, Connection};
use serin_traffic::log_filter::CompiledFilter;
use serin_traffic::router::RouteTable;

use crate::handshake::TlsCounts;
use crate::runtime::ClusterRuntime;
use crate::tls::ServerSlot;

/// A listener with what its connections need.
#[derive(Debug)]
pub(crate) struct ListenerRuntime {
    pub(crate) config: Arc<Listener>,
    /// Its chains with their routes, the default chain last.
    pub(crate) chains: Vec<(Arc<ChainRuntime>, Arc<RouteTable>)>,
    /// Connections that no chain matched.
    pub(crate) unmatched: Arc<AtomicU64>,
    /// True when the first bytes of a connection are looked at before its chain is chosen.
    pub(crate) inspects: bool,
}

impl ListenerRuntime {
    /// Chooses the chain of a connection, by its number; `None` when there is none for it.
    pub(crate) fn choose<'c>(&self, connection: impl FnOnce() -> Connection<'c>) -> Option<usize> {
        let chosen = match self.config.chains.as_slice() {
            [only] if only.matches == FilterChainMatch::default() => return Some(0),
            chains => filter_chain::choose(chains, &connection()),
        };
        let chosen = chosen.or_else(|| self.config.default_chain.as_ref().map(|_| self.config.chains.len()));
        if chosen.is_none() {
            self.unmatched.fetch_add(1, Relaxed);
        }
        chosen
    }

    /// Finds the chain that serves connections which `chain` of this listener served before a change: the one that matches the same,
    /// lets the same connections in, and speaks the same protocol. Connections without one end after their request, as in Envoy those
    /// of a chain that changed.
    pub(crate) fn successor(&self, chain: &ChainRuntime) -> Option<usize> {
        let is_same = |(own, _): &(Arc<ChainRuntime>, _)| {
            own.is_default == chain.is_default
                && own.config.matches == chain.config.matches
                && own.config.gates == chain.config.gates
                && own.config.tls == chain.config.tls
                && own.config.filter.manager().is_some() == chain.config.filter.manager().is_some()
        };
        self.chains.iter().position(is_same)
    }
}

/// A filter chain with what its requests need.
#[derive(Debug)]
pub(crate) struct ChainRuntime {
    pub(crate) config: FilterChain,
    /// True when it is for what no other matches.
    pub(crate) is_default: bool,
    /// The direction of its listener.
    pub(crate) direction: Direction,
    /// Bytes that a connection of its listener may buffer.
    pub(crate) buffer_limit: u32,
    pub(crate) stats: Arc<Counters>,
    /// The times of requests.
    pub(crate) times: Arc<Histogram>,
    pub(crate) logs: Vec<LogRuntime>,
    /// True when logs or local replies may want to know what a request was.
    pub(crate) is_remembered: bool,
    /// The filters of the mappers of local replies, in their order.
    pub(crate) mappers: Vec<CompiledFilter>,
    /// Its HTTP filters with what they remember.
    pub(crate) http_filters: Arc<Chain>,
    /// Those of upgrades that have their own, by the numbers of the upgrades.
    pub(crate) upgrade_filters: Vec<Option<Arc<Chain>>>,
    /// The filters of connections, and the numbers of connections that they let in and not.
    pub(crate) gates: Vec<Gate>,
    /// Faults that go on.
    pub(crate) faults: Arc<AtomicU32>,
    /// Its TLS; `None` is plain text.
    pub(crate) tls: Option<Arc<ServerSlot>>,
    /// Handshakes of its listener.
    pub(crate) tls_counts: Arc<TlsCounts>,
}

/// An access log.
#[derive(Debug)]
pub(crate) struct LogRuntime {
    pub(crate) format: FormatString,
    /// The requests that it takes.
    pub(crate) filter: Option<CompiledFilter>,
    pub(crate) writer: Arc<Writer>,
}

/// A network filter that lets connections in or not.
#[derive(Debug)]
pub(crate) struct Gate {
    rbac: RbacGate,
    /// Allowed, denied, and what shadow rules would have.
    counts: [AtomicU64; 4],
}

impl Gate {
    pub(crate) fn new(config: &Rbac) -> Self {
        Self { rbac: RbacGate::new(config), counts: Default::default() }
    }

    /// Returns true when a connection may come in.
    pub(crate) fn lets_in(&self, caller: &Caller) -> bool {
        let count = |which: usize| _ = self.counts.get(which).map(|c| c.fetch_add(1, Relaxed));
        if let Some(allowed) = self.rbac.would_let_in(caller, None) {
            count(if allowed { 2 } else { 3 });
        }
        let allowed = self.rbac.lets_in(caller, None);
        if self.rbac.config.rules.is_some() {
            count(usize::from(!allowed));
        }
        allowed
    }

    /// Its prefix, and what is counted by name.
    pub(crate) fn counted(&self) -> (&String, impl Iterator<Item = (&'static str, u64)>) {
        let names = ["rbac.allowed", "rbac.denied", "rbac.shadow_allowed", "rbac.shadow_denied"];
        (&self.rbac.config.prefix, names.into_iter().zip(self.counts.iter().map(|c| c.load(Relaxed))))
    }
}

/// One consistent configuration.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Listeners that have their routes.
    pub(crate) listeners: HashMap<String, Arc<ListenerRuntime>>,
    pub(crate) clusters: HashMap<String, Arc<ClusterRuntime>>,
}
