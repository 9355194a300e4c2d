//! Choosing endpoints: shares, loads, hashes, subsets; and after every rebuild, which is what canaries live with.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serin_resources::cluster::{
    Balancer, Cluster, Discovery, SlowStart, SubsetConfig, SubsetFallback, SubsetSelector, ZoneAware,
};
use serin_resources::endpoint::LoadAssignment;
use serin_traffic::balance::{Balance, EndpointLoad, HealthState, LbContext, LbInput, Member, State, Zones};

/// Requests in flight, and shares of those that start slowly, by endpoint.
#[derive(Default)]
struct Now {
    active: RefCell<Vec<u64>>,
    shares: Vec<f64>,
    /// The weights that they report, and their response times.
    reported: Vec<f64>,
    seconds: Vec<f64>,
}

impl EndpointLoad for Now {
    fn active(&self, member: usize) -> u64 {
        self.active.borrow().get(member).copied().unwrap_or(0)
    }

    fn all_active(&self) -> u64 {
        self.active.borrow().iter().sum()
    }

    fn share(&self, member: usize) -> f64 {
        self.shares.get(member).copied().unwrap_or(1.0)
    }

    fn reported(&self, member: usize) -> Option<f64> {
        self.reported.get(member).copied()
    }

    fn seconds(&self, member: usize) -> f64 {
        self.seconds.get(member).copied().unwrap_or(0.0)
    }
}

fn cluster(balancer: Balancer) -> Cluster {
    Cluster { balancer, ..Cluster::new("c", Discovery::Static(LoadAssignment::default())) }
}

fn member(number: usize, weight: u32) -> Member {
    Member {
        key: format!("10.0.0.{number}:80"),
        weight,
        priority: 0,
        locality: String::new(),
        locality_weight: 0,
        health: HealthState::Healthy,
        metadata: BTreeMap::new(),
    }
}

fn members(weights: &[u32]) -> Vec<Member> {
    weights.iter().enumerate().map(|(n, w)| member(n, *w)).collect()
}

/// The number of times that each is chosen.
fn counts(cluster: &Cluster, members: &[Member], now: &Now, picks: usize) -> Vec<usize> {
    let balance = Balance::new(cluster, 140, members, &Zones::default());
    let (mut state, mut rng) = (State::default(), fastrand::Rng::with_seed(7));
    let mut counts = vec![0; members.len()];
    for _ in 0..picks {
        let picked = balance
            .pick(1, &mut state, &LbInput { context: &LbContext::default(), load: now }, &mut || rng.u64(..))
            .unwrap();
        counts[picked] += 1;
    }
    counts
}

const LEAST: Balancer = Balancer::LeastRequest { choices: 2, bias: 1000 };

fn near(counts: &[usize], expected: &[usize], within: usize) {
    assert!(counts.iter().zip(expected).all(|(c, e)| c.abs_diff(*e) <= within), "{counts:?}, expected {expected:?}");
}

#[test]
fn weights_are_shares() {
    let now = Now::default();
    assert_eq!(counts(&cluster(Balancer::RoundRobin), &members(&[1, 1, 1]), &now, 300), [100, 100, 100]);
    near(&counts(&cluster(Balancer::RoundRobin), &members(&[1, 2, 7]), &now, 1000), &[100, 200, 700], 1);
    near(&counts(&cluster(LEAST), &members(&[1, 3]), &now, 1000), &[250, 750], 1);
    near(&counts(&cluster(Balancer::Random), &members(&[1, 3]), &now, 40_000), &[20_000, 20_000], 400);
}

/// With few requests between changes the light one still gets its share: no rebuild may favour the heavy.
#[test]
fn shares_hold_across_ten_thousand_rebuilds() {
    let (cluster, members, now) = (cluster(Balancer::RoundRobin), members(&[99, 1]), Now::default());
    let balance = Balance::new(&cluster, 140, &members, &Zones::default());
    let (mut state, mut rng) = (State::default(), fastrand::Rng::with_seed(1));
    let mut light = 0u32;
    for push in 0..10_000 {
        for _ in 0..3 {
            let picked = balance.pick(
                push + 1,
                &mut state,
                &LbInput { context: &LbContext::default(), load: &now },
                &mut || rng.u64(..),
            );
            light += u32::from(picked == Some(1));
        }
    }
    // 300 expected; five deviations of a binomial.
    assert!(light.abs_diff(300) < 87, "{light} of 30000");
}

