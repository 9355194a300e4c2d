//! Zone awareness: a proxy prefers its own zone as far as that keeps the load even. Source: Envoy, "Zone aware routing",
//! `ZoneAwareLoadBalancerBase::regenerateLocalityRoutingStructures`.

use std::collections::BTreeMap;

use serin_resources::cluster::ZoneAware;

/// The zone of this proxy, and the number of proxies like it in each zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zones {
    /// Its own locality.
    pub own: String,
    /// Usable members of its own cluster by locality.
    pub members: BTreeMap<String, usize>,
}

/// The share of each locality of the upstream, in the order given; `None` where zones do not count.
pub(super) fn shares(config: &ZoneAware, zones: &Zones, upstream: &[(&str, usize)]) -> Option<Vec<f64>> {
    let all: usize = upstream.iter().map(|(_, count)| count).sum();
    let own: usize = zones.members.values().sum();
    let here = upstream.iter().position(|(name, _)| *name == zones.own)?;
    let known = !zones.own.is_empty() && zones.members.contains_key(&zones.own);
    if !known || upstream.len() < 2 || own == 0 || (all as u64) < config.smallest {
        return None;
    }
    let percent = |part: usize, of: usize| 100.0 * part as f64 / of as f64;
    let local = |name: &str| percent(zones.members.get(name).copied().unwrap_or(0), own);
    let there = |place: usize| upstream.get(place).map_or(0.0, |(_, count)| percent(*count, all));
    let kept = if there(here) >= local(&zones.own) { 1.0 } else { there(here) / local(&zones.own) };
    let spare: Vec<f64> = upstream
        .iter()
        .enumerate()
        .map(|(place, (name, _))| if place == here { 0.0 } else { (there(place) - local(name)).max(0.0) })
        .collect();
    let total: f64 = spare.iter().sum();
    let others = (upstream.len() - 1) as f64;
    let share = |place: usize| match (place == here, total > 0.0) {
        (true, _) => kept,
        (false, true) => (1.0 - kept) * spare.get(place).copied().unwrap_or(0.0) / total,
        // Nobody has room: whoever is not here, alike.
        (false, false) => (1.0 - kept) / others,
    };
    let even = |place: usize| there(place) / 100.0;
    let enabled = f64::from(config.enabled) / 1_000_000.0;
    Some((0..upstream.len()).map(|place| enabled * share(place) + (1.0 - enabled) * even(place)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(own: &[(&str, usize)], upstream: &[(&str, usize)]) -> Option<Vec<f64>> {
        let members = own.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let config = ZoneAware { enabled: 1_000_000, smallest: 6 };
        shares(&config, &Zones { own: "a".to_owned(), members }, upstream)
    }

    /// The examples of Envoy's documentation.
    #[test]
    fn the_own_zone_gets_what_keeps_the_load_even() {
        let even = of(&[("a", 3), ("b", 3)], &[("a", 4), ("b", 4)]).unwrap();
        assert_eq!(even, [1.0, 0.0]);
        let small = of(&[("a", 3), ("b", 3)], &[("a", 2), ("b", 6)]).unwrap();
        assert_eq!(small, [0.5, 0.5]);
        let three = of(&[("a", 4), ("b", 3), ("c", 3)], &[("a", 2), ("b", 4), ("c", 4)]).unwrap();
        assert_eq!(three, [0.5, 0.25, 0.25]);
    }

    #[test]
    fn zones_do_not_count_when_too_little_is_known() {
        assert_eq!(of(&[("a", 3)], &[("a", 2), ("b", 2)]), None, "too few endpoints");
        assert_eq!(of(&[("a", 3)], &[("b", 3), ("c", 3)]), None, "none in the own zone");
        assert_eq!(of(&[("b", 3)], &[("a", 3), ("b", 3)]), None, "the own zone is not among the own cluster's");
        assert_eq!(of(&[("a", 3)], &[("a", 8)]), None, "only one zone");
    }
}
