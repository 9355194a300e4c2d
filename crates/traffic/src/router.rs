//! From a request to its route: the virtual host by authority, then the first route that matches.
//!
//! Virtual hosts are looked up as in Envoy: exact name, longest suffix (`*.a`), longest prefix (`a.*`), then `*`.

mod index;

use std::collections::HashMap;

use serin_http1::RequestHead;
use serin_resources::retry::RetryPolicy;
use serin_resources::route::{
    Action, CertificateMatch, HostRewrite, Mirror, PathMatch, PathRewrite, RedirectPath, Route, RouteConfiguration,
    VirtualHost,
};

use crate::filter::{self, FilterCounter, Overrides};
use crate::predicate::{Cookie, Header, Query, Text};
use crate::split::{Split, drawn};
use index::RouteIndex;

/// A route configuration, compiled.
#[derive(Debug)]
pub struct RouteTable {
    /// The name of the route configuration that it was compiled from.
    pub name: String,
    /// Edits of the whole configuration.
    pub request_headers: serin_resources::header::HeaderEdits,
    /// Edits of the whole configuration.
    pub response_headers: serin_resources::header::HeaderEdits,
    hosts: Vec<CompiledHost>,
    clusters: Vec<String>,
    exact: HashMap<String, usize>,
    suffixes: Vec<(String, usize)>,
    prefixes: Vec<(String, usize)>,
    default: Option<usize>,
    ignore_port: bool,
    ignore_parameters: bool,
    /// True when edits go from the least specific level to the most specific one.
    pub most_specific_edits_win: bool,
    /// Headers that only internal clients may send.
    pub internal_only_headers: Vec<String>,
    /// The settings of filters for all of it.
    pub filters: Overrides,
}

/// A virtual host, compiled.
#[derive(Debug)]
pub struct CompiledHost {
    /// Its configuration, without routes.
    pub config: VirtualHost,
    /// Its routes, in order.
    pub routes: Vec<CompiledRoute>,
    /// The settings of filters for its routes.
    pub filters: Overrides,
    index: Option<RouteIndex>,
}

/// A route, compiled.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its configuration.
    pub config: Route,
    /// The split of its clusters.
    pub split: Split,
    /// The settings of filters for this route, and for each of its clusters.
    pub filters: Overrides,
    /// See above.
    pub cluster_filters: Vec<Overrides>,
    /// The number of each of its clusters in the table.
    pub clusters: Vec<usize>,
    /// Its retry policy, or its virtual host's.
    pub retry: Option<RetryPolicy>,
    /// True when an attempt that takes too long goes on beside the next.
    pub hedge: bool,
    /// Its mirrors, or its virtual host's, or the table's, with the number of each one's cluster.
    pub mirrors: Vec<(Mirror, usize)>,
    /// The pattern of every hash policy that has one.
    pub hash_patterns: Vec<Option<regex::bytes::Regex>>,
    pub(crate) rewrite_pattern: Option<regex::bytes::Regex>,
    pub(crate) host_pattern: Option<regex::bytes::Regex>,
    path: Text,
    headers: Vec<Header>,
    query: Vec<Query>,
    cookies: Vec<Cookie>,
}

impl RouteTable {
    /// Compiles a configuration. Patterns were checked when it was decoded; one that does not compile matches nothing.
    #[must_use]
    pub fn compile(config: &RouteConfiguration) -> Self {
        let mut table = Self {
            name: config.name.clone(),
            request_headers: config.request_headers.clone(),
            response_headers: config.response_headers.clone(),
            hosts: Vec::with_capacity(config.virtual_hosts.len()),
            clusters: Vec::new(),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            default: None,
            ignore_port: config.ignore_port_in_host_matching,
            ignore_parameters: config.ignore_path_parameters,
            most_specific_edits_win: config.most_specific_edits_win,
            internal_only_headers: config.internal_only_headers.clone(),
            filters: filter::compile(&config.filters),
        };
        let mut numbers = HashMap::new();
        for host in &config.virtual_hosts {
            let index = table.hosts.len();
            for domain in &host.domains {
                table.index_domain(&domain.to_ascii_lowercase(), index);
            }
            let routes = host.routes.iter().map(|r| CompiledRoute::compile(r, host, config, &mut numbers)).collect();
            let index = RouteIndex::build(host.routes.iter().map(|r| &r.matches));
            table.hosts.push(CompiledHost {
                config: VirtualHost { routes: Vec::new(), ..host.clone() },
                filters: filter::compile(&host.filters),
                routes,
                index,
            });
        }
        let mut clusters: Vec<(String, usize)> = numbers.into_iter().collect();
        clusters.sort_by_key(|(_, number)| *number);
        table.clusters = clusters.into_iter().map(|(name, _)| name).collect();
        table.suffixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        table.prefixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        table
    }

