//! HTTP filters as they decide: who may come in, how many, and what a browser is told. Source: Envoy, "HTTP filters".
//!
//! A [`Chain`] is made when a listener's configuration comes, with what its filters remember (tokens, windows, limits);
//! routes have their own. Time is an argument: what has passed since some fixed instant. The filters are those of the
//! [registry](serin_resources::http_filters); what runs them is `proxy/http/filters`.

mod access;
mod admission;
mod compress;
mod concurrency;
mod cors;
mod header_mutation;
mod tokens;

use std::collections::BTreeMap;
use std::time::Duration;

use serin_resources::http_filter::{FilterConfig, HttpFilter, PerRoute, PerRoutes};

pub use access::{Caller, CertificateNames, RbacGate, is_foreign};
pub use admission::Admission;
pub use compress::{compress, prepare as prepare_compression, takes_gzip};
pub use concurrency::Concurrency;
pub use cors::{
    Preflight, answer_headers as cors_answer, origin_allowed, policy as cors_policy, preflight, preflight_headers,
};
pub use header_mutation::mutations as header_mutations;
pub use tokens::Bucket;

/// The compiled form of a filter's configuration when the filter remembers something, or decides in another form.
pub trait FilterState {
    /// The configuration.
    type Config;

    /// Makes the state that a configuration begins with.
    fn new(config: &Self::Config) -> Self;

    /// The counters of its own, beside those of the listener.
    fn counters(&self) -> Vec<FilterCounter> {
        Vec::new()
    }
}

/// A counter of one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterCounter {
    /// The group that it is shown in.
    pub group: &'static str,
    /// The tag by which Envoy names the filter's prefix, and the prefix.
    pub tag: (&'static str, String),
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
}

/// A type of which there is one for each filter: its compiled configuration.
pub trait Compiled: Sized {
    /// The filter as this type; `None` when it is another filter.
    fn of(filter: &Filter) -> Option<&Self>;
}

/// The type of a compiled configuration.
macro_rules! compiled {
    ($name:ident) => {
        serin_resources::http_filter::$name
    };
    ($name:ident $state:ident) => {
        $state
    };
}

/// The type in which a chain holds it.
macro_rules! held {
    ($name:ident) => { serin_resources::http_filter::$name };
    ($name:ident $state:ident) => { Box<$state> };
}

/// Makes it.
macro_rules! compile {
    ($config:ident) => {
        $config.clone()
    };
    ($config:ident $state:ident) => {
        Box::new(<$state as FilterState>::new($config))
    };
}

/// Its own counters.
macro_rules! counters {
    ($compiled:ident) => {{
        let _ = $compiled;
        Vec::new()
    }};
    ($compiled:ident $state:ident) => {
        FilterState::counters(&**$compiled)
    };
}

/// Declares the filters as one type.
macro_rules! filters {
    ($($module:ident: $name:ident $(=> $state:ident)?,)*) => {
        /// A filter with what it remembers.
        #[derive(Debug)]
        pub enum Filter {
            $(
                #[doc = concat!("See [`", stringify!($name), "`](struct@serin_resources::http_filter::", stringify!($name), ").")]
                $name(held!($name $($state)?)),
            )*
        }

        impl Filter {
            fn compile(config: &FilterConfig) -> Self {
                match config {
                    $(FilterConfig::$name(config) => Self::$name(compile!(config $($state)?)),)*
                }
            }

            fn counters(&self) -> Vec<FilterCounter> {
                match self {
                    $(Self::$name(compiled) => counters!(compiled $($state)?),)*
                }
            }
        }

        $(
            impl Compiled for compiled!($name $($state)?) {
                fn of(filter: &Filter) -> Option<&Self> {
                    match filter {
                        Filter::$name(compiled) => Some(compiled),
                        _ => None,
                    }
                }
            }
        )*
    };
}

serin_resources::http_filters!(filters);

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

impl Chain {
    /// Compiles a chain.
    #[must_use]
    pub fn new(filters: &[HttpFilter]) -> Self {
        let link =
            |f: &HttpFilter| Link { name: f.name.clone(), filter: Filter::compile(&f.config), disabled: f.disabled };
        Self { links: filters.iter().map(link).collect() }
    }

    /// The counters of its filters' own.
    pub fn counters(&self) -> impl Iterator<Item = FilterCounter> {
        self.links.iter().flat_map(|link| link.filter.counters())
    }

    /// All links.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }
}

impl Link {
    /// The settings of the routes for it, the most specific first.
    pub fn levels<'a, C: Compiled + 'a>(&self, overrides: &[&'a Overrides]) -> impl Iterator<Item = &'a C> {
        overrides.iter().filter_map(|o| match o.get(&self.name) {
            Some(Override::Filter(filter)) => C::of(filter),
            _ => None,
        })
    }

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

/// The counters of the filters of one level of the routes.
pub fn counters(overrides: &Overrides) -> impl Iterator<Item = FilterCounter> {
    overrides.values().flat_map(|o| match o {
        Override::Filter(filter) => filter.counters(),
        Override::Off | Override::On => Vec::new(),
    })
}

/// The time since the program started, for filters that remember times.
pub type Now = Duration;
