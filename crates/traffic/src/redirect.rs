//! The location of a redirect (Envoy `RedirectAction`).

use serin_http1::RequestHead;
use serin_resources::route::{Redirect, RedirectPath};

use crate::router::CompiledRoute;

/// The `location` value for a request that came by `scheme`.
#[must_use]
pub fn location(redirect: &Redirect, route: &CompiledRoute, head: &RequestHead, scheme: &str) -> Vec<u8> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let mut out = format!("{new_scheme}://").into_bytes();
    let authority = head.authority();
    let (host, port) = split_port(authority);
    match &redirect.host {
        Some(new) => out.extend_from_slice(new.as_bytes()),
        None => out.extend_from_slice(host),
    }
    let default = |port: &[u8]| matches!((new_scheme, port), ("http", b"80") | ("https", b"443"));
    match redirect.port {
        Some(new) if !default(new.to_string().as_bytes()) => out.extend_from_slice(format!(":{new}").as_bytes()),
        Some(_) => {}
        None if redirect.host.is_none() && redirect.scheme.is_none() => {
            if let Some(port) = port {
                out.push(b':');
                out.extend_from_slice(port);
            }
        }
        None => {}
    }
    let path = head.path();
    match &redirect.path {
        Some(RedirectPath::Full(new)) => out.extend_from_slice(new.as_bytes()),
        Some(RedirectPath::Prefix(new)) => {
            out.extend_from_slice(new.as_bytes());
            out.extend_from_slice(path.get(route.matched_length(path)..).unwrap_or_default());
        }
        None => out.extend_from_slice(path),
    }
    let own_query = matches!(&redirect.path, Some(RedirectPath::Full(p)) if p.contains('?'));
    if !redirect.strip_query && !own_query {
        out.extend_from_slice(head.target().get(path.len()..).unwrap_or_default());
    }
    out
}

fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match authority.iter().rposition(|b| *b == b':') {
        Some(at) if authority.get(at + 1..).is_some_and(|p| p.iter().all(u8::is_ascii_digit)) => {
            (authority.get(..at).unwrap_or_default(), authority.get(at + 1..))
        }
        _ => (authority, None),
    }
}
