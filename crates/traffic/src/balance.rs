//! Chooses the endpoint of a request: first the priority, then the locality, then the endpoint.
//!
//! What can be known once for all requests (loads of priorities, rings, tables) is worked out when endpoints change, in
//! [`Balance`]; what a worker remembers between requests is its own [`State`]. Source: Envoy, "Load balancing".

mod edf;
mod ewma;
mod maglev;
mod priority;
mod ring_hash;
mod subset;
mod tier;
mod zone;

use std::collections::BTreeMap;

use serin_resources::cluster::{Balancer, Cluster};

use tier::{GroupState, Table, Tier};

pub use ewma::Peak;
pub use maglev::is_prime;
pub use priority::{Availability, Loads, loads};
pub use subset::Subsets;
pub use zone::Zones;

/// The health of an endpoint, by which it gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// It does.
    Healthy,
    /// Only when too few others do.
    Degraded,
    /// It does not, unless too many do not.
    Bad,
}

/// An endpoint as balancing sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The text that is hashed for it: its address, unless its metadata has a `hash_key`.
    pub key: String,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Its locality.
    pub locality: String,
    /// The weight of all that are there.
    pub locality_weight: u32,
    /// Its health.
    pub health: HealthState,
    /// The metadata by which subsets select.
    pub metadata: BTreeMap<String, String>,
}

/// The state of endpoints that changes from request to request; an endpoint is given by its number.
pub trait EndpointLoad {
    /// Requests in flight.
    fn active(&self, member: usize) -> u64;
    /// Requests in flight of the whole cluster.
    fn all_active(&self) -> u64;
    /// The share of its weight that counts: 1 except for endpoints that start slowly.
    fn share(&self, member: usize) -> f64;
    /// The weight that follows from what it reports, if any does.
    fn reported(&self, _member: usize) -> Option<f64> {
        None
    }
    /// The time that its answers take, in seconds; 0 when that is not known.
    fn seconds(&self, _member: usize) -> f64 {
        0.0
    }
}

/// The properties of a request by which an endpoint is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct LbContext<'a> {
    /// Its hash.
    pub hash: Option<u64>,
    /// The number of this host selection within one attempt, from 0: a higher number avoids the hosts of earlier selections.
    pub attempt: u32,
    /// Priorities that should be left out if others can be used.
    pub without: &'a [u32],
    /// Metadata that the endpoint should have.
    pub metadata: Option<&'a BTreeMap<String, String>>,
}

/// The input of a choice: what the request brings, and what changes about the endpoints.
#[derive(Debug)]
pub struct LbInput<'a, L> {
    /// The properties of the request.
    pub context: &'a LbContext<'a>,
    /// The endpoints' current load.
    pub load: &'a L,
}

/// Endpoints of a cluster, ready to be chosen from.
#[derive(Debug, Default)]
pub struct Balance {
    policy: Policy,
    balance_factor: u32,
    /// By priority.
    availability: Vec<Availability>,
    panic_threshold: u8,
    loads: Loads,
    tiers: Vec<Tiers>,
    subsets: Option<Subsets>,
}

/// The rule by which an endpoint of a group is chosen.
#[derive(Debug, Clone, Copy, Default)]
struct Policy {
    balancer: Balancer,
    /// True when new endpoints start slowly.
    slow_start: bool,
}

/// The endpoints of which groups are made.
struct Endpoints<'a> {
    cluster: &'a Cluster,
    /// The over-provisioning, 140 for 1.4.
    overprovisioning: u32,
    /// All endpoints of the cluster.
    members: &'a [Member],
    /// The numbers of those that belong to the balance: all, or a subset.
    selected: &'a [usize],
}

impl<'a> Endpoints<'a> {
    fn selected(&self) -> impl Iterator<Item = (usize, &'a Member)> {
        let members = self.members;
        self.selected.iter().filter_map(move |number| members.get(*number).map(|member| (*number, member)))
    }

    fn is_hashed(&self) -> bool {
        self.cluster.balancer.is_hashed()
    }
}

/// The endpoints of a priority: in good order, and degraded.
#[derive(Debug, Default)]
struct Tiers {
    good: Tier,
    degraded: Tier,
}

/// The state of a cluster that a worker keeps between requests.
#[derive(Debug, Default)]
pub struct State {
    /// The id of the balance that it belongs to.
    of: u64,
    groups: Vec<GroupState>,
    subsets: BTreeMap<usize, Self>,
}

impl Balance {
    /// Works out what can be known of these endpoints.
    #[must_use]
    pub fn new(cluster: &Cluster, overprovisioning: u32, members: &[Member], zones: &Zones) -> Self {
        let all: Vec<usize> = (0..members.len()).collect();
        let of = |selected: &[usize]| Self::of(&Endpoints { cluster, overprovisioning, members, selected }, zones);
        let mut balance = of(&all);
        balance.subsets = cluster.subsets.as_ref().map(|config| Subsets::new(config, members, of));
        balance
    }

