//! The memory of responses while their clients do not read, bounded over a connection, a listener and the process.
//!
//! A response that waits is read on in large pieces as long as little waits (see [`BodySink::is_full`]). Beyond a bound, one piece is
//! read when the one before has left. When the process holds all it may, requests are refused, and a response that does not go
//! on is given up soon. (Envoy bounds each stream, and leaves the process to its overload manager.)

use std::sync::Arc;
use std::time::Duration;

use super::ConnectionContext;
use crate::metric;
use crate::snapshot::ChainRuntime;
use crate::wire::BodySink;

/// Bytes that all streams of one connection may hold before they are read on piece by piece (Envoy's default for a connection).
const OF_CONNECTION: usize = 1024 * 1024;
/// The time that a response may stand still when the process holds all it may.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_secs(5);

/// Returns true when so much waits for a client, or for all clients, that a response is not read on.
pub(super) fn is_full(context: &ConnectionContext, chain: &ChainRuntime, client: &BodySink<'_>) -> bool {
    if client.is_full() {
        return true;
    }
    let worker = &context.worker;
    if worker.held.get() == 0 {
        return false;
    }
    let of_prefix = chain.stats.own(worker.id, metric::http::TX_BUFFERED) as usize;
    let pressed = context.held.get() >= OF_CONNECTION
        || of_prefix >= worker.most_held / 4
        || worker.held.get() >= worker.most_held / 2;
    pressed && client.pending() > 0
}

/// Returns true when the process holds all it may.
pub(super) fn is_exhausted(context: &ConnectionContext) -> bool {
    context.worker.held.get() >= context.worker.most_held
}

/// Bytes that wait for a client, counted until dropped.
pub(super) struct Held<'a> {
    context: &'a ConnectionContext,
    chain: Arc<ChainRuntime>,
    bytes: usize,
}

impl<'a> Held<'a> {
    pub(super) fn new(context: &'a ConnectionContext, chain: Arc<ChainRuntime>, bytes: usize) -> Self {
        context.held.set(context.held.get() + bytes);
        context.worker.held.set(context.worker.held.get() + bytes);
        chain.stats.add(context.worker.id, metric::http::TX_BUFFERED, bytes as u64);
        Self { context, chain, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Self { context, chain, bytes } = self;
        context.held.set(context.held.get() - *bytes);
        context.worker.held.set(context.worker.held.get() - *bytes);
        chain.stats.add(context.worker.id, metric::http::TX_BUFFERED, (*bytes as u64).wrapping_neg());
    }
}
