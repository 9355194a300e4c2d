//! What is drawn for a request by chance, or by its hash.

use std::borrow::Cow;

use serin_http1::RequestHead;
use serin_resources::route::{Action, RandomSource};
use serin_traffic::hash::{self, Hashed};

use super::ConnectionContext;
use super::request::RequestInfo;
use super::stage::MatchedRoute;

/// The draws for a request when its route was found.
pub(super) struct Drawn {
    pub(super) hashed: Hashed,
    /// The part of a split.
    pub(super) part: usize,
}

/// Draws for a request.
pub(super) fn draw(
    place: MatchedRoute<'_>,
    context: &ConnectionContext,
    info: &RequestInfo,
    head: &RequestHead,
) -> Drawn {
    let mut hashed = Hashed::default();
    let Action::Forward(forward) = &place.route.config.action else { return Drawn { hashed, part: 0 } };
    if !forward.hash.is_empty() {
        let connection = hash::Connection { peer: context.peer, local: context.local };
        hashed = hash::of(&forward.hash, &place.route.hash_patterns, head, (info.client, connection));
    }
    let given = match &forward.random {
        RandomSource::Draw => None,
        RandomSource::Header(name) => head.fields.get_str(name).and_then(|v| v.parse().ok()),
        RandomSource::Hash => hashed.value,
    };
    let split = &place.route.split;
    let part = given.map_or_else(|| split.pick(context.worker.random()), |number| split.at(number));
    Drawn { hashed, part }
}

/// The name of the cluster that a request goes to.
pub(super) fn cluster_name<'a>(place: MatchedRoute<'a>, drawn: &Drawn, head: &RequestHead) -> Option<Cow<'a, str>> {
    let Action::Forward(forward) = &place.route.config.action else { return None };
    match &forward.cluster_header {
        Some(header) => Some(Cow::Owned(head.fields.get_str(header).unwrap_or_default().to_owned())),
        None => forward.clusters.get(drawn.part).map(|c| Cow::Borrowed(c.name.as_str())),
    }
}
