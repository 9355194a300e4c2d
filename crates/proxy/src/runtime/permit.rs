//! Circuit breakers: exact limits across workers, and the places under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::ClusterState;

/// The counts that breakers limit.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(super) connections: Limit,
    pub(super) pending: Limit,
    pub(super) requests: Limit,
    pub(super) retries: Limit,
}

impl Flight {
    /// The requests that wait for a connection.
    pub(super) fn pending(&self) -> u32 {
        self.pending.0.load(Relaxed)
    }
}

/// An exact limit across workers.
#[derive(Debug, Default)]
pub(crate) struct Limit(AtomicU32);

impl Limit {
    fn take(&self, limit: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }
}

/// Selects one of a cluster's limits.
type LimitOf = fn(&Flight) -> &Limit;

/// A place under one of a cluster's limits, given back when dropped.
pub(crate) struct Permit(Option<(Arc<ClusterState>, bool, LimitOf)>);

impl Permit {
    /// Takes a place unless `most` are taken (then `None`); without a limit nothing is counted.
    pub(super) fn take(state: &Arc<ClusterState>, high: bool, limit: LimitOf, most: Option<u32>) -> Option<Self> {
        match most {
            None => Some(Self(None)),
            Some(most) => {
                let [normal, other] = &state.flight;
                let flight = if high { other } else { normal };
                limit(flight).take(most).then(|| Self(Some((state.clone(), high, limit))))
            }
        }
    }

    /// A place that is not counted.
    pub(crate) fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((state, high, limit)) = &self.0 {
            let [normal, other] = &state.flight;
            limit(if *high { other } else { normal }).0.fetch_sub(1, Relaxed);
        }
    }
}
