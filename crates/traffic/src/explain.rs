//! Explains the route of a request: asks the code that decides for everything that it found on the way.

use serin_http1::RequestHead;
use serin_resources::route::Action;

use crate::balance::{HealthState, Loads, Member};
use crate::router::{Circumstances, HostMatch, Mismatch, RouteTable};

/// The explanation of a request's route.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// The virtual host, and by which of its domains; `None` when none has the authority.
    pub host: Option<(&'a str, HostMatch)>,
    /// Documents of which an older version is in force in the virtual host, in words.
    pub outdated: &'a str,
    /// Every other virtual host, with the domains that do not fit.
    pub other_hosts: Vec<(&'a str, &'a [String])>,
    /// Routes in order, up to and with the one that matches; what kept each from it.
    pub routes: Vec<RouteVerdict<'a>>,
    /// The destination of the matching route.
    pub outcome: Outcome<'a>,
}

/// The result for one route.
#[derive(Debug)]
pub struct RouteVerdict<'a> {
    /// Its place in the virtual host.
    pub position: usize,
    /// Its name, may be empty.
    pub name: &'a str,
    /// The reason why it does not match; `None` for the one that does.
    pub mismatch: Option<Mismatch<'a>>,
}

/// The end of a request's way.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Nowhere: no virtual host, or no route in it.
    NotFound,
    /// It is redirected with this status.
    Redirect(u16),
    /// It is answered with this status.
    Respond(u16),
    /// To one of these clusters.
    Clusters {
        /// Names with their shares in per cent.
        shares: Vec<(&'a str, f64)>,
        /// The number of the cluster that was drawn.
        drawn: usize,
    },
    /// To the cluster that this header names.
    ClusterHeader(&'a str),
}

/// Explains what a table does with a request; `random` is the draw.
#[must_use]
pub fn route<'a>(table: &'a RouteTable, head: &'a RequestHead, random: u64) -> Explanation<'a> {
    let found = table.virtual_host_by(head.authority());
    let name = found.map(|(host, _)| host.config.name.as_str());
    let others = table.hosts().iter().map(|h| (h.config.name.as_str(), h.config.domains.as_slice()));
    let mut explanation = Explanation {
        host: found.map(|(host, how)| (host.config.name.as_str(), how)),
        outdated: found.map_or("", |(host, _)| host.config.outdated.as_str()),
        other_hosts: others.filter(|(other, _)| Some(*other) != name).collect(),
        routes: Vec::new(),
        outcome: Outcome::NotFound,
    };
    let Some((host, _)) = found else { return explanation };
    let path = table.matched_path(head);
    for (position, route) in host.routes.iter().enumerate() {
        let mismatch = route.mismatch(head, path, Circumstances { random, ..Circumstances::default() });
        let matched = mismatch.is_none();
        explanation.routes.push(RouteVerdict { position, name: &route.config.name, mismatch });
        if !matched {
            continue;
        }
        explanation.outcome = match &route.config.action {
            Action::Redirect(redirect) => Outcome::Redirect(redirect.status),
            Action::Respond(respond) => Outcome::Respond(respond.status),
            Action::Forward(forward) => match &forward.cluster_header {
                Some(header) => Outcome::ClusterHeader(header),
                None => {
                    let total: f64 = forward.clusters.iter().map(|c| f64::from(c.weight)).sum();
                    let share = |weight: u32| if total > 0.0 { f64::from(weight) * 100.0 / total } else { 100.0 };
                    let shares = forward.clusters.iter().map(|c| (c.name.as_str(), share(c.weight)));
                    Outcome::Clusters { shares: shares.collect(), drawn: route.split.pick(random) }
                }
            },
        };
        break;
    }
    explanation
}

/// The reason why an endpoint gets no requests; `None` when it does.
#[must_use]
pub fn left_out(member: &Member, loads: &Loads) -> Option<&'static str> {
    let of = |list: &[u32]| list.get(member.priority as usize).copied().unwrap_or(0);
    let panics = loads.panic.get(member.priority as usize).copied().unwrap_or(false);
    match member.health {
        _ if panics && of(&loads.healthy) > 0 => None,
        HealthState::Bad => Some("it is not well"),
        HealthState::Healthy if of(&loads.healthy) == 0 => Some("its priority has no share of the load"),
        HealthState::Degraded if of(&loads.degraded) == 0 => Some("it is degraded, and enough others are well"),
        HealthState::Healthy | HealthState::Degraded => None,
    }
}
