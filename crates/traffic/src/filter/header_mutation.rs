//! The changes of headers that hold for a request, by the levels of its route (`envoy.filters.http.header_mutation`).

use serin_resources::header::Mutation;
use serin_resources::http_filter::HeaderMutation;

use super::{Compiled, Link, Overrides};

/// The changes of every level that a header mutation filter makes, in their order: the filter's own, then those of routes.
#[must_use]
pub fn mutations<'a>(
    link: &'a Link,
    overrides: &[&'a Overrides],
    of: impl Fn(&'a HeaderMutation) -> &'a [Mutation],
) -> Vec<&'a [Mutation]> {
    let Some(own) = HeaderMutation::of(&link.filter) else { return Vec::new() };
    let mut levels: Vec<&HeaderMutation> = link.levels(overrides).collect();
    if own.most_specific_wins {
        levels.reverse();
    }
    std::iter::once(own).chain(levels).map(of).collect()
}