    fn of(endpoints: &Endpoints<'_>, zones: &Zones) -> Self {
        let cluster = endpoints.cluster;
        let highest = endpoints.selected().map(|(_, m)| m.priority).max();
        let mut availability = Vec::new();
        for priority in 0..highest.map_or(0, |h| h + 1) {
            let count =
                |health| endpoints.selected().filter(|(_, m)| m.priority == priority && m.health == health).count();
            let (healthy, degraded) = (count(HealthState::Healthy), count(HealthState::Degraded));
            let all = healthy + degraded + count(HealthState::Bad);
            availability.push(Availability::new(healthy, degraded, all, endpoints.overprovisioning));
        }
        let loads = loads(&availability, cluster.panic_threshold);
        let mut first = 0;
        let mut tiers = Vec::new();
        for (priority, panic) in (0..).zip(&loads.panic) {
            let fits = |wanted: HealthState| {
                let fit = move |m: &Member| m.priority == priority && (*panic || m.health == wanted);
                endpoints.selected().filter(|(_, m)| fit(m)).collect::<Vec<_>>()
            };
            let mut tier = |list: Vec<(usize, &Member)>| {
                let zones = Some(zones).filter(|_| priority == 0 && !panic);
                let tier = Tier::new(endpoints, &list, first, zones);
                first += tier.groups.len();
                tier
            };
            tiers.push(Tiers { good: tier(fits(HealthState::Healthy)), degraded: tier(fits(HealthState::Degraded)) });
        }
        Self {
            policy: Policy { balancer: cluster.balancer, slow_start: cluster.slow_start.is_some() },
            balance_factor: cluster.hash_balance_factor,
            availability,
            panic_threshold: cluster.panic_threshold,
            loads,
            tiers,
            subsets: None,
        }
    }

    /// The number of an endpoint; `None` when there is none to go to. `id` tells this balance from the one before it.
    pub fn pick(
        &self,
        id: u64,
        state: &mut State,
        input: &LbInput<'_, impl EndpointLoad>,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let LbInput { context: wish, load: live } = *input;
        if let Some(subsets) = &self.subsets {
            let (balance, number) = subsets.select(wish.metadata)?;
            let plain = LbContext { metadata: None, ..*wish };
            return balance.pick(
                id,
                Subsets::state(state, id, number),
                &LbInput { context: &plain, load: live },
                random,
            );
        }
        if state.of != id {
            *state = State { of: id, ..State::default() };
        }
        let point = if self.is_hashed() { wish.hash.unwrap_or_else(&mut *random) } else { 0 };
        let tier = self.tier(wish, point, random)?;
        if let Some(table) = &tier.table {
            return self.hashed(table, point, wish.attempt, live);
        }
        let number = tier.group(random)?;
        let group = tier.groups.get(number)?;
        if state.groups.len() <= tier.first + number {
            state.groups.resize_with(tier.first + number + 1, GroupState::default);
        }
        let own = state.groups.get_mut(tier.first + number)?;
        group.pick(self.policy, own, live, random)
    }

    fn is_hashed(&self) -> bool {
        self.policy.balancer.is_hashed()
    }

    fn tier(&self, wish: &LbContext<'_>, point: u64, random: &mut impl FnMut() -> u64) -> Option<&Tier> {
        if self.tiers.len() == 1 && self.loads.healthy == [100] {
            return self.tiers.first().map(|t| &t.good);
        }
        let left;
        let loads = if wish.without.is_empty() {
            &self.loads
        } else {
            left = self.loads_without(wish.without);
            left.as_ref().unwrap_or(&self.loads)
        };
        let draw = if self.is_hashed() { point } else { random() };
        let (priority, degraded) = loads.at(draw)?;
        let tiers = self.tiers.get(priority)?;
        Some(if degraded { &tiers.degraded } else { &tiers.good })
    }

    /// Loads when some priorities were tried before; `None` when no other has anything.
    fn loads_without(&self, tried: &[u32]) -> Option<Loads> {
        let rest: Vec<Availability> = (0..)
            .zip(&self.availability)
            .map(|(priority, a)| if tried.contains(&priority) { Availability::default() } else { *a })
            .collect();
        let loads = loads(&rest, self.panic_threshold);
        rest.iter().any(Availability::is_there).then_some(loads)
    }

    fn hashed(&self, table: &Table, hash: u64, attempt: u32, live: &impl EndpointLoad) -> Option<usize> {
        let (first, shares) = match table {
            Table::Ring(ring) => (ring.at(hash, attempt)?, ring.shares()),
            Table::Maglev(maglev) => (maglev.at(hash, attempt)?, maglev.shares()),
        };
        if self.balance_factor == 0 {
            return Some(first);
        }
        let share = |member: usize| shares.iter().find(|(m, _)| *m == member).map_or(0.0, |(_, share)| *share);
        let slots = ((live.all_active() + 1) * u64::from(self.balance_factor)).div_ceil(100) as f64;
        let load = |member: usize| live.active(member) as f64 / (slots * share(member)).ceil().max(1.0);
        if load(first) < 1.0 {
            return Some(first);
        }
        // Where one has too much, the others are looked at in an order that the hash decides.
        let mut order: Vec<usize> = shares.iter().map(|(m, _)| *m).filter(|m| *m != first).collect();
        let mut seed = seeded(hash);
        for end in (1..order.len()).rev() {
            order.swap(end, below(seed(), end as u64 + 1) as usize);
        }
        let free = order.iter().copied().find(|m| load(*m) < 1.0);
        free.or_else(|| order.into_iter().chain([first]).min_by(|a, b| load(*a).total_cmp(&load(*b))))
    }

    /// The loads of priorities, for admin pages and explanations.
    #[must_use]
    pub fn priorities(&self) -> &Loads {
        &self.loads
    }
}

/// A small generator with a seed (splitmix64).
fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Maps a random number to `0..n`.
pub(crate) fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// A uniform number from 0 to below 1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}
