//! The path and authority that go upstream.

use std::borrow::Cow;

use regex::bytes::Regex;
use serin_http1::RequestHead;
use serin_resources::route::{HostRewrite, PathRewrite};

use crate::router::CompiledRoute;

/// The new target, or `None` when it stays.
#[must_use]
pub fn target(route: &CompiledRoute, rewrite: &PathRewrite, head: &RequestHead) -> Option<Vec<u8>> {
    let path = head.path();
    let query = head.target().get(path.len()..).unwrap_or_default();
    let mut new = match rewrite {
        PathRewrite::Prefix(replacement) => {
            let rest = path.get(route.matched_length(path)..).unwrap_or_default();
            [replacement.as_bytes(), rest].concat()
        }
        PathRewrite::Regex(regex) => substitute(route.rewrite_pattern.as_ref(), &regex.substitution, path).into_owned(),
    };
    new.extend_from_slice(query);
    Some(new)
}

/// The text with every match of the pattern replaced; the substitution is RE2's.
#[must_use]
pub fn substitute<'a>(pattern: Option<&Regex>, substitution: &str, text: &'a [u8]) -> Cow<'a, [u8]> {
    match pattern {
        Some(pattern) => pattern.replace_all(text, dollar(substitution).as_bytes()),
        None => Cow::Borrowed(text),
    }
}

/// RE2's `\1` as the regex crate's `${1}`.
fn dollar(substitution: &str) -> String {
    let mut out = String::with_capacity(substitution.len() + 4);
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            ('$', _) => out.push_str("$$"),
            (other, _) => out.push(other),
        }
    }
    out
}

/// The new authority, or `None` when it stays or is not known before an endpoint is chosen.
#[must_use]
pub fn authority(rewrite: &HostRewrite, route: &CompiledRoute, head: &RequestHead) -> Option<Vec<u8>> {
    match rewrite {
        HostRewrite::Literal(host) => Some(host.as_bytes().to_vec()),
        HostRewrite::Auto => None,
        HostRewrite::Header(name) => head.fields.get(name).filter(|v| !v.is_empty()).map(<[u8]>::to_vec),
        HostRewrite::PathRegex(regex) => {
            let new = substitute(route.host_pattern.as_ref(), &regex.substitution, head.path()).into_owned();
            (!new.is_empty()).then_some(new)
        }
    }
}
