//! Compiled predicates on strings, headers and query parameters.

use serin_http1::{RequestHead, ResponseHead};
use serin_resources::matcher::{
    CookieMatcher, HeaderMatcher, HeaderPredicate, QueryMatcher, QueryPredicate, StringMatch, StringMatcher,
};

use crate::cookie;

/// A compiled predicate on bytes.
#[derive(Debug)]
pub(crate) enum Text {
    Exact(Vec<u8>, bool),
    Prefix(Vec<u8>, bool),
    PathPrefix(Vec<u8>, bool),
    Suffix(Vec<u8>, bool),
    Contains(Vec<u8>, bool),
    Regex(Option<regex::bytes::Regex>),
}

impl Text {
    pub(crate) fn exact(text: &str, fold: bool) -> Self {
        Self::Exact(text.as_bytes().to_vec(), fold)
    }

    pub(crate) fn prefix(text: &str, fold: bool) -> Self {
        Self::Prefix(text.as_bytes().to_vec(), fold)
    }

    pub(crate) fn path_prefix(text: &str, fold: bool) -> Self {
        Self::PathPrefix(text.as_bytes().to_vec(), fold)
    }

    pub(crate) fn regex(pattern: &str) -> Self {
        Self::Regex(full_match(pattern))
    }

    pub(crate) fn compile(matcher: &StringMatcher) -> Self {
        let fold = matcher.ignore_case;
        match &matcher.pattern {
            StringMatch::Exact(s) => Self::exact(s, fold),
            StringMatch::Prefix(s) => Self::prefix(s, fold),
            StringMatch::Suffix(s) => Self::Suffix(s.as_bytes().to_vec(), fold),
            StringMatch::Contains(s) => Self::Contains(s.as_bytes().to_vec(), fold),
            StringMatch::Regex(r) => Self::regex(r),
        }
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
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
pub(crate) struct Header {
    name: String,
    predicate: Predicate,
    invert: bool,
    missing_is_empty: bool,
}

impl Header {
    /// The name of the header.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn compile(matcher: &HeaderMatcher) -> Self {
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

    pub(crate) fn matches(&self, head: &RequestHead) -> bool {
        let pseudo = match self.name.as_str() {
            ":method" => head.method(),
            ":path" => head.target(),
            ":authority" | "host" => head.authority(),
            ":scheme" => head.scheme.as_str().as_bytes(),
            name => return self.accepts(head.fields.get_all(name)),
        };
        self.accepts(std::iter::once(pseudo))
    }

    /// Several values are looked at one by one: any may match, and an inverted matcher wants none that does.
    fn accepts<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut values = values.peekable();
        let there = values.peek().is_some();
        let outcome = match &self.predicate {
            Predicate::Present(wanted) => there == *wanted,
            Predicate::Text(text) if there => values.any(|v| text.matches(v)),
            Predicate::Text(text) if self.missing_is_empty => text.matches(b""),
            Predicate::Range(start, end) if there => values.any(|value| {
                let number = std::str::from_utf8(value).ok().and_then(|v| v.parse::<i64>().ok());
                number.is_some_and(|n| (*start..*end).contains(&n))
            }),
            Predicate::Text(_) | Predicate::Range(..) => return false,
        };
        outcome != self.invert
    }
}

/// Returns true when a request satisfies all of these; for matchers outside routes, which are rare enough to compile each time.
#[must_use]
pub fn matches_headers(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
    matchers.iter().all(|m| Header::compile(m).matches(head))
}

/// Returns true when bytes satisfy a matcher; for matchers outside routes, as above.
#[must_use]
pub fn text_matches(matcher: &StringMatcher, value: &[u8]) -> bool {
    Text::compile(matcher).matches(value)
}

/// Returns true when a response satisfies a matcher.
#[must_use]
pub fn matches_answer(matcher: &HeaderMatcher, head: &ResponseHead) -> bool {
    let compiled = Header::compile(matcher);
    match matcher.name.as_str() {
        ":status" => compiled.accepts(std::iter::once(head.status.to_string().as_bytes())),
        name => compiled.accepts(head.fields.get_all(name)),
    }
}

/// A compiled predicate on one query parameter.
#[derive(Debug)]
pub(crate) struct Query {
    name: String,
    predicate: Predicate,
}

impl Query {
    /// The name of the parameter.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn compile(matcher: &QueryMatcher) -> Self {
        let predicate = match &matcher.value {
            QueryPredicate::Present(present) => Predicate::Present(*present),
            QueryPredicate::Value(m) => Predicate::Text(Text::compile(m)),
        };
        Self { name: matcher.name.clone(), predicate }
    }

    /// Decides by the first parameter of that name; names and values are compared as they came, percent-encoded, as Envoy does.
    pub(crate) fn matches(&self, query: &[u8]) -> bool {
        let pairs = query.split(|b| *b == b'&').map(|pair| match pair.iter().position(|b| *b == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, &b""[..]),
        });
        let mut named = pairs.filter(|(name, _)| *name == self.name.as_bytes());
        match (named.next(), &self.predicate) {
            (found, Predicate::Present(wanted)) => found.is_some() == *wanted,
            (Some((_, value)), Predicate::Text(text)) => text.matches(value),
            (None, Predicate::Text(_)) | (_, Predicate::Range(..)) => false,
        }
    }
}

/// A compiled predicate on one cookie.
#[derive(Debug)]
pub(crate) struct Cookie {
    name: String,
    value: Text,
    invert: bool,
}

impl Cookie {
    /// The name of the cookie.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn compile(matcher: &CookieMatcher) -> Self {
        Self { name: matcher.name.clone(), value: Text::compile(&matcher.value), invert: matcher.invert }
    }

    pub(crate) fn matches(&self, head: &RequestHead) -> bool {
        let value = cookie::value(&head.fields, self.name.as_bytes());
        value.is_some_and(|v| self.value.matches(v)) != self.invert
    }
}

/// A pattern that must match a whole string.
fn full_match(pattern: &str) -> Option<regex::bytes::Regex> {
    regex::bytes::Regex::new(&format!("^(?:{pattern})$")).ok()
}
