//! The endpoints of a priority with the same health: first the locality is chosen, then an endpoint of it.

use serin_resources::cluster::{Balancer, Cluster};

use super::edf::Schedule;
use super::maglev::Maglev;
use super::ring_hash::Ring;
use super::{EndpointLoad, Endpoints, Member, Policy, Zones, below, ewma, fraction, zone};

/// Endpoints among which locality and balancer choose.
#[derive(Debug, Default)]
pub(super) struct Tier {
    /// The index of its first group's state.
    pub(super) first: usize,
    pub(super) groups: Vec<Group>,
    pub(super) table: Option<Table>,
}

/// Endpoints of one locality, or of all.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<usize>,
    weights: Vec<u32>,
    /// True when all weigh the same.
    equal: bool,
    /// Weight of the group among the tier's.
    weight: f64,
}

#[derive(Debug)]
pub(super) enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    cursor: Option<usize>,
    schedule: Option<Schedule>,
}

impl Tier {
    pub(super) fn new(
        endpoints: &Endpoints<'_>,
        list: &[(usize, &Member)],
        first: usize,
        zones: Option<&Zones>,
    ) -> Self {
        let cluster = endpoints.cluster;
        let hashed = endpoints.is_hashed();
        // A hash chooses among all endpoints, wherever they are.
        let zone_aware = cluster.zone_aware.as_ref().zip(zones).filter(|_| !cluster.locality_weighted && !hashed);
        let by_locality = cluster.locality_weighted || zone_aware.is_some();
        let mut groups: Vec<(&str, Vec<(usize, &Member)>)> = Vec::new();
        for (number, member) in list {
            let name = if by_locality { member.locality.as_str() } else { "" };
            match groups.iter_mut().find(|(n, _)| *n == name) {
                Some((_, group)) => group.push((*number, member)),
                None => groups.push((name, vec![(*number, member)])),
            }
        }
        if hashed {
            return Self { first, groups: Vec::new(), table: Table::new(cluster, &groups, by_locality) };
        }
        if let Some((config, zones)) = zone_aware {
            let counts: Vec<(&str, usize)> = groups.iter().map(|(name, list)| (*name, list.len())).collect();
            let groups = match zone::shares(config, zones, &counts) {
                Some(shares) => groups.iter().zip(shares).map(|((_, list), share)| Group::new(list, share)).collect(),
                None => vec![Group::new(list, 1.0)],
            };
            return Self { first, groups, table: None };
        }
        let total = |name: &str, priority: u32| {
            endpoints.selected().filter(|(_, m)| m.priority == priority && m.locality == name).count()
        };
        let group = |(name, list): (&str, Vec<(usize, &Member)>)| {
            let of = list.first().map(|(_, m)| (m.locality_weight, m.priority)).unwrap_or_default();
            let available =
                f64::from(endpoints.overprovisioning) / 100.0 * list.len() as f64 / total(name, of.1).max(1) as f64;
            let weight = if by_locality { f64::from(of.0) * available.min(1.0) } else { 1.0 };
            Group::new(&list, weight)
        };
        Self { first, groups: groups.into_iter().map(group).collect(), table: None }
    }

    /// One of the groups, by weight.
    pub(super) fn group(&self, random: &mut impl FnMut() -> u64) -> Option<usize> {
        if self.groups.len() <= 1 {
            return (!self.groups.is_empty()).then_some(0);
        }
        let total: f64 = self.groups.iter().map(|g| g.weight).sum();
        let mut point = fraction(random()) * total;
        for (number, group) in self.groups.iter().enumerate() {
            if point < group.weight {
                return Some(number);
            }
            point -= group.weight;
        }
        self.groups.iter().position(|g| g.weight > 0.0)
    }
}

