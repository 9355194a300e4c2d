//! The context that all stages of a request look at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use serin_http1::RequestHead;
use serin_http1::framing::Framing;
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::route::{Action, Comparison, Forward, HostRewrite, InternalRedirect, WeightedCluster};
use serin_traffic::header_edit::CommandSource;
use serin_traffic::router::{CompiledHost, CompiledRoute};

use super::ConnectionContext;
use super::attempt::Answer;
use super::compare::Pair;
use super::deadlines::Deadlines;
use super::finish::StreamInfo;
use super::request::RequestInfo;
use crate::runtime::Permit;
use crate::worker::{LocalCluster, View};

/// The route of a request, with its virtual host.
#[derive(Clone, Copy)]
pub(crate) struct MatchedRoute<'a> {
    pub(crate) host: &'a CompiledHost,
    pub(crate) route: &'a CompiledRoute,
}

/// A response from upstream, with what the rest of the request needs.
pub(crate) struct Forwarded<'a> {
    pub(crate) answer: Answer,
    pub(crate) cluster: Rc<LocalCluster>,
    pub(crate) destination: Option<&'a WeightedCluster>,
    pub(crate) deadlines: Deadlines,
    /// The policy for redirects that are followed here.
    pub(crate) redirects: Option<&'a InternalRedirect>,
    pub(crate) permit: Permit,
    /// Cookies to issue.
    pub(crate) cookies: Vec<String>,
    /// Mirrors whose responses are compared with this one.
    pub(crate) pairs: Vec<Rc<Pair>>,
}

/// The stages after routing, with what all of them look at.
pub(crate) struct Stages<'a> {
    pub(crate) context: &'a Rc<ConnectionContext>,
    pub(crate) view: &'a View,
    pub(crate) place: MatchedRoute<'a>,
    pub(crate) http: &'a HttpConnectionManager,
    pub(crate) request: &'a RequestInfo,
    pub(crate) framing: Framing,
}

/// The commands of header values, with the route's own.
pub(crate) struct RouteCommands<'a> {
    pub(crate) record: &'a StreamInfo,
    pub(crate) place: MatchedRoute<'a>,
}

impl CommandSource for RouteCommands<'_> {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        let text = match name {
            "ROUTE_NAME" => &self.place.route.config.name,
            "VIRTUAL_HOST_NAME" => &self.place.host.config.name,
            _ => return CommandSource::command(self.record, name, argument),
        };
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Stages<'_> {
    /// The comparison of mirrors' responses, if there is one.
    pub(crate) fn comparison(&self) -> Option<&Comparison> {
        match &self.place.route.config.action {
            Action::Forward(forward) => forward.comparison.as_ref(),
            _ => None,
        }
    }

    /// Counts for the connection manager.
    pub(crate) fn context_count(&self, index: usize) {
        self.view.chain.stats.add(self.context.worker.id, index, 1);
    }

    /// The cluster of a mirror, by its number in the route table.
    pub(crate) fn cluster(&self, number: usize) -> Option<Rc<LocalCluster>> {
        self.view.cluster(number, &self.context.worker).cloned()
    }

    /// A cluster by name.
    pub(crate) fn cluster_named(&self, name: &str) -> Option<Rc<LocalCluster>> {
        self.view.named(name, &self.context.worker)
    }

    /// Gives a request another authority and keeps the one it had beside it.
    pub(crate) fn set_authority(&self, head: &mut RequestHead, authority: &[u8], forward: &Forward) {
        let original = head.authority().to_vec();
        if original == authority && !matches!(forward.host_rewrite, Some(HostRewrite::Literal(_))) {
            return;
        }
        if forward.append_x_forwarded_host {
            let all = match head.fields.get("x-forwarded-host") {
                Some(before) => [before, b",", &original].concat(),
                None => original.clone(),
            };
            head.fields.set("x-forwarded-host", &all);
        }
        if !self.http.suppress_envoy_headers {
            head.fields.set("x-envoy-original-host", &original);
        }
        head.fields.set("host", authority);
    }
}

/// The metadata that endpoints must have: the route's, with the drawn cluster's.
pub(super) fn metadata<'a>(
    forward: &'a Forward,
    weighted: Option<&'a WeightedCluster>,
) -> Option<Cow<'a, BTreeMap<String, String>>> {
    match (forward.metadata.is_empty(), weighted.filter(|w| !w.metadata.is_empty())) {
        (true, None) => None,
        (false, None) => Some(Cow::Borrowed(&forward.metadata)),
        (_, Some(own)) => {
            let mut all = forward.metadata.clone();
            all.extend(own.metadata.clone());
            Some(Cow::Owned(all))
        }
    }
}
