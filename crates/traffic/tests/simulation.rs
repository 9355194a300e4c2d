//! Simulated time, seeded: endpoints that come, go, err and recover, while requests are balanced, broken off, retried and
//! endpoints ejected. Invariants are checked after every step; a failure names its seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serin_resources::cluster::{Balancer, Cluster, Discovery, RetryBudget};
use serin_resources::endpoint::LoadAssignment;
use serin_resources::health_check::{HealthCheck, Probe};
use serin_resources::outlier::{Consecutive, OutlierDetection};
use serin_resources::retry::{RetryOn, RetryPolicy};
use serin_traffic::balance::{Balance, EndpointLoad, HealthState, LbContext, LbInput, Member, State, Zones};
use serin_traffic::health::{Check, HealthHistory};
use serin_traffic::outcome::Outcome;
use serin_traffic::outlier::{self, Rows};
use serin_traffic::retry;

const SEEDS: u64 = 256;
const STEPS: usize = 400;

/// An endpoint as it is, and as the mesh sees it.
#[derive(Default)]
struct Host {
    failing: bool,
    known: HealthHistory,
    rows: Rows,
    ejected_until: Option<Duration>,
    ejections: u32,
}

struct World {
    rng: fastrand::Rng,
    now: Duration,
    hosts: Vec<Host>,
    active: RefCell<Vec<u64>>,
    requests: u64,
    retries: u64,
    balancer: Balancer,
}

impl EndpointLoad for World {
    fn active(&self, member: usize) -> u64 {
        self.active.borrow().get(member).copied().unwrap_or(0)
    }

    fn all_active(&self) -> u64 {
        self.active.borrow().iter().sum()
    }

    fn share(&self, _: usize) -> f64 {
        1.0
    }

    fn reported(&self, member: usize) -> Option<f64> {
        (!member.is_multiple_of(3)).then_some(1.0 + member as f64)
    }

    fn seconds(&self, member: usize) -> f64 {
        member as f64 / 100.0
    }
}

const BALANCERS: [Balancer; 7] = [
    Balancer::RoundRobin,
    Balancer::Random,
    Balancer::LeastRequest { choices: 2, bias: 1000 },
    Balancer::RingHash { least: 64, most: 1024, murmur: false },
    Balancer::Maglev { size: 251 },
    Balancer::Reported,
    Balancer::PeakEwma { decay: Duration::from_secs(10) },
];
const MOST_REQUESTS: u64 = 20;
const BUDGET: RetryBudget = RetryBudget { share: 200_000, least: 3 };

fn ejection() -> OutlierDetection {
    OutlierDetection {
        server_errors: Consecutive { failures: 3, enforced: 100 },
        base_ejection_time: Duration::from_secs(5),
        max_ejection_percent: 40,
        ..OutlierDetection::default()
    }
}

