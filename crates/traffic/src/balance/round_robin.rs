//! One after the other. With unequal weights, smooth weighted round robin (nginx, 2012): every pick raises each
//! candidate's credit by its weight and takes the total from the winner, which spreads a heavy one evenly.
//! The first pick starts at a random place, so that many proxies do not start with the same endpoint.

use super::{Candidate, Candidates, below};

/// Cursor and credits; a changed number of candidates starts over.
#[derive(Debug, Default)]
pub struct RoundRobin {
    cursor: Option<usize>,
    credits: Vec<i64>,
}

impl RoundRobin {
    pub(super) fn pick<C: Candidate>(&mut self, candidates: &Candidates<C>, random: &mut impl FnMut() -> u64) -> usize {
        if candidates.equal {
            let start = || below(random(), candidates.len() as u64) as usize;
            let cursor = self.cursor.map_or_else(start, |c| c.wrapping_add(1));
            self.cursor = Some(cursor);
            return cursor % candidates.len();
        }
        if self.credits.len() != candidates.len() {
            self.credits = vec![0; candidates.len()];
        }
        let total: i64 = candidates.iter().map(|c| i64::from(c.weight())).sum();
        let mut best = 0;
        let mut highest = i64::MIN;
        for (index, (credit, candidate)) in self.credits.iter_mut().zip(candidates.iter()).enumerate() {
            *credit += i64::from(candidate.weight());
            if *credit > highest {
                highest = *credit;
                best = index;
            }
        }
        if let Some(credit) = self.credits.get_mut(best) {
            *credit -= total;
        }
        best
    }
}
