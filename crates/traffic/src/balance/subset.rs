//! Endpoints divided by their metadata, so that a request can ask for some of them. Source: Envoy, "Load balancer subsets".

use std::collections::{BTreeMap, BTreeSet};

use serin_resources::cluster::{SubsetConfig, SubsetFallback};

use super::{Balance, Member, State};

type Criteria = BTreeMap<String, String>;

/// Keys with values, sorted.
type Values = Vec<(String, String)>;

/// A balance for every subset that there is.
#[derive(Debug)]
pub struct Subsets {
    config: SubsetConfig,
    found: BTreeMap<Values, (Box<Balance>, usize)>,
    any: Box<Balance>,
    default: Box<Balance>,
    count: usize,
}

impl Subsets {
    pub(super) fn new(config: &SubsetConfig, members: &[Member], balance: impl Fn(&[usize]) -> Balance) -> Self {
        let mut groups: BTreeMap<Values, BTreeSet<usize>> = BTreeMap::new();
        for (number, member) in members.iter().enumerate() {
            for selector in &config.selectors {
                let values: Option<Values> =
                    selector.keys.iter().map(|k| Some((k.clone(), member.metadata.get(k)?.clone()))).collect();
                if let Some(values) = values {
                    groups.entry(values).or_default().insert(number);
                }
            }
        }
        let all: Vec<usize> = (0..members.len()).collect();
        let of_default: Vec<usize> = (0..)
            .zip(members)
            .filter(|(_, m)| config.default.iter().all(|(k, v)| m.metadata.get(k) == Some(v)))
            .map(|(number, _)| number)
            .collect();
        let count = groups.len() + 2;
        let found = groups
            .into_iter()
            .enumerate()
            .map(|(place, (values, numbers))| {
                let numbers: Vec<usize> = numbers.into_iter().collect();
                (values, (Box::new(balance(&numbers)), place))
            })
            .collect();
        Self {
            config: config.clone(),
            found,
            any: Box::new(balance(&all)),
            default: Box::new(balance(&of_default)),
            count,
        }
    }

    /// The balance for a request, with its number.
    pub(super) fn select(&self, wanted: Option<&Criteria>) -> Option<(&Balance, usize)> {
        let wanted = wanted.filter(|w| !w.is_empty());
        let Some(wanted) = wanted else { return self.fall_back(self.config.fallback) };
        let keys: Vec<&String> = wanted.keys().collect();
        let selector = self.config.selectors.iter().find(|s| s.keys.iter().collect::<Vec<_>>() == keys);
        let values: Values = wanted.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if selector.is_some()
            && let Some((balance, number)) = self.found.get(&values)
        {
            return Some((balance, *number));
        }
        match selector.and_then(|s| s.fallback.map(|f| (f, s.fallback_keys.as_slice()))) {
            Some((SubsetFallback::Keys, keys)) => {
                let fewer: Criteria =
                    wanted.iter().filter(|(k, _)| keys.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
                // With as many it would ask for ever.
                if fewer.len() < wanted.len() {
                    self.select(Some(&fewer))
                } else {
                    self.fall_back(self.config.fallback)
                }
            }
            Some((fallback, _)) => self.fall_back(fallback),
            None => self.fall_back(self.config.fallback),
        }
    }

    fn fall_back(&self, fallback: SubsetFallback) -> Option<(&Balance, usize)> {
        match fallback {
            SubsetFallback::None | SubsetFallback::Keys => None,
            SubsetFallback::Any => Some((&self.any, self.count - 2)),
            SubsetFallback::Default => Some((&self.default, self.count - 1)),
        }
    }

    /// The state of one balance among those that `state` holds.
    pub(super) fn state(state: &mut State, id: u64, number: usize) -> &mut State {
        if state.of != id {
            *state = State { of: id, ..State::default() };
        }
        state.subsets.entry(number).or_default()
    }
}
