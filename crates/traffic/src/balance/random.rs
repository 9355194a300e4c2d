//! Random by weight.

use super::{Candidate, below, by_weight, equal_weights};

pub(super) fn pick<C: Candidate>(candidates: &[C], random: &mut impl FnMut() -> u64) -> usize {
    if equal_weights(candidates) {
        below(random(), candidates.len() as u64) as usize
    } else {
        by_weight(candidates, random())
    }
}
