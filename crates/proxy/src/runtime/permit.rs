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

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Arc<ClusterState> {
        Arc::new(ClusterState::new(1, tokio::sync::mpsc::unbounded_channel().0))
    }

    fn take(state: &Arc<ClusterState>, high: bool, most: Option<u32>) -> Option<Permit> {
        Permit::take(state, high, |flight| &flight.requests, most)
    }

    #[test]
    fn places_are_given_back_and_priorities_are_counted_apart() {
        let state = state();
        let (one, two) = (take(&state, false, Some(2)), take(&state, false, Some(2)));
        assert!(one.is_some() && two.is_some());
        assert!(take(&state, false, Some(2)).is_none());
        assert!(take(&state, true, Some(1)).is_some(), "high priority has places of its own");
        assert!(take(&state, true, Some(0)).is_none());
        drop(one);
        assert!(take(&state, false, Some(2)).is_some());
        let other = Permit::take(&state, false, |flight| &flight.retries, Some(1));
        assert!(other.is_some(), "retries are counted apart from requests");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let state = state();
        let uncounted: Vec<Option<Permit>> = (0..9).map(|_| take(&state, false, None)).collect();
        assert!(uncounted.iter().all(Option::is_some));
        let counted = take(&state, false, Some(1));
        assert!(counted.is_some());
        drop((uncounted, Permit::uncounted()));
        assert!(take(&state, false, Some(1)).is_none(), "only what was counted is given back");
    }

    #[test]
    fn a_limit_is_exact_across_threads() {
        let state = state();
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(permit) = take(&state, false, Some(3)) {
                            assert!(taken.fetch_add(1, Relaxed) < 3);
                            taken.fetch_sub(1, Relaxed);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!((0..3).map(|_| take(&state, false, Some(3))).collect::<Vec<_>>().iter().all(Option::is_some));
    }
}
