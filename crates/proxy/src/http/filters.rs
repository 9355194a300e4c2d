//! The HTTP filters between a listener and its routes: their hooks, and the order in which they run. Source: Envoy, "HTTP filters".
//!
//! A filter is a file in this folder that implements [`HttpFilter`]. To add one, write that file, the file of its configuration in
//! `resources/src/http_filter`, and one line in the registry (`resources/src/http_filter/registry.rs`); if it decides more than a
//! line, the decision is a module of `traffic/filter`. The registry expands to the modules and calls below, so that every
//! call is static and nothing else names a filter. rustfmt does not see these modules: `.ci/run` names their files to it.
//!
//! Requests pass the filters in the configured order, responses in the reverse order, as in Envoy. A filter that is not
//! configured, is off, or wants no later hook costs nothing later: only what it keeps is asked again.

#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::rc::Rc;

use serin_http1::framing::{Declared, Framing};
use serin_http1::{RequestHead, ResponseHead};
use serin_traffic::filter::{Chain, Compiled, Filter, Link, Overrides};

use super::ConnectionContext;
use super::alter::{BodyFilter, BodyTransform};
use super::body::RequestBody;
use super::finish::StreamInfo;
use super::local_reply::Stop;
use super::request::RequestInfo;
use crate::metric;
use crate::worker::View;

/// A filter, as what it keeps of one request: a value of this type gets the hooks after the first one. A filter that needs none
/// of them is a type without values.
pub(super) trait HttpFilter<'a>: Sized {
    /// The compiled configuration.
    type Config: Compiled + 'a;

    /// The names of its counters, which are counted for each listener; [`counters!`] makes them.
    const COUNTERS: &'static [&'static str] = &[];

    /// Looks at the head of a request, before the request is forwarded.
    ///
    /// It may wait: for another service, or for the whole body by [`RequestBody::gather`]. What waits is boxed in the
    /// filter, so that requests that wait for nothing have no room for it, and watches whether the client goes away
    /// ([`RequestBody::abandoned`]). It may change the head, and stop the request with a local reply. To get the later hooks it puts
    /// itself into `kept`, also when it stops the request.
    async fn request_head(
        setting: Setting<'a, Self::Config>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop>;

    /// Returns what the parts of the request's body pass, if the filter wants to see them; asked after the head has passed.
    fn request_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        None
    }

    /// Looks at the head of the response: the upstream's, or a local reply. It may wait and change the head.
    async fn response_head(&mut self, _context: &FilterContext<'a>, _response: &mut ResponseParts<'_>) {}

    /// Returns what the parts of an upstream's body pass, if the filter wants to see them; asked after the head has passed.
    fn response_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        None
    }

    /// Gives back what the filter holds; called once for each kept value, however the request ends: after the response, when the
    /// client is gone at any time, or when another filter stops the request.
    fn end(&mut self) {}
}

/// The properties of a request that are the same for all filters and hooks.
#[derive(Clone, Copy)]
pub(super) struct FilterContext<'a> {
    pub(super) connection: &'a Rc<ConnectionContext>,
    pub(super) view: &'a View,
    /// The filters that it passes.
    pub(super) chain: &'a Chain,
    pub(super) request: &'a RequestInfo,
    /// The settings of the routes, the most specific first.
    pub(super) overrides: &'a [&'a Overrides],
    /// The name of the cluster to which its route forwards it.
    pub(super) cluster: Option<&'a str>,
}

impl FilterContext<'_> {
    /// A uniform random number.
    fn random(&self) -> u64 {
        self.connection.worker.random()
    }
}

/// The configuration of a filter for a request, and its place in the chain.
pub(super) struct Setting<'a, C> {
    /// The configuration that holds: the route's, or else the listener's.
    config: &'a C,
    /// The filter in the chain, for filters that put the settings of all levels together.
    link: &'a Link,
}

/// The parts of a request on its way in.
pub(super) struct RequestParts<'r, 'b> {
    pub(super) head: &'r mut RequestHead,
    pub(super) body: &'r mut RequestBody<'b>,
    /// The framing with which the body goes on.
    pub(super) framing: &'r mut Framing,
    pub(super) record: &'r StreamInfo,
}

/// The parts of a response on its way out.
pub(super) struct ResponseParts<'r> {
    pub(super) head: &'r mut ResponseHead,
    pub(super) request: &'r RequestHead,
    pub(super) record: &'r StreamInfo,
    /// The framing of an upstream's body, and what its head declares; `None` for a local reply, whose body passes no filter.
    pub(super) body: Option<(Framing, Declared)>,
}

/// The place for what a filter keeps of a request; calls its end hook when that goes.
pub(super) struct Kept<'a, F: HttpFilter<'a>>(Option<F>, PhantomData<&'a ()>);

impl<'a, F: HttpFilter<'a>> Kept<'a, F> {
    fn nothing() -> Self {
        Self(None, PhantomData)
    }

    /// Keeps the filter for the later hooks.
    fn keep(&mut self, filter: F) {
        self.release();
        self.0 = Some(filter);
    }

    /// Ends what was kept.
    fn release(&mut self) {
        if let Some(mut filter) = self.0.take() {
            filter.end();
        }
    }
}

