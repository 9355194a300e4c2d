//! What choosing costs: a cluster by weight, an endpoint by each balancer. `cargo bench -p serin-traffic --bench choices`.

use serin_resources::cluster::Balancer;
use serin_traffic::balance::{Candidate, Candidates, State, pick};
use serin_traffic::split::Split;

fn main() {
    divan::main();
}

struct Endpoint {
    weight: u32,
    active: u64,
}

impl Candidate for Endpoint {
    fn weight(&self) -> u32 {
        self.weight
    }

    fn active(&self) -> u64 {
        self.active
    }
}

#[divan::bench(args = [1, 2, 10])]
fn split(bencher: divan::Bencher<'_, '_>, clusters: u32) {
    let split = Split::new((0..clusters).map(|n| n + 1));
    let mut random = fastrand::Rng::with_seed(1);
    bencher.bench_local(|| split.pick(random.u64(..)));
}

const ENDPOINTS: [usize; 3] = [2, 10, 1000];

fn balance(bencher: divan::Bencher<'_, '_>, balancer: Balancer, endpoints: usize, weighted: bool) {
    let weight = |n: usize| if weighted { n as u32 % 7 + 1 } else { 1 };
    let all: Vec<Endpoint> = (0..endpoints).map(|n| Endpoint { weight: weight(n), active: n as u64 % 3 }).collect();
    let all = Candidates::new(all);
    let (mut state, mut random) = (State::default(), fastrand::Rng::with_seed(1));
    bencher.bench_local(|| pick(balancer, &all, &mut state, &mut || random.u64(..)));
}

#[divan::bench(args = ENDPOINTS)]
fn round_robin(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::RoundRobin, endpoints, false);
}

#[divan::bench(args = ENDPOINTS)]
fn round_robin_weighted(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::RoundRobin, endpoints, true);
}

#[divan::bench(args = ENDPOINTS)]
fn random(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::Random, endpoints, false);
}

#[divan::bench(args = ENDPOINTS)]
fn least_request(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::LeastRequest { choices: 2 }, endpoints, false);
}