fn check() -> HealthCheck {
    let second = Duration::from_secs(1);
    HealthCheck {
        probe: Probe::Tcp { send: Vec::new(), receive: Vec::new() },
        timeout: second,
        interval: second,
        unhealthy_interval: second,
        unhealthy_edge_interval: second,
        healthy_edge_interval: second,
        no_traffic_interval: second,
        no_traffic_healthy_interval: second,
        initial_jitter: Duration::ZERO,
        jitter: Duration::ZERO,
        jitter_percent: 0,
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        port: None,
        event_log: None,
        log_failures: false,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(1..12);
        Self {
            balancer: BALANCERS[rng.usize(..BALANCERS.len())],
            now: Duration::ZERO,
            hosts: (0..count).map(|_| Host::default()).collect(),
            active: RefCell::new(vec![0; count]),
            requests: 0,
            retries: 0,
            rng,
        }
    }

    fn health_state(&self, host: &Host) -> HealthState {
        let well = host.known.healthy && host.ejected_until.is_none();
        if well { HealthState::Healthy } else { HealthState::Bad }
    }

    fn balance(&self) -> (Balance, Vec<HealthState>) {
        let cluster = Cluster {
            balancer: self.balancer,
            panic_threshold: 0,
            ..Cluster::new("c", Discovery::Static(LoadAssignment::default()))
        };
        let states: Vec<HealthState> = self.hosts.iter().map(|h| self.health_state(h)).collect();
        let members: Vec<Member> = states
            .iter()
            .enumerate()
            .map(|(n, health)| Member {
                key: format!("10.0.0.{n}:80"),
                weight: n as u32 % 3 + 1,
                priority: n as u32 % 2,
                locality: String::new(),
                locality_weight: 0,
                health: *health,
                metadata: BTreeMap::new(),
            })
            .collect();
        (Balance::new(&cluster, 140, &members, &Zones::default()), states)
    }

    /// A request from its admission to its last attempt.
    fn request(&mut self, state: &mut State, id: u64, policy: &RetryPolicy) {
        // The breaker admits exactly its limit.
        if self.requests >= MOST_REQUESTS {
            return;
        }
        self.requests += 1;
        let (balance, states) = self.balance();
        let mut tries = 0;
        loop {
            let hash = self.rng.u64(..);
            let mut rng = self.rng.clone();
            let wish = LbContext { hash: Some(hash), ..LbContext::default() };
            let picked = balance.pick(id, state, &LbInput { context: &wish, load: &*self }, &mut || rng.u64(..));
            self.rng = rng;
            let Some(host) = picked else {
                assert!(states.iter().all(|s| *s == HealthState::Bad), "nobody was chosen though somebody is well");
                break;
            };
            assert_eq!(states[host], HealthState::Healthy, "without panic only the well are chosen");
            tries += 1;
            assert!(tries <= policy.attempts + 1, "no more tries than the policy has");
            let outcome = if self.hosts[host].failing {
                Outcome::Response { status: 503, grpc: None }
            } else {
                Outcome::Response { status: 200, grpc: None }
            };
            self.note(host, outcome);
            if !retry::wanted(policy, outcome, None) || tries > policy.attempts {
                break;
            }
            if self.retries >= u64::from(BUDGET.limit(self.requests)) {
                break;
            }
            self.retries += 1;
            assert!(self.retries <= u64::from(BUDGET.limit(self.requests)), "the budget holds");
            let wait = retry::back_off(policy, tries, self.rng.u64(..));
            assert!(wait <= policy.max_interval);
            self.retries -= 1;
        }
        if self.rng.u8(..4) > 0 {
            self.requests -= 1;
        }
        assert!(self.requests <= MOST_REQUESTS, "never over the breaker's limit");
    }

    fn note(&mut self, host: usize, outcome: Outcome) {
        let config = ejection();
        let Some(verdict) = outlier::verdict(outcome) else { return };
        let (rows, cause) = outlier::count(&config, self.hosts[host].rows, verdict);
        self.hosts[host].rows = rows;
        if cause.is_none() || self.hosts[host].ejected_until.is_some() {
            return;
        }
        let ejected = self.hosts.iter().filter(|h| h.ejected_until.is_some()).count();
        if outlier::may_eject(&config, ejected, self.hosts.len()) {
            let now = self.now;
            let host = &mut self.hosts[host];
            host.ejections += 1;
            let time = outlier::ejection_time(&config, host.ejections);
            assert!(
                time >= config.base_ejection_time && time <= config.max_ejection_time.max(config.base_ejection_time)
            );
            host.ejected_until = Some(now + time);
            host.rows = Rows::default();
        }
        let ejected = self.hosts.iter().filter(|h| h.ejected_until.is_some()).count();
        // Envoy looks before it ejects, so one more than the share may be out.
        assert!(ejected * 100 <= 40 * self.hosts.len() + 100, "{ejected} of {} ejected", self.hosts.len());
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(1..500));
        let place = self.rng.usize(..self.hosts.len());
        if self.rng.u8(..20) == 0 {
            self.hosts[place].failing = !self.hosts[place].failing;
        }
        let failing = self.hosts[place].failing;
        let check_as = if failing { Check::Unreachable } else { Check::Passed { degraded: false } };
        let before = self.hosts[place].known;
        let (after, changed) = before.after(&check(), check_as);
        assert!(!changed || after.healthy != failing, "a check changes health only towards what it saw");
        self.hosts[place].known = after;
        let now = self.now;
        for host in &mut self.hosts {
            host.ejected_until = host.ejected_until.filter(|until| *until > now);
        }
        if self.rng.u8(..4) == 0 {
            self.requests = self.requests.saturating_sub(self.rng.u64(..4));
        }
    }
}

#[test]
fn invariants_hold_whatever_happens() {
    let policy = RetryPolicy { on: RetryOn::parse("5xx").0, attempts: 2, ..RetryPolicy::default() };
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            let mut state = State::default();
            for step in 0..STEPS {
                world.step();
                // Every step the configuration is pushed anew: the balancer's state starts over, nothing else does.
                world.request(&mut state, step as u64 + 1, &policy);
            }
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// A backend that always fails sees at most a fifth more than what is offered, when as many requests are in flight as a
/// budget looks at.
#[test]
fn a_budget_bounds_a_storm() {
    let policy = RetryPolicy { on: RetryOn::parse("5xx").0, attempts: 10, ..RetryPolicy::default() };
    let offered = 200u64;
    // All at once: each retry in flight is one that stays until its attempt is answered.
    let (mut in_flight, mut seen) = (0u64, offered);
    for _ in 0..offered {
        let outcome = Outcome::Response { status: 503, grpc: None };
        if retry::wanted(&policy, outcome, None) && in_flight < u64::from(BUDGET.limit(offered)) {
            in_flight += 1;
            seen += 1;
        }
    }
    assert_eq!(seen, offered + offered / 5);
    assert_eq!([0, 1, 15, 25, 100].map(|n| BUDGET.limit(n)), [3, 3, 3, 5, 20]);
}
