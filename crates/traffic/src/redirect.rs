//! The location of a redirect. Source: Envoy `RedirectAction`, `RouteEntryImplBase::newUri`.

use serin_http1::RequestHead;
use serin_resources::route::{Redirect, RedirectPath};

use crate::router::CompiledRoute;
use crate::substitute;

/// The `location` value for a request that came by `scheme`.
#[must_use]
pub fn location(redirect: &Redirect, route: &CompiledRoute, head: &RequestHead, scheme: &str) -> Vec<u8> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let mut out = format!("{new_scheme}://").into_bytes();
    match &redirect.host {
        Some(new) => out.extend_from_slice(new.as_bytes()),
        None => out.extend_from_slice(own_host(redirect, head, scheme, new_scheme)),
    }
    if let Some(port) = redirect.port {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    let path = head.path();
    let query = head.target().get(path.len()..).unwrap_or_default();
    let own_query = matches!(&redirect.path, Some(RedirectPath::Full(p)) if p.contains('?'));
    match &redirect.path {
        Some(RedirectPath::Full(new)) => {
            if !new.starts_with('/') {
                out.push(b'/');
            }
            out.extend_from_slice(new.as_bytes());
        }
        Some(RedirectPath::Prefix(new)) => {
            out.extend_from_slice(new.as_bytes());
            out.extend_from_slice(path.get(route.matched_length(path)..).unwrap_or_default());
        }
        Some(RedirectPath::Regex(regex)) => {
            out.extend_from_slice(&substitute::all(route.rewrite_pattern.as_ref(), &regex.substitution, path));
        }
        None => out.extend_from_slice(path),
    }
    if !redirect.strip_query && !own_query {
        out.extend_from_slice(query);
    }
    out
}

/// The request's own authority, without a port that the new scheme or port makes wrong.
fn own_host<'a>(redirect: &Redirect, head: &'a RequestHead, old: &str, new: &str) -> &'a [u8] {
    let authority = head.authority();
    let end = if authority.starts_with(b"[") {
        authority.windows(2).rposition(|w| w == b"]:").map(|at| at + 1)
    } else {
        authority.iter().rposition(|b| *b == b':')
    };
    let Some((host, port)) = end.and_then(|at| authority.split_at_checked(at)) else { return authority };
    let stale = old != new && matches!((old, port), ("https", b":443") | ("http", b":80"));
    if redirect.port.is_some() || stale { host } else { authority }
}

/// The URI of a request itself.
#[must_use]
pub fn own_uri(head: &RequestHead, scheme: &str) -> Vec<u8> {
    [scheme.as_bytes(), b"://", head.authority(), head.target()].concat()
}
