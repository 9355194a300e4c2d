//! HTTP filters as they decide: who may come in, how many, and what a browser is told. Source: Envoy, "HTTP filters".
//!
//! A [`Chain`] is made when a listener's configuration comes, with what its filters remember (tokens, windows, limits);
//! routes have their own. Time is an argument: what has passed since some fixed instant.

mod access;
mod admission;
mod compress;
mod concurrency;
mod cors;
mod tokens;

use std::collections::BTreeMap;
use std::time::Duration;

use serin_http1::RequestHead;
use serin_resources::fault::Fault;
use serin_resources::header::HeaderEdits;
use serin_resources::http_filter::{
    Compressor, Cors, Csrf, FilterConfig, HealthAnswer, HttpFilter, Mutations, PerRoute, PerRoutes,
};

pub use access::{Caller, RbacGate, compile as compile_rbac};
pub use admission::Admission;
pub use compress::{compress, prepare as prepare_compression, takes_gzip};
pub use concurrency::Concurrency;
pub use cors::{Preflight, answer_headers as cors_answer, origin_allowed, preflight, preflight_headers};
pub use tokens::Bucket;

/// A filter with what it remembers.
#[derive(Debug)]
pub enum Filter {
    /// Delays and aborts.
    Fault(Fault),
    /// See [`preflight`].
    Cors(Cors),
    /// See [`Filter::csrf`].
    Csrf(Csrf),
    /// Takes a token for every request.
    RateLimit(Box<Bucket>),
    /// Refuses longer bodies.
    Buffer(u64),
    /// Answers health checks.
    HealthCheck(HealthAnswer),
    /// See [`compress`].
    Compressor(Compressor),
    /// Changes headers.
    HeaderMutation(Mutations),
    /// Lets in who may.
    Rbac(Box<RbacGate>),
    /// Lets in as many as are answered quickly.
    AdaptiveConcurrency(Box<Concurrency>),
    /// Refuses a part while too many fail.
    AdmissionControl(Box<Admission>),
}

/// One filter of the chain.
#[derive(Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The filter itself.
    pub filter: Filter,
    disabled: bool,
}

/// All filters of a listener, in order.
#[derive(Debug, Default)]
pub struct Chain {
    links: Vec<Link>,
}

/// The settings of filters at one level of the routes, compiled.
pub type Overrides = BTreeMap<String, Override>;

/// The setting of one filter at one level of the routes.
#[derive(Debug)]
pub enum Override {
    /// It does nothing here.
    Off,
    /// It does what it does.
    On,
    /// It does this.
    Filter(Filter),
}

impl Filter {
    fn compile(config: &FilterConfig) -> Self {
        match config {
            FilterConfig::Fault(fault) => Self::Fault(fault.clone()),
            FilterConfig::Cors(cors) => Self::Cors(cors.clone()),
            FilterConfig::Csrf(csrf) => Self::Csrf(csrf.clone()),
            FilterConfig::RateLimit(limit) => Self::RateLimit(Box::new(Bucket::new(limit))),
            FilterConfig::Buffer(most) => Self::Buffer(*most),
            FilterConfig::HealthCheck(answer) => Self::HealthCheck(answer.clone()),
            FilterConfig::Compressor(config) => Self::Compressor(config.clone()),
            FilterConfig::HeaderMutation(mutations) => Self::HeaderMutation(mutations.clone()),
            FilterConfig::Rbac(rbac) => Self::Rbac(Box::new(compile_rbac(rbac))),
            FilterConfig::AdaptiveConcurrency(config) => Self::AdaptiveConcurrency(Box::new(Concurrency::new(config))),
            FilterConfig::AdmissionControl(config) => Self::AdmissionControl(Box::new(Admission::new(config))),
        }
    }

    fn bucket(&self) -> Option<&Bucket> {
        match self {
            Self::RateLimit(bucket) => Some(bucket),
            _ => None,
        }
    }

    /// Returns true when another site made a browser send this request.
    #[must_use]
    pub fn csrf(config: &Csrf, head: &RequestHead) -> bool {
        access::is_foreign(config, head)
    }
}

impl Chain {
    /// Compiles a chain.
    #[must_use]
    pub fn new(filters: &[HttpFilter]) -> Self {
        let link =
            |f: &HttpFilter| Link { name: f.name.clone(), filter: Filter::compile(&f.config), disabled: f.disabled };
        Self { links: filters.iter().map(link).collect() }
    }

    /// The buckets of its rate limits.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.links.iter().filter_map(|link| link.filter.bucket())
    }

    /// All links.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }
}

impl Link {
    /// The filter under these overrides, the most specific first; `None` when it is off.
    #[must_use]
    pub fn under<'a>(&'a self, overrides: &[&'a Overrides]) -> Option<&'a Filter> {
        match overrides.iter().find_map(|o| o.get(&self.name)) {
            Some(Override::Off) => None,
            Some(Override::On) => Some(&self.filter),
            Some(Override::Filter(filter)) => Some(filter),
            None => (!self.disabled).then_some(&self.filter),
        }
    }
}

/// Compiles what a route says.
#[must_use]
pub fn compile(all: &PerRoutes) -> Overrides {
    let one = |per_route: &PerRoute| match per_route {
        PerRoute::Off => Override::Off,
        PerRoute::On => Override::On,
        PerRoute::Config(config) => Override::Filter(Filter::compile(config)),
    };
    all.iter().map(|(name, per_route)| (name.clone(), one(per_route))).collect()
}

/// The buckets of rate limits.
pub fn buckets(overrides: &Overrides) -> impl Iterator<Item = &Bucket> {
    overrides.values().filter_map(|o| match o {
        Override::Filter(filter) => filter.bucket(),
        Override::Off | Override::On => None,
    })
}

/// The policy that holds for a request: each setting by the most specific level that says something about it.
#[must_use]
pub fn cors_policy(link: &Link, overrides: &[&Overrides]) -> Option<Cors> {
    let mut levels = overrides.iter().filter_map(|o| match o.get(&link.name) {
        Some(Override::Filter(Filter::Cors(cors))) => Some(cors),
        _ => None,
    });
    let mut policy = levels.next()?.clone();
    for level in levels {
        policy.inherit(level);
    }
    Some(policy)
}

/// The edits of every level that a header mutation filter makes, in their order: the filter's own, then those of routes.
#[must_use]
pub fn mutations<'a>(
    link: &'a Link,
    overrides: &[&'a Overrides],
    of: impl Fn(&'a Mutations) -> &'a HeaderEdits,
) -> Vec<&'a HeaderEdits> {
    let Filter::HeaderMutation(own) = &link.filter else { return Vec::new() };
    let levels = overrides.iter().filter_map(|o| match o.get(&link.name) {
        Some(Override::Filter(Filter::HeaderMutation(m))) => Some(m),
        _ => None,
    });
    let mut levels: Vec<&Mutations> = levels.collect();
    if own.most_specific_wins {
        levels.reverse();
    }
    std::iter::once(own).chain(levels).map(of).collect()
}

/// The time since the program started, for filters that remember times.
pub type Now = Duration;
