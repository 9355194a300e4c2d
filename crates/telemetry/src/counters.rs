//! Counters with one copy for each worker.
//!
//! A worker only ever writes its own copy, so an increment is a plain load and store, never a locked instruction, and
//! no cache line is written by two workers. Reading adds up all copies; a sum taken while workers count may miss the
//! newest increments but never tears. Gauges count up and down in the same way: the wrapping sum is right.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Copies are this many counters apart, so that no two share a cache line pair (128 bytes).
const LINE: usize = 16;

/// A block of counters, `names.len()` for each of a number of workers.
#[derive(Debug)]
pub struct Counters {
    names: &'static [&'static str],
    stride: usize,
    cells: Box<[AtomicU64]>,
}

impl Counters {
    /// A block of zeros.
    #[must_use]
    pub fn new(names: &'static [&'static str], workers: usize) -> Self {
        let stride = names.len().next_multiple_of(LINE);
        let cells = (0..stride * (workers.max(1) + 1)).map(|_| AtomicU64::new(0)).collect();
        Self { names, stride, cells }
    }

    /// Adds to a counter, as `worker`. An index or worker that does not exist is nobody's and is dropped.
    pub fn add(&self, worker: usize, index: usize, amount: u64) {
        if let Some(cell) = self.cells.get(worker * self.stride + index) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// Takes one from a gauge, as `worker`.
    pub fn sub(&self, worker: usize, index: usize) {
        self.add(worker, index, u64::MAX);
    }

    /// The count of `worker` alone.
    #[must_use]
    pub fn own(&self, worker: usize, index: usize) -> u64 {
        self.cells.get(worker * self.stride + index).map_or(0, |cell| cell.load(Relaxed))
    }

    /// The sum over all workers.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.cells.iter().skip(index).step_by(self.stride).fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    /// All sums by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.names.iter().enumerate().map(|(index, name)| (*name, self.get(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up_and_gauges_go_down() {
        let counters = Counters::new(&["a", "b"], 3);
        for worker in 0..3 {
            counters.add(worker, 0, 5);
            counters.add(worker, 1, 1);
        }
        counters.sub(2, 1);
        counters.add(9, 0, 100);
        assert_eq!(counters.iter().collect::<Vec<_>>(), [("a", 15), ("b", 2)]);
    }
}
