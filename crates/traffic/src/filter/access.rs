//! Decides who may send requests: rbac and csrf.

use std::net::{IpAddr, SocketAddr};

use serin_http1::RequestHead;
use serin_resources::http_filter::{Csrf, Rbac, RbacAction, RbacPolicy, RbacRule, RbacRules};

use super::FilterState;
use serin_resources::matcher::StringMatcher;

use crate::predicate::{matches_headers, text_matches};

/// The sender of a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// This end.
    pub local: Option<SocketAddr>,
    /// The address of the client, as far as earlier proxies are trusted.
    pub client: IpAddr,
    /// The names of its certificate, when it came over TLS.
    pub names: Option<CertificateNames<'a>>,
    /// The server that its TLS asked for, where somebody has looked.
    pub server_name: Option<&'a str>,
}

/// The names of a client's certificate; all are empty for one that showed none.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateNames<'a> {
    /// URIs.
    pub uris: &'a [String],
    /// Host names.
    pub dns: &'a [String],
    /// The subject.
    pub subject: &'a str,
}

impl CertificateNames<'_> {
    /// Returns true when a URI has that name, or else a host name, or else the subject (Envoy: `AuthenticatedMatcher`).
    fn satisfy(&self, matcher: &StringMatcher) -> bool {
        let any = |names: &[String]| names.iter().any(|name| text_matches(matcher, name.as_bytes()));
        any(self.uris) || any(self.dns) || text_matches(matcher, self.subject.as_bytes())
    }
}

/// Rules that decide.
#[derive(Debug)]
pub struct RbacGate {
    /// Its configuration.
    pub config: Rbac,
}

impl FilterState for RbacGate {
    type Config = Rbac;

    fn new(config: &Rbac) -> Self {
        Self { config: config.clone() }
    }
}

impl RbacGate {
    /// Returns true when a request may come in; `head` is absent for a connection.
    #[must_use]
    pub fn lets_in(&self, caller: &Caller<'_>, head: Option<&RequestHead>) -> bool {
        self.config.rules.as_ref().is_none_or(|rules| allowed(rules, caller, head))
    }

    /// The decision of the shadow rules, when there are any.
    #[must_use]
    pub fn would_let_in(&self, caller: &Caller<'_>, head: Option<&RequestHead>) -> Option<bool> {
        self.config.shadow.as_ref().map(|rules| allowed(rules, caller, head))
    }
}

impl RbacGate {
    /// Returns the name of the policy because of which a request is denied; `None` when it is denied because none fits.
    #[must_use]
    pub fn denied_by(&self, caller: &Caller<'_>, head: Option<&RequestHead>) -> Option<&str> {
        let rules = self.config.rules.as_ref().filter(|rules| rules.action == RbacAction::Deny)?;
        let policy = rules.policies.iter().find(|(_, policy)| fits(policy, caller, head));
        policy.map(|(name, _)| name.as_str())
    }
}

fn allowed(rules: &RbacRules, caller: &Caller<'_>, head: Option<&RequestHead>) -> bool {
    let any = rules.policies.iter().any(|(_, policy)| fits(policy, caller, head));
    match rules.action {
        RbacAction::Allow => any,
        RbacAction::Deny => !any,
        RbacAction::Log => true,
    }
}

fn fits(policy: &RbacPolicy, caller: &Caller<'_>, head: Option<&RequestHead>) -> bool {
    let any = |rules: &[RbacRule]| rules.iter().any(|r| holds(r, caller, head));
    any(&policy.permissions) && any(&policy.principals)
}

fn holds(rule: &RbacRule, caller: &Caller<'_>, head: Option<&RequestHead>) -> bool {
    match rule {
        RbacRule::Any => true,
        RbacRule::And(rules) => rules.iter().all(|r| holds(r, caller, head)),
        RbacRule::Or(rules) => rules.iter().any(|r| holds(r, caller, head)),
        RbacRule::Not(rule) => !holds(rule, caller, head),
        RbacRule::Header(matcher) => head.is_some_and(|h| matches_headers(std::slice::from_ref(matcher), h)),
        RbacRule::Path(matcher) => head.is_some_and(|h| text_matches(matcher, h.path())),
        RbacRule::LocalIp(network) => caller.local.is_some_and(|l| network.contains(l.ip())),
        RbacRule::LocalPort(start, end) => {
            caller.local.is_some_and(|l| l.port() >= *start && u32::from(l.port()) < *end)
        }
        RbacRule::Peer(network) => network.contains(caller.peer.ip()),
        RbacRule::Client(network) => network.contains(caller.client),
        RbacRule::ServerName(matcher) => text_matches(matcher, caller.server_name.unwrap_or_default().as_bytes()),
        RbacRule::Authenticated(None) => caller.names.is_some(),
        RbacRule::Authenticated(Some(matcher)) => caller.names.is_some_and(|names| names.satisfy(matcher)),
    }
}

/// Returns true when a request that changes something comes from another site, or does not say from where.
#[must_use]
pub fn is_foreign(config: &Csrf, head: &RequestHead) -> bool {
    if !matches!(head.method(), b"POST" | b"PUT" | b"DELETE" | b"PATCH") {
        return false;
    }
    let from = |name| head.fields.get(name).and_then(host_and_port);
    let Some(source) = from("origin").or_else(|| from("referer")) else { return true };
    source != head.authority() && !config.origins.iter().any(|m| text_matches(m, source))
}

/// Host and port of an absolute URL.
fn host_and_port(url: &[u8]) -> Option<&[u8]> {
    let at = url.windows(3).position(|w| w == b"://")?;
    let rest = url.get(at + 3..)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.get(..end).filter(|host| !host.is_empty())
}