impl Table {
    fn new(cluster: &Cluster, groups: &[(&str, Vec<(usize, &Member)>)], by_locality: bool) -> Option<Self> {
        let sum = |list: &[(usize, &Member)]| list.iter().map(|(_, m)| f64::from(m.weight)).sum::<f64>();
        let of_group = |list: &[(usize, &Member)]| list.first().map_or(0.0, |(_, m)| f64::from(m.locality_weight));
        let all: f64 = groups.iter().map(|(_, list)| if by_locality { of_group(list) } else { sum(list) }).sum();
        let mut shares = Vec::new();
        for (_, list) in groups {
            let part = if by_locality { of_group(list) / all } else { sum(list) / all };
            for (number, member) in list.iter().filter(|_| part > 0.0) {
                shares.push((*number, member.key.as_str(), f64::from(member.weight) / sum(list) * part));
            }
        }
        if shares.is_empty() {
            return None;
        }
        match cluster.balancer {
            Balancer::RingHash { least, most, murmur } => Some(Self::Ring(Ring::new(&shares, least, most, murmur))),
            Balancer::Maglev { size } => Some(Self::Maglev(Maglev::new(&shares, size))),
            _ => None,
        }
    }
}

impl Group {
    fn new(list: &[(usize, &Member)], weight: f64) -> Self {
        let weights: Vec<u32> = list.iter().map(|(_, m)| m.weight).collect();
        let equal = weights.iter().all(|w| Some(w) == weights.first());
        Self { members: list.iter().map(|(number, _)| *number).collect(), weights, equal, weight }
    }

    pub(super) fn pick(
        &self,
        policy: Policy,
        state: &mut GroupState,
        live: &impl EndpointLoad,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let count = self.members.len();
        if count <= 1 {
            return self.members.first().copied();
        }
        let starting = policy.slow_start && self.members.iter().any(|m| live.share(*m) < 1.0);
        let equal = self.equal && !starting;
        let place = match policy.balancer {
            Balancer::RoundRobin if equal => {
                let start = || below(random(), count as u64) as usize;
                let cursor = state.cursor.map_or_else(start, |c| c.wrapping_add(1));
                state.cursor = Some(cursor);
                cursor % count
            }
            Balancer::LeastRequest { choices, .. } if equal => self.least(choices, live, random),
            // Weights do not count here, nor do they in Envoy.
            Balancer::Random => below(random(), count as u64) as usize,
            Balancer::PeakEwma { .. } => self.quickest(live, random),
            Balancer::LeastRequest { bias, .. } => {
                let bias = f64::from(bias) / 1000.0;
                let weight = |place: usize| self.weight(place, live) / (self.busy(place, live) + 1.0).powf(bias);
                self.scheduled(state, weight, random)
            }
            _ => self.scheduled(state, |place| self.weight(place, live), random),
        };
        self.members.get(place).copied()
    }

    fn weight(&self, place: usize, live: &impl EndpointLoad) -> f64 {
        let own = || f64::from(self.weights.get(place).copied().unwrap_or(1));
        let reported = self.members.get(place).and_then(|m| live.reported(*m));
        reported.unwrap_or_else(own) * self.members.get(place).map_or(1.0, |m| live.share(*m))
    }

    fn busy(&self, place: usize, live: &impl EndpointLoad) -> f64 {
        self.members.get(place).map_or(0.0, |m| live.active(*m) as f64)
    }

    /// The least busy of a few ("power of two choices", Mitzenmacher 1996), ties to the first.
    fn least(&self, choices: u32, live: &impl EndpointLoad, random: &mut impl FnMut() -> u64) -> usize {
        let mut draw = || below(random(), self.members.len() as u64) as usize;
        let active = |place: usize| self.members.get(place).map_or(u64::MAX, |m| live.active(*m));
        let mut best = draw();
        for _ in 1..choices {
            let other = draw();
            if active(other) < active(best) {
                best = other;
            }
        }
        best
    }

    /// The one of two that would answer sooner.
    fn quickest(&self, live: &impl EndpointLoad, random: &mut impl FnMut() -> u64) -> usize {
        let count = self.members.len() as u64;
        let first = below(random(), count) as usize;
        let second = (first + 1 + below(random(), count - 1) as usize) % self.members.len();
        let cost = |place: usize| {
            let member = self.members.get(place).copied().unwrap_or_default();
            ewma::cost(live.seconds(member), live.active(member)) / self.weight(place, live).max(f64::MIN_POSITIVE)
        };
        if cost(second) < cost(first) { second } else { first }
    }

    fn scheduled(
        &self,
        state: &mut GroupState,
        weight: impl Fn(usize) -> f64,
        random: &mut impl FnMut() -> u64,
    ) -> usize {
        let new = || Schedule::new(self.members.len(), &weight, random);
        state.schedule.get_or_insert_with(new).next(&weight)
    }
}
