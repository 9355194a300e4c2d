//! Which endpoint a request goes to. One file an algorithm; all of them see candidates only by weight and load.

mod least_request;
mod random;
mod round_robin;

pub use round_robin::RoundRobin;

use std::ops::Deref;

use serin_resources::cluster::Balancer;

/// What a balancer knows of an endpoint.
pub trait Candidate {
    /// Relative weight, at least 1.
    fn weight(&self) -> u32;
    /// Requests in flight.
    fn active(&self) -> u64;
}

/// Endpoints to choose from, with what can be known of them once for all picks.
#[derive(Debug, Clone)]
pub struct Candidates<C> {
    list: Vec<C>,
    /// Whether all weigh the same.
    equal: bool,
}

impl<C: Candidate> Candidates<C> {
    /// Looks at every weight once.
    #[must_use]
    pub fn new(list: Vec<C>) -> Self {
        let first = list.first().map(C::weight);
        let equal = list.iter().all(|c| Some(c.weight()) == first);
        Self { list, equal }
    }
}

impl<C> Deref for Candidates<C> {
    type Target = [C];

    fn deref(&self) -> &[C] {
        &self.list
    }
}

/// State that a balancer keeps between picks; one for each worker and cluster, so that it needs no lock.
#[derive(Debug, Default)]
pub struct State {
    round_robin: RoundRobin,
}

/// Picks one of `candidates`; `None` when there is none. `random` yields uniform 64-bit numbers.
pub fn pick<C: Candidate>(
    balancer: Balancer,
    candidates: &Candidates<C>,
    state: &mut State,
    random: &mut impl FnMut() -> u64,
) -> Option<usize> {
    if candidates.len() <= 1 {
        return (!candidates.is_empty()).then_some(0);
    }
    Some(match balancer {
        Balancer::RoundRobin => state.round_robin.pick(candidates, random),
        Balancer::Random => random::pick(candidates, random),
        Balancer::LeastRequest { choices } => least_request::pick(candidates, choices, random),
    })
}

/// Maps a random number to `0..n`.
pub(crate) fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// An index drawn by weight.
fn by_weight<C: Candidate>(candidates: &[C], random: u64) -> usize {
    let total: u64 = candidates.iter().map(|c| u64::from(c.weight())).sum();
    let mut point = below(random, total);
    for (index, candidate) in candidates.iter().enumerate() {
        let weight = u64::from(candidate.weight());
        if point < weight {
            return index;
        }
        point -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        weight: u32,
        active: u64,
    }

    impl Candidate for Host {
        fn weight(&self) -> u32 {
            self.weight
        }
        fn active(&self) -> u64 {
            self.active
        }
    }

    fn counts(balancer: Balancer, hosts: &Candidates<Host>, picks: usize) -> Vec<usize> {
        let mut state = State::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; hosts.len()];
        for _ in 0..picks {
            counts[pick(balancer, hosts, &mut state, &mut || rng.u64(..)).unwrap()] += 1;
        }
        counts
    }

    fn hosts(weights: &[u32]) -> Candidates<Host> {
        Candidates::new(weights.iter().map(|w| Host { weight: *w, active: 0 }).collect())
    }

    #[test]
    fn round_robin_is_even_and_follows_weights_exactly() {
        assert_eq!(counts(Balancer::RoundRobin, &hosts(&[1, 1, 1]), 300), [100, 100, 100]);
        assert_eq!(counts(Balancer::RoundRobin, &hosts(&[1, 2, 7]), 1000), [100, 200, 700]);
    }

    #[test]
    fn random_follows_weights() {
        let counts = counts(Balancer::Random, &hosts(&[1, 3]), 40_000);
        assert!(counts[0].abs_diff(10_000) < 400, "{counts:?}");
    }

    #[test]
    fn least_request_avoids_the_busy() {
        let hosts = [50, 0, 0].map(|active| Host { weight: 1, active });
        let hosts = Candidates::new(hosts.into());
        let counts = counts(Balancer::LeastRequest { choices: 2 }, &hosts, 9_000);
        assert!(counts[0] < 1_100, "picked only when drawn twice: {counts:?}");
    }

    #[test]
    fn nothing_to_pick_from() {
        let none: Candidates<Host> = Candidates::new(Vec::new());
        assert_eq!(pick(Balancer::Random, &none, &mut State::default(), &mut || 0), None);
    }
}
