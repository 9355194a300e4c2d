//! Comparisons of mirrors' responses with those that clients got: counts, and the newest differences, for the admin page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serin_traffic::compare::Difference;

use crate::runtime::locked;

/// Differing answers that are kept of each mirror.
const KEPT: usize = 20;

/// One request whose responses differ.
#[derive(Debug, Clone)]
pub(crate) struct Example {
    /// Method and path.
    pub(crate) request: String,
    pub(crate) differences: Vec<Difference>,
}

/// The comparisons of one mirror.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compared {
    pub(crate) same: u64,
    pub(crate) different: u64,
    pub(crate) newest: VecDeque<Example>,
    /// The number of differences by place.
    pub(crate) places: BTreeMap<String, u64>,
}

/// By the mirror's cluster.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(Mutex<BTreeMap<String, Compared>>);

/// Places that are told apart; what comes after is counted under none of its own.
const PLACES: usize = 200;

impl Mirrors {
    /// Takes note of a comparison.
    pub(crate) fn note(&self, cluster: &str, request: String, differences: Vec<Difference>) {
        let mut all = locked(&self.0);
        let compared = all.entry(cluster.to_owned()).or_default();
        if differences.is_empty() {
            compared.same += 1;
            return;
        }
        compared.different += 1;
        for difference in &differences {
            if compared.places.len() < PLACES || compared.places.contains_key(&difference.place) {
                *compared.places.entry(difference.place.clone()).or_default() += 1;
            }
        }
        compared.newest.push_back(Example { request, differences });
        if compared.newest.len() > KEPT {
            compared.newest.pop_front();
        }
    }

    /// Everything.
    pub(crate) fn all(&self) -> BTreeMap<String, Compared> {
        locked(&self.0).clone()
    }
}
