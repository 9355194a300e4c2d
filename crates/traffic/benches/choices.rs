//! The cost of a choice: of a cluster by weight, and of an endpoint by each balancer. `cargo bench -p serin-traffic --bench choices`.

use std::collections::BTreeMap;

use serin_resources::cluster::{Balancer, Cluster, Discovery};
use serin_resources::endpoint::LoadAssignment;
use serin_traffic::balance::{Balance, EndpointLoad, HealthState, LbContext, LbInput, Member, State, Zones};
use serin_traffic::split::Split;

fn main() {
    divan::main();
}

struct Busy;

impl EndpointLoad for Busy {
    fn active(&self, member: usize) -> u64 {
        member as u64 % 3
    }

    fn all_active(&self) -> u64 {
        10
    }

    fn share(&self, _: usize) -> f64 {
        1.0
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
    let none = Discovery::Static(LoadAssignment::default());
    let cluster = Cluster { balancer, ..Cluster::new("c", none) };
    let member = |n: usize| Member {
        key: format!("10.0.{}.{}:80", n / 256, n % 256),
        weight: if weighted { n as u32 % 7 + 1 } else { 1 },
        priority: 0,
        locality: String::new(),
        locality_weight: 0,
        health: HealthState::Healthy,
        metadata: BTreeMap::new(),
    };
    let all = Balance::new(&cluster, 140, &(0..endpoints).map(member).collect::<Vec<_>>(), &Zones::default());
    let (mut state, mut random) = (State::default(), fastrand::Rng::with_seed(1));
    let mut hash = 0u64;
    bencher.bench_local(|| {
        hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let wish = LbContext { hash: Some(hash), ..LbContext::default() };
        all.pick(1, &mut state, &LbInput { context: &wish, load: &Busy }, &mut || random.u64(..))
    });
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
    balance(bencher, Balancer::LeastRequest { choices: 2, bias: 1000 }, endpoints, false);
}

#[divan::bench(args = ENDPOINTS)]
fn least_request_weighted(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::LeastRequest { choices: 2, bias: 1000 }, endpoints, true);
}

#[divan::bench(args = ENDPOINTS)]
fn ring_hash(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::RingHash { least: 1024, most: 8_388_608, murmur: false }, endpoints, false);
}

#[divan::bench(args = ENDPOINTS)]
fn maglev(bencher: divan::Bencher<'_, '_>, endpoints: usize) {
    balance(bencher, Balancer::Maglev { size: 65_537 }, endpoints, false);
}
