//! What must hold of requests, in a proxy's terms.

use serin_model::{HttpMatch, StringMatch};
use serin_resources::matcher::{
    HeaderMatcher, HeaderPredicate, QueryMatcher, QueryPredicate, StringMatch as Pattern, StringMatcher,
};
use serin_resources::route::{PathMatch, RouteMatch};

pub(crate) fn route_match(condition: &HttpMatch) -> RouteMatch {
    let path = match &condition.uri {
        None | Some(StringMatch::Present) => PathMatch::Prefix("/".to_owned()),
        Some(StringMatch::Exact(p)) => PathMatch::Exact(p.clone()),
        Some(StringMatch::Prefix(p)) => PathMatch::Prefix(p.clone()),
        Some(StringMatch::Regex(r)) => PathMatch::Regex(r.clone()),
    };
    let mut headers: Vec<HeaderMatcher> = Vec::new();
    for (name, value) in
        [(":method", &condition.method), (":authority", &condition.authority), (":scheme", &condition.scheme)]
    {
        headers.extend(value.as_ref().map(|v| header_match(name, v, false)));
    }
    headers.extend(condition.headers.iter().map(|(name, value)| header_match(name, value, false)));
    headers.extend(condition.without_headers.iter().map(|(name, value)| header_match(name, value, true)));
    let query = condition.query.iter().map(|(name, value)| QueryMatcher {
        name: name.clone(),
        value: pattern(value).map_or(QueryPredicate::Present(true), QueryPredicate::Value),
    });
    RouteMatch {
        path,
        case_sensitive: !condition.ignore_uri_case,
        headers,
        query: query.collect(),
        cookies: Vec::new(),
        grpc: false,
        certificate: None,
        share: None,
    }
}

fn header_match(name: &str, value: &StringMatch, invert: bool) -> HeaderMatcher {
    let predicate = pattern(value).map_or(HeaderPredicate::Present(true), HeaderPredicate::Value);
    let missing_is_empty = invert && predicate != HeaderPredicate::Present(true);
    HeaderMatcher { name: name.to_owned(), predicate, invert, missing_is_empty }
}

fn pattern(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value {
        StringMatch::Exact(s) => Pattern::Exact(s.clone()),
        StringMatch::Prefix(s) if s.is_empty() => return None,
        StringMatch::Prefix(s) => Pattern::Prefix(s.clone()),
        StringMatch::Regex(s) => Pattern::Regex(s.clone()),
        StringMatch::Present => return None,
    };
    Some(StringMatcher::new(pattern))
}
