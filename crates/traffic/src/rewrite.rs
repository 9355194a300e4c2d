//! The path and authority that go upstream.

use serin_http1::RequestHead;
use serin_resources::route::{HostRewrite, PathRewrite};

use crate::router::CompiledRoute;
use crate::substitute;

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
        PathRewrite::Regex(regex) => {
            substitute::all(route.rewrite_pattern.as_ref(), &regex.substitution, path).into_owned()
        }
    };
    new.extend_from_slice(query);
    Some(new)
}

/// The new authority, or `None` when it stays or is not known before an endpoint is chosen.
#[must_use]
pub fn authority(rewrite: &HostRewrite, route: &CompiledRoute, head: &RequestHead) -> Option<Vec<u8>> {
    match rewrite {
        HostRewrite::Literal(host) => Some(host.as_bytes().to_vec()),
        HostRewrite::Auto => None,
        HostRewrite::Header(name) => head.fields.get(name).filter(|v| !v.is_empty()).map(<[u8]>::to_vec),
        HostRewrite::PathRegex(regex) => {
            let new = substitute::all(route.host_pattern.as_ref(), &regex.substitution, head.path()).into_owned();
            (!new.is_empty()).then_some(new)
        }
    }
}