    fn index_domain(&mut self, domain: &str, index: usize) {
        if domain == "*" {
            self.default = Some(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.push((suffix.to_owned(), index));
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.push((prefix.to_owned(), index));
        } else {
            self.exact.insert(domain.to_owned(), index);
        }
    }

    /// The virtual host of an authority.
    #[must_use]
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&CompiledHost> {
        self.virtual_host_by(authority).map(|(host, _)| host)
    }

    /// The same, with what kind of domain it has the authority by.
    #[must_use]
    pub fn virtual_host_by(&self, authority: &[u8]) -> Option<(&CompiledHost, HostMatch)> {
        let mut buffer = [0u8; 256];
        let name = lower(authority, &mut buffer)?;
        let name = if self.ignore_port { without_port(name) } else { name };
        let suffix = |s: &str| name.len() > s.len() && name.ends_with(s);
        let prefix = |p: &str| name.len() > p.len() && name.starts_with(p);
        let found = self.exact.get(name).map(|i| (*i, HostMatch::Exact));
        let found = found.or_else(|| longest(&self.suffixes, suffix).map(|i| (i, HostMatch::Suffix)));
        let found = found.or_else(|| longest(&self.prefixes, prefix).map(|i| (i, HostMatch::Prefix)));
        let (index, how) = found.or_else(|| self.default.map(|i| (i, HostMatch::Any)))?;
        Some((self.hosts.get(index)?, how))
    }

    /// The first route of a host that matches.
    #[must_use]
    pub fn route<'a>(
        &self,
        host: &'a CompiledHost,
        head: &RequestHead,
        around: Circumstances,
    ) -> Option<&'a CompiledRoute> {
        let path = self.matched_path(head);
        let matches = |route: &CompiledRoute| route.matches(head, path, around);
        match &host.index {
            None => host.routes.iter().find(|route| matches(route)),
            Some(index) => {
                let found = index.first(path, |position| host.routes.get(position).is_some_and(matches));
                found.and_then(|position| host.routes.get(position))
            }
        }
    }

    /// Returns the part of a request's path that is matched.
    #[must_use]
    pub fn matched_path<'a>(&self, head: &'a RequestHead) -> &'a [u8] {
        let path = head.path();
        match path.iter().position(|b| self.ignore_parameters && *b == b';') {
            Some(at) => path.get(..at).unwrap_or(path),
            None => path,
        }
    }

    /// Names of all clusters that routes lead to, by their number.
    #[must_use]
    pub fn clusters(&self) -> &[String] {
        &self.clusters
    }

    /// The counters of all filters in it.
    pub fn filter_counters(&self) -> impl Iterator<Item = FilterCounter> {
        fn of_route(route: &CompiledRoute) -> impl Iterator<Item = &Overrides> {
            std::iter::once(&route.filters).chain(&route.cluster_filters)
        }
        let hosts = self.hosts.iter();
        let hosts = hosts.flat_map(|h| std::iter::once(&h.filters).chain(h.routes.iter().flat_map(of_route)));
        std::iter::once(&self.filters).chain(hosts).flat_map(filter::counters)
    }

    /// Every host, for admin pages.
    #[must_use]
    pub fn hosts(&self) -> &[CompiledHost] {
        &self.hosts
    }
}

/// By what kind of domain a virtual host has an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostMatch {
    /// The name itself.
    Exact,
    /// `*.name`.
    Suffix,
    /// `name.*`.
    Prefix,
    /// `*`.
    Any,
}

/// The condition of a route that a request does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The path.
    Path,
    /// This header.
    Header(&'a str),
    /// This query parameter.
    Query(&'a str),
    /// This cookie.
    Cookie(&'a str),
    /// It is no gRPC call.
    Grpc,
    /// It is not in the share that was drawn.
    Share,
    /// The client's certificate.
    Certificate,
}

/// What a route may depend on, besides the head of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances {
    /// A draw, which decides routes for a share of requests.
    pub random: u64,
    /// What the client has shown.
    pub peer: Peer,
}

/// What a client has shown of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peer {
    /// Its connection is plain text.
    #[default]
    Plain,
    /// It has shown no certificate.
    Nameless,
    /// It has shown one that is not known to be trusted.
    Presented,
    /// It has shown a trusted one.
    Validated,
}

impl Peer {
    fn satisfies(self, CertificateMatch { presented, validated }: CertificateMatch) -> bool {
        presented.is_none_or(|wanted| wanted == matches!(self, Self::Presented | Self::Validated))
            && validated.is_none_or(|wanted| wanted == (self == Self::Validated))
    }
}

fn longest(list: &[(String, usize)], matches: impl Fn(&str) -> bool) -> Option<usize> {
    list.iter().find(|(text, _)| matches(text)).map(|(_, index)| *index)
}

/// ASCII lower case in a caller's buffer; `None` when it does not fit or is not UTF-8.
fn lower<'a>(text: &[u8], buffer: &'a mut [u8; 256]) -> Option<&'a str> {
    let target = buffer.get_mut(..text.len())?;
    target.copy_from_slice(text);
    target.make_ascii_lowercase();
    std::str::from_utf8(target).ok()
}

fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

impl CompiledRoute {
    fn compile(
        route: &Route,
        host: &VirtualHost,
        table: &RouteConfiguration,
        numbers: &mut HashMap<String, usize>,
    ) -> Self {
        let matches = &route.matches;
        let fold = !matches.case_sensitive;
        let path = match &matches.path {
            PathMatch::Exact(p) => Text::exact(p, fold),
            PathMatch::Prefix(p) => Text::prefix(p, fold),
            PathMatch::PathPrefix(p) => Text::path_prefix(p, fold),
            PathMatch::Regex(r) => Text::regex(r),
            PathMatch::Connect => Text::prefix("", false),
        };
        let forward = match &route.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        };
        let clusters = forward.map(|f| f.clusters.as_slice()).unwrap_or_default();
        let mut number = |name: &String| {
            let next = numbers.len();
            *numbers.entry(name.clone()).or_insert(next)
        };
        let own = forward.map(|f| f.mirrors.as_slice()).unwrap_or_default();
        let mirrors = [own, &host.mirrors, &table.mirrors].into_iter().find(|m| !m.is_empty()).unwrap_or_default();
        let compiled = |pattern: &str| regex::bytes::Regex::new(pattern).ok();
        Self {
            split: Split::new(clusters.iter().map(|c| c.weight)),
            filters: filter::compile(&route.filters),
            cluster_filters: clusters.iter().map(|c| filter::compile(&c.filters)).collect(),
            clusters: clusters.iter().map(|c| number(&c.name)).collect(),
            mirrors: mirrors.iter().map(|m| (m.clone(), number(&m.cluster))).collect(),
            hash_patterns: forward.map_or_else(Vec::new, |f| crate::hash::patterns(&f.hash)),
            retry: forward.and_then(|f| f.retry.clone()).or_else(|| host.retry.clone()),
            hedge: forward.and_then(|f| f.hedge).unwrap_or(host.hedge),
            rewrite_pattern: match (&route.action, forward.and_then(|f| f.path_rewrite.as_ref())) {
                (_, Some(PathRewrite::Regex(regex))) => compiled(&regex.pattern),
                (Action::Redirect(redirect), _) => match &redirect.path {
                    Some(RedirectPath::Regex(regex)) => compiled(&regex.pattern),
                    _ => None,
                },
                _ => None,
            },
            host_pattern: match forward.and_then(|f| f.host_rewrite.as_ref()) {
                Some(HostRewrite::PathRegex(regex)) => compiled(&regex.pattern),
                _ => None,
            },
            path,
            headers: matches.headers.iter().map(Header::compile).collect(),
            query: matches.query.iter().map(Query::compile).collect(),
            cookies: matches.cookies.iter().map(Cookie::compile).collect(),
            config: route.clone(),
        }
    }

    /// Returns true when a request matches; `path` is [what is matched](RouteTable::matched_path) of its path.
    #[must_use]
    pub fn matches(&self, head: &RequestHead, path: &[u8], around: Circumstances) -> bool {
        self.mismatch(head, path, around).is_none()
    }

    /// Returns the condition that a request does not meet; `None` when it matches.
    #[must_use]
    #[inline]
    pub fn mismatch(&self, head: &RequestHead, path: &[u8], around: Circumstances) -> Option<Mismatch<'_>> {
        // A CONNECT has no path that others could match.
        let is_connect = head.is_connect();
        if is_connect != matches!(self.config.matches.path, PathMatch::Connect) || !self.path.matches(path) {
            return Some(Mismatch::Path);
        }
        let header = self.headers.iter().find(|h| !h.matches(head)).map(|h| Mismatch::Header(h.name()));
        let query = || self.query.iter().find(|q| !q.matches(head.query())).map(|q| Mismatch::Query(q.name()));
        let cookie = || self.cookies.iter().find(|c| !c.matches(head)).map(|c| Mismatch::Cookie(c.name()));
        header
            .or_else(query)
            .or_else(cookie)
            .or_else(|| (self.config.matches.grpc && !is_grpc(head)).then_some(Mismatch::Grpc))
            .or_else(|| self.config.matches.share.is_some_and(|s| !drawn(s, around.random)).then_some(Mismatch::Share))
            .or_else(|| {
                self.config
                    .matches
                    .certificate
                    .is_some_and(|c| !around.peer.satisfies(c))
                    .then_some(Mismatch::Certificate)
            })
    }

    /// The number of bytes of a path that the match consumed, for prefix rewrites: a whole exact or regex path, or the prefix.
    #[must_use]
    pub fn matched_length(&self, path: &[u8]) -> usize {
        match &self.config.matches.path {
            PathMatch::Prefix(p) | PathMatch::PathPrefix(p) => p.len().min(path.len()),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
        }
    }
}

/// Returns true when a request is gRPC by its content type.
#[must_use]
pub fn is_grpc(head: &RequestHead) -> bool {
    head.fields.get("content-type").is_some_and(|v| {
        v.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}