#[test]
fn the_busy_are_avoided() {
    let now = Now { active: RefCell::new(vec![50, 0, 0]), ..Now::default() };
    let picked = counts(&cluster(LEAST), &members(&[1, 1, 1]), &now, 9_000);
    assert!(picked[0] < 1_100, "only when drawn twice: {picked:?}");
    let unequal = counts(&cluster(LEAST), &members(&[2, 1, 1]), &now, 9_000);
    assert!(unequal[0] < 400, "2/51 against 1 and 1: {unequal:?}");
    let unbiased = Balancer::LeastRequest { choices: 2, bias: 0 };
    near(&counts(&cluster(unbiased), &members(&[2, 1, 1]), &now, 8_000), &[4_000, 2_000, 2_000], 2);
}

#[test]
fn new_endpoints_get_their_share_slowly() {
    let slow = SlowStart { window: Duration::from_secs(100), aggression: 1000, least_percent: 10 };
    let at = |seconds| slow.share(Duration::from_secs(seconds));
    assert_eq!((at(0), at(25), at(50), at(100)), (0.1, 0.25, 0.5, 1.0));
    let eager = SlowStart { aggression: 2000, ..slow };
    assert_eq!((eager.share(Duration::from_secs(25)), eager.share(Duration::ZERO)), (0.5, 0.1));
    let cluster = Cluster { slow_start: Some(slow), ..cluster(Balancer::RoundRobin) };
    let now = Now { shares: vec![0.25, 1.0], ..Now::default() };
    near(&counts(&cluster, &members(&[1, 1]), &now, 1000), &[200, 800], 1);
}

#[test]
fn hashes_choose_and_stay() {
    for balancer in
        [Balancer::RingHash { least: 1020, most: 8_388_608, murmur: false }, Balancer::Maglev { size: 65_537 }]
    {
        let all = members(&[1; 10]);
        let balance = Balance::new(&cluster(balancer), 140, &all, &Zones::default());
        let fewer: Vec<Member> = all.iter().take(9).cloned().collect();
        let without = Balance::new(&cluster(balancer), 140, &fewer, &Zones::default());
        let pick = |balance: &Balance, hash| {
            let wish = LbContext { hash: Some(hash), ..LbContext::default() };
            balance
                .pick(1, &mut State::default(), &LbInput { context: &wish, load: &Now::default() }, &mut || 0)
                .unwrap()
        };
        let mut rng = fastrand::Rng::with_seed(3);
        let hashes: Vec<u64> = (0..10_000).map(|_| rng.u64(..)).collect();
        let moved =
            hashes.iter().filter(|h| pick(&balance, **h) != 9 && pick(&balance, **h) != pick(&without, **h)).count();
        assert!(moved < 900, "{balancer:?}: {moved} of 10000 moved though theirs stayed");
        assert!(hashes.iter().all(|h| pick(&balance, *h) == pick(&balance, *h)));
    }
}

/// No endpoint that a hash chooses gets more than its part of what is in flight.
#[test]
fn hashed_load_is_bounded() {
    let cluster = Cluster {
        hash_balance_factor: 150,
        ..cluster(Balancer::RingHash { least: 1024, most: 8_388_608, murmur: false })
    };
    let balance = Balance::new(&cluster, 140, &members(&[1; 5]), &Zones::default());
    let now = Now { active: RefCell::new(vec![0; 5]), ..Now::default() };
    for _ in 0..100 {
        let wish = LbContext { hash: Some(42), ..LbContext::default() };
        let picked =
            balance.pick(1, &mut State::default(), &LbInput { context: &wish, load: &now }, &mut || 0).unwrap();
        now.active.borrow_mut()[picked] += 1;
    }
    let most = *now.active.borrow().iter().max().unwrap();
    assert!(most <= 31, "1.5 times a fifth of a hundred, and one: {:?}", now.active.borrow());
}

#[test]
fn priorities_localities_and_panic() {
    let now = Now::default();
    let mut list = members(&[1; 6]);
    for m in &mut list[3..] {
        m.priority = 1;
    }
    list[0].health = HealthState::Bad;
    list[1].health = HealthState::Bad;
    // One of three is 46 % with over-provisioning.
    near(&counts(&cluster(Balancer::RoundRobin), &list, &now, 30_000), &[0, 0, 13_800, 5_400, 5_400, 5_400], 600);
    for m in &mut list {
        m.health = HealthState::Bad;
    }
    near(&counts(&cluster(Balancer::Random), &list, &now, 6_000), &[1_000; 6], 200);
    let calm = Cluster { panic_threshold: 0, ..cluster(Balancer::Random) };
    let nobody = Balance::new(&calm, 140, &list, &Zones::default());
    assert_eq!(
        nobody.pick(1, &mut State::default(), &LbInput { context: &LbContext::default(), load: &now }, &mut || 0),
        None
    );
    let mut places = members(&[1, 1, 1, 1]);
    for (m, (locality, weight)) in places.iter_mut().zip([("x", 1), ("y", 2), ("y", 2), ("z", 0)]) {
        m.locality = locality.to_owned();
        m.locality_weight = weight;
    }
    let weighted = Cluster { locality_weighted: true, ..cluster(Balancer::RoundRobin) };
    near(&counts(&weighted, &places, &now, 30_000), &[10_000, 10_000, 10_000, 0], 400);
}

