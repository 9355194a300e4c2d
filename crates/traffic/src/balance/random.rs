//! Random by weight.

use super::{Candidate, Candidates, below, by_weight};

pub(super) fn pick<C: Candidate>(candidates: &Candidates<C>, random: &mut impl FnMut() -> u64) -> usize {
    if candidates.equal { below(random(), candidates.len() as u64) as usize } else { by_weight(candidates, random()) }
}