impl<'a, F: HttpFilter<'a>> Drop for Kept<'a, F> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Declares the counters of a filter as a module `counter`, in which each name has the number of its counter.
macro_rules! counters {
    ($filter:ident: $($constant:ident = $name:literal),* $(,)?) => {
        /// The numbers of the filter's counters, and their names.
        mod counter {
            pub(super) const NAMES: &[&str] = &[$($name),*];
            counters!(@number super::super::first_counter(super::super::Position::$filter as usize); $($constant)*);
        }
    };
    (@number $index:expr;) => {};
    (@number $index:expr; $first:ident $($rest:ident)*) => {
        pub(super) const $first: usize = $index;
        counters!(@number $first + 1; $($rest)*);
    };
}

/// Declares the modules of the filters, and calls the hooks of each.
macro_rules! dispatch {
    ($($module:ident: $name:ident $(=> $state:ident)?,)*) => {
        $(mod $module;)*

        /// The positions of the filters in the registry.
        enum Position {
            $($name,)*
        }

        /// The names of every filter's counters.
        const NAMES: &[(Position, &[&str])] =
            &[$((Position::$name, <$module::$name<'static> as HttpFilter<'static>>::COUNTERS),)*];

        /// A filter that gets the later hooks.
        enum ActiveFilter<'a> {
            $($name(Kept<'a, $module::$name<'a>>),)*
        }

        impl<'a> ActiveFilter<'a> {
            /// Calls the hook of a filter for the head of a request; yields what the filter keeps in `active`.
            async fn request_head(
                filter: &'a Filter,
                link: &'a Link,
                request: &mut RequestParts<'_, '_>,
                active: &mut ActiveFilters<'a>,
            ) -> Result<(), Stop> {
                match filter {
                    $(Filter::$name(config) => {
                        let setting: Setting<'a, <$module::$name<'a> as HttpFilter<'a>>::Config> = Setting { config, link };
                        let mut kept = Kept::nothing();
                        let passed = $module::$name::request_head(setting, &active.context, request, &mut kept).await;
                        if let Some(filter) = &mut kept.0 {
                            if passed.is_ok() && let Some(body_filter) = filter.request_body() {
                                request.pass_through(body_filter);
                            }
                            active.kept.push(Self::$name(kept));
                        }
                        passed
                    })*
                }
            }

            async fn response_head(&mut self, context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
                match self {
                    $(Self::$name(kept) => if let Some(filter) = &mut kept.0 {
                        filter.response_head(context, response).await;
                    },)*
                }
            }

            fn response_body(&mut self) -> Option<Box<dyn BodyFilter>> {
                match self {
                    $(Self::$name(kept) => kept.0.as_mut()?.response_body(),)*
                }
            }
        }
    };
}

serin_resources::http_filters!(dispatch);

/// Returns the number of the first counter of the filter at a position, behind those of the listener itself.
const fn first_counter(position: usize) -> usize {
    let (mut before, _) = NAMES.split_at(position);
    let mut first = metric::http::NAMES.len();
    while let Some(((_, names), rest)) = before.split_first() {
        first += names.len();
        before = rest;
    }
    first
}

/// The names of the counters of a listener and its filters.
pub(crate) const COUNTERS: &[&str] = {
    const LENGTH: usize = first_counter(NAMES.len());
    const LIST: [&str; LENGTH] = {
        let mut list = [""; LENGTH];
        let mut at = 0;
        while at < metric::http::NAMES.len() {
            list[at] = metric::http::NAMES[at];
            at += 1;
        }
        let mut filter = 0;
        while filter < NAMES.len() {
            let mut number = 0;
            while number < NAMES[filter].1.len() {
                list[at] = NAMES[filter].1[number];
                at += 1;
                number += 1;
            }
            filter += 1;
        }
        list
    };
    &LIST
};

impl RequestParts<'_, '_> {
    /// Lets the body pass a filter.
    fn pass_through(&mut self, filter: Box<dyn BodyFilter>) {
        if *self.framing == Framing::Empty {
            return;
        }
        let changes_length = filter.changes_length();
        let whole = self.body.pass_through(filter);
        if changes_length && *self.framing != Framing::UntilClose {
            self.head.fields.remove("content-length");
            *self.framing = whole.map_or(Framing::Chunked, Framing::Length);
        }
    }
}

/// The filters of one request that get its later hooks; mostly none. Dropping it ends them.
pub(super) struct ActiveFilters<'a> {
    context: FilterContext<'a>,
    kept: Vec<ActiveFilter<'a>>,
}

impl<'a> ActiveFilters<'a> {
    pub(super) fn new(context: FilterContext<'a>) -> Self {
        Self { context, kept: Vec::new() }
    }

    /// Returns whether no filter wants the later hooks.
    pub(super) fn is_idle(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes a request through all filters of its listener, in their order, until one stops it.
    pub(super) async fn request_head(&mut self, request: &mut RequestParts<'_, '_>) -> Result<(), Stop> {
        let FilterContext { chain, overrides, .. } = self.context;
        for link in chain.links() {
            if let Some(filter) = link.under(overrides) {
                ActiveFilter::request_head(filter, link, request, self).await?;
            }
        }
        Ok(())
    }

    /// Takes the head of a response through the filters that are still interested, in the reverse order.
    pub(super) async fn response_head(&mut self, response: &mut ResponseParts<'_>) {
        for filter in self.kept.iter_mut().rev() {
            filter.response_head(&self.context, response).await;
        }
    }

    /// Returns the changes to the body of a response whose head has passed.
    pub(super) fn response_body(&mut self) -> Option<Box<BodyTransform>> {
        let filters: Vec<_> = self.kept.iter_mut().rev().filter_map(ActiveFilter::response_body).collect();
        (!filters.is_empty()).then(|| Box::new(BodyTransform::new(filters)))
    }
}
