//! Internal redirects: an upstream's redirect that is followed here instead of being passed on.
//! Source: Envoy, "HTTP connection management", internal redirects; `Filter::convertRequestHeadersForInternalRedirect`.

use serin_http1::framing::Framing;
use serin_http1::{RequestHead, Scheme};
use serin_resources::route::RedirectPredicate;
use serin_traffic::outcome::Outcome;

use super::filters::RequestParts;
use super::stage::Forwarded;
use crate::metric::{self, http};

/// The internal redirects of one request.
#[derive(Default)]
pub(super) struct Redirects {
    /// True when the client's connection is one of TLS.
    is_secure: bool,
    followed: u32,
    /// The names of routes between which redirects were followed.
    between: Vec<(String, String)>,
}

impl Redirects {
    pub(super) fn new(is_secure: bool) -> Self {
        Self { is_secure, ..Self::default() }
    }

    /// Changes the request to the target of the response's redirect, if its route follows it; false when it does not. `from` is the
    /// name of its route, `target` finds that of a changed request.
    pub(super) fn follow(
        &mut self,
        forwarded: &Forwarded<'_>,
        from: &str,
        target: impl Fn(&RequestHead) -> Option<String>,
        request: &mut RequestParts<'_, '_>,
    ) -> bool {
        let RequestParts { head, body, framing, record } = request;
        let Some(policy) = forwarded.redirects else { return false };
        let answer = &forwarded.answer;
        if !policy.statuses.contains(&answer.head.status) {
            return false;
        }
        let stats = &forwarded.cluster.state.stats;
        let worker = forwarded.answer.in_flight.worker();
        let fail = |reason: Option<usize>| {
            reason.into_iter().for_each(|reason| record.count(reason));
            stats.add(worker, metric::cluster::REDIRECT_FAILED, 1);
            false
        };
        if !answer.request_done || !body.is_repeatable() {
            return fail(None);
        }
        let Some((scheme, authority, path)) = answer.head.fields.get("location").and_then(split) else {
            return fail(Some(http::REDIRECT_BAD_LOCATION));
        };
        // A plain-text connection is one of http, whatever the request says (Envoy: `schemeIsHttp`).
        let own_is_http = head.scheme == Scheme::Http || !self.is_secure;
        let is_http = scheme.eq_ignore_ascii_case(b"http");
        if !policy.cross_scheme && own_is_http != is_http {
            return fail(Some(http::REDIRECT_UNSAFE_SCHEME));
        }
        if self.followed >= policy.most {
            return fail(Some(http::REDIRECT_TOO_MANY));
        }
        let mut candidate = head.clone();
        candidate.fields.set("host", authority);
        candidate.set_target(path);
        let Some(to) = target(&candidate) else { return fail(Some(http::REDIRECT_NO_ROUTE)) };
        let is_accepted = policy.predicates.iter().all(|predicate| match predicate {
            RedirectPredicate::NotPrevious => !self.between.iter().any(|(a, b)| a == from && *b == to),
            RedirectPredicate::Allowed(names) => names.contains(&to),
            RedirectPredicate::SafeScheme => !own_is_http || is_http,
        });
        if !is_accepted {
            return fail(Some(http::REDIRECT_PREDICATE));
        }
        if policy.predicates.contains(&RedirectPredicate::NotPrevious) {
            self.between.push((from.to_owned(), to));
        }
        let status = answer.head.status;
        answer.in_flight.outcome(Outcome::Response { status, grpc: None });
        record.follows(status);
        let original = [head.scheme.as_str().as_bytes(), b"://", head.authority(), head.target()];
        let original = original.concat();
        head.fields.set("x-envoy-original-url", &original);
        for name in &policy.copy_headers {
            match answer.head.fields.get(name) {
                Some(value) => head.fields.set(name, value),
                None => _ = head.fields.remove(name),
            }
        }
        head.fields.set("host", authority);
        head.scheme = Scheme::of(scheme);
        head.set_target(path);
        if status == 303 && !matches!(head.method(), b"GET" | b"HEAD") {
            head.set_method(b"GET");
            head.fields.remove("content-length");
            body.drop_all();
            **framing = Framing::Empty;
        }
        self.followed += 1;
        stats.add(worker, metric::cluster::REDIRECT_SUCCEEDED, 1);
        body.rewind();
        true
    }
}

/// Scheme, authority and path with query of an absolute URL.
fn split(url: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let at = url.windows(3).position(|w| w == b"://")?;
    let (scheme, rest) = (url.get(..at)?, url.get(at + 3..)?);
    let rest = rest.split(|b| *b == b'#').next()?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    let known = !scheme.is_empty() && scheme.iter().all(u8::is_ascii_alphabetic);
    let target = if target.is_empty() { b"/" } else { target };
    (known && !authority.is_empty()).then_some((scheme, authority, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_urls_are_followed() {
        let parts = |url: &'static str| {
            let text = |bytes: &'static [u8]| std::str::from_utf8(bytes).unwrap();
            split(url.as_bytes()).map(|(scheme, authority, target)| (text(scheme), text(authority), text(target)))
        };
        assert_eq!(parts("http://a.example/x?y=1#part"), Some(("http", "a.example", "/x?y=1")));
        assert_eq!(parts("HTTPS://a.example:8443"), Some(("HTTPS", "a.example:8443", "/")));
        assert_eq!(parts("http://a?b"), Some(("http", "a", "?b")));
        for url in ["/relative", "://a/", "http:///path", "http://#x", "//a/b", ""] {
            assert_eq!(parts(url), None, "{url}");
        }
    }
}
