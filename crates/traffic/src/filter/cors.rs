//! Responses to browsers that ask for another site (`envoy.filters.http.cors`; Fetch standard, "CORS protocol").

use serin_http1::{HeaderBlock, RequestHead};
use serin_resources::http_filter::Cors;

use super::{Link, Overrides};
use crate::predicate::text_matches;

/// The policy that holds for a request: each setting by the most specific level that says something about it.
#[must_use]
pub fn policy(link: &Link, overrides: &[&Overrides]) -> Option<Cors> {
    let mut levels = link.levels::<Cors>(overrides);
    let mut policy = levels.next()?.clone();
    for level in levels {
        policy.inherit(level);
    }
    Some(policy)
}

/// The result of the check of a request's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// It goes on.
    Go,
    /// It is answered: its origin may, or nothing is said about that.
    Answer {
        /// True when it may.
        allowed: bool,
    },
}

/// The request's origin, and whether it is one of those that may.
#[must_use]
pub fn origin_allowed<'a>(config: &Cors, head: &'a RequestHead) -> Option<(&'a [u8], bool)> {
    let origin = head.fields.get("origin").filter(|o| !o.is_empty())?;
    let any = |m| matches!(m, serin_resources::matcher::StringMatch::Exact(text) if text == "*");
    let allowed = config.origins.iter().any(|m| any(m.pattern.clone()) || text_matches(m, origin));
    Some((origin, allowed))
}

/// Decides about a request from an origin that is allowed, or is not.
#[must_use]
pub fn preflight(config: &Cors, head: &RequestHead, allowed: bool) -> Preflight {
    let asks =
        head.method() == b"OPTIONS" && head.fields.get("access-control-request-method").is_some_and(|m| !m.is_empty());
    match (asks, allowed) {
        (true, true) => Preflight::Answer { allowed: true },
        (true, false) if config.forward_others == Some(false) => Preflight::Answer { allowed: false },
        _ => Preflight::Go,
    }
}

/// Puts into a response what the origin is allowed.
pub fn answer_headers(config: &Cors, origin: &[u8], fields: &mut HeaderBlock) {
    fields.set("access-control-allow-origin", origin);
    if config.credentials == Some(true) {
        fields.set("access-control-allow-credentials", b"true");
    }
    if !config.expose.is_empty() {
        fields.set("access-control-expose-headers", config.expose.as_bytes());
    }
}

/// Puts into the response to a preflight what may be asked for.
pub fn preflight_headers(config: &Cors, asked: &RequestHead, fields: &mut HeaderBlock) {
    let private = config.private_network == Some(true)
        && asked.fields.get("access-control-request-private-network") == Some(b"true");
    for (name, value) in [
        ("access-control-allow-credentials", if config.credentials == Some(true) { "true" } else { "" }),
        ("access-control-allow-methods", config.methods.as_str()),
        ("access-control-allow-headers", &config.headers),
        ("access-control-max-age", &config.max_age),
        ("access-control-allow-private-network", if private { "true" } else { "" }),
    ] {
        if !value.is_empty() {
            fields.set(name, value.as_bytes());
        }
    }
}
