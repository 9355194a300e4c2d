//! Compiled predicates on strings, headers and query parameters.

use std::borrow::Cow;

use serin_http1::RequestHead;
use serin_resources::matcher::{HeaderMatcher, HeaderPredicate, QueryMatcher, StringMatch, StringMatcher};

use super::full_match;

/// A compiled predicate on bytes.
#[derive(Debug)]
pub(super) enum Text {
    Exact(Vec<u8>, bool),
    Prefix(Vec<u8>, bool),
    PathPrefix(Vec<u8>, bool),
    Suffix(Vec<u8>, bool),
    Contains(Vec<u8>, bool),
    Regex(Option<regex::bytes::Regex>),
}

impl Text {
    pub(super) fn exact(text: &str, fold: bool) -> Self {
        Self::Exact(text.as_bytes().to_vec(), fold)
    }

    pub(super) fn prefix(text: &str, fold: bool) -> Self {
        Self::Prefix(text.as_bytes().to_vec(), fold)
    }

    pub(super) fn path_prefix(text: &str, fold: bool) -> Self {
        Self::PathPrefix(text.as_bytes().to_vec(), fold)
    }

    pub(super) fn regex(pattern: &str) -> Self {
        Self::Regex(full_match(pattern))
    }

    fn compile(matcher: &StringMatcher) -> Self {
        let fold = matcher.ignore_case;
        match &matcher.pattern {
            StringMatch::Exact(s) => Self::exact(s, fold),
            StringMatch::Prefix(s) => Self::prefix(s, fold),
            StringMatch::Suffix(s) => Self::Suffix(s.as_bytes().to_vec(), fold),
            StringMatch::Contains(s) => Self::Contains(s.as_bytes().to_vec(), fold),
            StringMatch::Regex(r) => Self::regex(r),
        }
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        let starts = |text: &[u8], fold: bool| value.get(..text.len()).is_some_and(|v| same(v, text, fold));
        match self {
            Self::Exact(text, fold) => same(value, text, *fold),
            Self::Prefix(text, fold) => starts(text, *fold),
            Self::PathPrefix(text, fold) => starts(text, *fold) && matches!(value.get(text.len()), None | Some(b'/')),
            Self::Suffix(text, fold) => {
                value.len().checked_sub(text.len()).and_then(|at| value.get(at..)).is_some_and(|v| same(v, text, *fold))
            }
            Self::Contains(text, _) if text.is_empty() => true,
            Self::Contains(text, fold) => value.windows(text.len()).any(|w| same(w, text, *fold)),
            Self::Regex(regex) => regex.as_ref().is_some_and(|r| r.is_match(value)),
        }
    }
}

fn same(a: &[u8], b: &[u8], fold: bool) -> bool {
    if fold { a.eq_ignore_ascii_case(b) } else { a == b }
}

#[derive(Debug)]
enum Predicate {
    Present(bool),
    Text(Text),
    Range(i64, i64),
}

/// A compiled predicate on one header.
#[derive(Debug)]
pub(super) struct Header {
    name: String,
    predicate: Predicate,
    invert: bool,
    missing_is_empty: bool,
}

impl Header {
    pub(super) fn compile(matcher: &HeaderMatcher) -> Self {
        let predicate = match &matcher.predicate {
            HeaderPredicate::Present(present) => Predicate::Present(*present),
            HeaderPredicate::Value(m) => Predicate::Text(Text::compile(m)),
            HeaderPredicate::Range(start, end) => Predicate::Range(*start, *end),
        };
        Self {
            name: matcher.name.clone(),
            predicate,
            invert: matcher.invert,
            missing_is_empty: matcher.missing_is_empty,
        }
    }

    pub(super) fn matches(&self, head: &RequestHead) -> bool {
        let value = header_value(head, &self.name);
        let outcome = match (&self.predicate, value) {
            (Predicate::Present(wanted), value) => value.is_some() == *wanted,
            (Predicate::Text(text), Some(value)) => text.matches(&value),
            (Predicate::Text(text), None) if self.missing_is_empty => text.matches(b""),
            (Predicate::Range(start, end), Some(value)) => {
                let number = std::str::from_utf8(&value).ok().and_then(|v| v.parse::<i64>().ok());
                number.is_some_and(|n| (*start..*end).contains(&n))
            }
            (Predicate::Text(_) | Predicate::Range(..), None) => return false,
        };
        outcome != self.invert
    }
}

/// Whether a request satisfies all of these; for matchers outside routes, which are rare enough to compile each time.
#[must_use]
pub fn matches_headers(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
    matchers.iter().all(|m| Header::compile(m).matches(head))
}

/// The value of a header or pseudo-header; several values are joined by commas, as Envoy matches them.
fn header_value<'a>(head: &'a RequestHead, name: &'a str) -> Option<Cow<'a, [u8]>> {
    match name {
        ":method" => return Some(head.method().into()),
        ":path" => return Some(head.target().into()),
        ":authority" | "host" => return head.fields.get("host").map(Cow::Borrowed),
        ":scheme" => return Some(head.fields.get("x-forwarded-proto").unwrap_or(b"http").into()),
        _ => {}
    }
    let mut values = head.fields.get_all(name);
    let first = values.next()?;
    match values.next() {
        None => Some(first.into()),
        Some(second) => {
            let mut joined = [first, second].join(&b","[..]);
            for value in values {
                joined.push(b',');
                joined.extend_from_slice(value);
            }
            Some(joined.into())
        }
    }
}

/// A compiled predicate on one query parameter.
#[derive(Debug)]
pub(super) struct Query {
    name: String,
    value: Option<Text>,
}

impl Query {
    pub(super) fn compile(matcher: &QueryMatcher) -> Self {
        Self { name: matcher.name.clone(), value: matcher.value.as_ref().map(Text::compile) }
    }

    /// Decides by the first parameter of that name; names and values are compared as they came, percent-encoded, as Envoy does.
    pub(super) fn matches(&self, query: &[u8]) -> bool {
        let pairs = query.split(|b| *b == b'&').map(|pair| match pair.iter().position(|b| *b == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, &b""[..]),
        });
        let mut named = pairs.filter(|(name, _)| *name == self.name.as_bytes());
        match (named.next(), &self.value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((_, value)), Some(text)) => text.matches(value),
        }
    }
}
