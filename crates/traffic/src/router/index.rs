//! Finds the routes of a host that can match a path, so that ten thousand of them cost what ten do.
//!
//! The first matching route wins, so a longest-prefix tree would be wrong. Exact paths and prefixes are looked up by
//! hash, prefixes once for each of their distinct lengths; what cannot be looked up (regular expressions, folded case) is
//! tried in order. Every list is ascending, so each is left as soon as it passes the best route found.

use std::collections::{BTreeSet, HashMap};

use serin_resources::route::{PathMatch, RouteMatch};

/// Fewer routes than this are tried one by one: that is quicker than hashing.
const WORTHWHILE: usize = 4;

/// Positions of routes by what their path must be.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    exact: HashMap<Vec<u8>, Vec<usize>>,
    prefixes: HashMap<Vec<u8>, Vec<usize>>,
    /// Lengths that prefixes have, ascending.
    lengths: Vec<usize>,
    others: Vec<usize>,
}

impl RouteIndex {
    /// Indexes routes, in order; `None` for so few that it would not pay.
    pub(super) fn build<'a>(routes: impl ExactSizeIterator<Item = &'a RouteMatch>) -> Option<Self> {
        if routes.len() < WORTHWHILE {
            return None;
        }
        let mut index = Self::default();
        let mut lengths = BTreeSet::new();
        for (position, matches) in routes.enumerate() {
            match &matches.path {
                PathMatch::Exact(path) if matches.case_sensitive => {
                    index.exact.entry(path.as_bytes().to_vec()).or_default().push(position);
                }
                PathMatch::Prefix(path) | PathMatch::PathPrefix(path) if matches.case_sensitive => {
                    lengths.insert(path.len());
                    index.prefixes.entry(path.as_bytes().to_vec()).or_default().push(position);
                }
                _ => index.others.push(position),
            }
        }
        index.lengths = lengths.into_iter().collect();
        Some(index)
    }

    /// The first position that `matches`, of those whose path can match.
    pub(super) fn first(&self, path: &[u8], matches: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best = None;
        let mut consider = |positions: &[usize]| {
            let better = positions.iter().copied().take_while(|p| best.is_none_or(|b| *p < b)).find(|p| matches(*p));
            best = better.or(best);
        };
        consider(self.exact.get(path).map_or(&[], Vec::as_slice));
        let prefixes = self.lengths.iter().map_while(|length| path.get(..*length));
        prefixes.filter_map(|prefix| self.prefixes.get(prefix)).for_each(|positions| consider(positions));
        consider(&self.others);
        best
    }
}