#[test]
fn subsets_by_metadata() {
    let mut list = members(&[1; 4]);
    for (m, (version, stage)) in list.iter_mut().zip([("v1", "prod"), ("v1", "prod"), ("v2", "prod"), ("v2", "test")]) {
        m.metadata = [("version", version), ("stage", stage)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    }
    let keys = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    let selector = |names: &[&str], fallback, fewer: &[&str]| SubsetSelector {
        keys: keys(names),
        fallback,
        fallback_keys: keys(fewer),
    };
    let config = SubsetConfig {
        selectors: vec![
            selector(&["version"], None, &[]),
            selector(&["stage", "version"], Some(SubsetFallback::Keys), &["version"]),
        ],
        fallback: SubsetFallback::Default,
        default: [("stage".to_owned(), "test".to_owned())].into(),
    };
    let cluster = Cluster { subsets: Some(config), ..cluster(Balancer::RoundRobin) };
    let balance = Balance::new(&cluster, 140, &list, &Zones::default());
    let chosen = |wanted: &[(&str, &str)]| {
        let metadata: BTreeMap<String, String> =
            wanted.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (mut state, mut rng) = (State::default(), fastrand::Rng::with_seed(9));
        let wish = LbContext { metadata: Some(&metadata), ..LbContext::default() };
        let mut found: Vec<usize> = (0..20)
            .filter_map(|_| {
                balance.pick(1, &mut state, &LbInput { context: &wish, load: &Now::default() }, &mut || rng.u64(..))
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    assert_eq!(chosen(&[("version", "v1")]), [0, 1]);
    assert_eq!(chosen(&[("version", "v2"), ("stage", "test")]), [3]);
    assert_eq!(chosen(&[("version", "v2"), ("stage", "none")]), [2, 3], "fewer keys");
    assert_eq!(chosen(&[("version", "v9")]), [3], "the default subset");
    assert_eq!(chosen(&[]), [3]);
}

#[test]
fn reported_weights_count_instead_of_configured_ones() {
    let now = Now { reported: vec![1.0, 3.0], ..Now::default() };
    near(&counts(&cluster(Balancer::Reported), &members(&[9, 1]), &now, 4_000), &[1_000, 3_000], 10);
    near(&counts(&cluster(Balancer::Reported), &members(&[9, 1]), &Now::default(), 1_000), &[900, 100], 5);
}

#[test]
fn of_two_the_quicker_is_taken_unless_it_is_busier() {
    let peak = cluster(Balancer::PeakEwma { decay: Duration::from_secs(10) });
    let quick = Now { seconds: vec![0.01, 0.1, 0.1], ..Now::default() };
    // Two of the three pairs have the quick one in them.
    near(&counts(&peak, &members(&[1; 3]), &quick, 30_000), &[20_000, 5_000, 5_000], 400);
    let busy = Now { active: RefCell::new(vec![20, 0, 0]), seconds: vec![0.01, 0.1, 0.1], ..Now::default() };
    assert_eq!(counts(&peak, &members(&[1; 3]), &busy, 1_000)[0], 0);
}

#[test]
fn a_hash_takes_no_notice_of_zones() {
    let everywhere =
        [("a", 1), ("b", 2), ("b", 3)].map(|(zone, n)| Member { locality: zone.to_owned(), ..member(n, 1) });
    let now = Now::default();
    for balancer in [Balancer::RingHash { least: 1024, most: 4096, murmur: false }, Balancer::Maglev { size: 1021 }] {
        let plain = cluster(balancer);
        let zone_aware = Some(ZoneAware { enabled: 1_000_000, smallest: 0 });
        let aware = Cluster { zone_aware, ..plain.clone() };
        assert_eq!(counts(&aware, &everywhere, &now, 300), counts(&plain, &everywhere, &now, 300));
    }
}
