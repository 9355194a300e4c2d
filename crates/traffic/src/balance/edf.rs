//! Earliest deadline first: each pick of an endpoint puts its next deadline off by the inverse of its weight.
//!
//! First deadlines are drawn at random within that distance, as gRPC's static stride scheduler does (A58): started all
//! alike, the heavy would come first after every change, and with few requests between changes the light would never
//! (envoyproxy/envoy#14597).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub(super) struct Schedule {
    now: f64,
    order: u64,
    heap: BinaryHeap<Entry>,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    place: usize,
}

impl Ord for Entry {
    /// The earliest is the greatest; of equals the one that came first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Schedule {
    pub(super) fn new(count: usize, weight: &impl Fn(usize) -> f64, random: &mut impl FnMut() -> u64) -> Self {
        let heap = (0..count)
            .map(|place| Entry { deadline: super::fraction(random()) / weight(place), order: place as u64, place })
            .collect();
        Self { now: 0.0, order: count as u64, heap }
    }

    /// Returns the member whose turn it is. Its weight is asked for now, so one that changed counts from here on.
    pub(super) fn next(&mut self, weight: &impl Fn(usize) -> f64) -> usize {
        let Some(mut entry) = self.heap.pop() else { return 0 };
        self.now = entry.deadline;
        let place = entry.place;
        entry.deadline = self.now + 1.0 / weight(place).max(f64::MIN_POSITIVE);
        entry.order = self.order;
        self.order += 1;
        self.heap.push(entry);
        place
    }
}
