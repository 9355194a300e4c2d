//! The least busy of a few random candidates ("power of two choices", Mitzenmacher 1996; Envoy LEAST_REQUEST).
//!
//! With equal weights each choice is uniform and the one with fewest requests in flight wins, ties to the first.
//! With unequal weights choices are drawn by weight and compared by (active + 1) / weight, so that an idle pool is
//! used by weight and a busy one by load.

use super::{Candidate, Candidates, below, by_weight};

pub(super) fn pick<C: Candidate>(candidates: &Candidates<C>, choices: u32, random: &mut impl FnMut() -> u64) -> usize {
    let equal = candidates.equal;
    let mut draw =
        || if equal { below(random(), candidates.len() as u64) as usize } else { by_weight(candidates, random()) };
    let mut best = draw();
    for _ in 1..choices {
        let other = draw();
        let (Some(a), Some(b)) = (candidates.get(best), candidates.get(other)) else { continue };
        let cost = |c: &C, against: &C| u128::from(c.active() + 1) * u128::from(against.weight().max(1));
        if cost(b, a) < cost(a, b) {
            best = other;
        }
    }
    best
}
