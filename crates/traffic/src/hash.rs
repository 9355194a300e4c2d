//! A request's hash: what keeps a user with one endpoint, or one version.
//!
//! Source: Envoy `HashPolicyImpl::generateHash`: every value is hashed by xxHash64, and mixed with what came before, rotated
//! left by one. The same request has the same hash in every worker, in every proxy and in Envoy.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use regex::bytes::Regex;
use serin_http1::RequestHead;
use serin_resources::route::{HashCookie, HashPolicy, HashSource};
use xxhash_rust::xxh64::xxh64;

use crate::cookie;
use crate::substitute;

/// The connection of a request.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The client.
    pub peer: SocketAddr,
    /// The local address of the connection.
    pub local: Option<SocketAddr>,
}

/// The hash of a source (Envoy: `HashPolicyImpl`, `SourceIpHashMethod`).
#[must_use]
pub fn of_source(address: IpAddr) -> u64 {
    xxh64(address.to_string().as_bytes(), 0)
}

/// A request's hash.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// The hash, when any policy found a value.
    pub value: Option<u64>,
    /// Values of `set-cookie` to issue.
    pub cookies: Vec<String>,
}

/// The compiled pattern of every policy that has one; patterns were checked when they were decoded.
#[must_use]
pub fn patterns(policies: &[HashPolicy]) -> Vec<Option<Regex>> {
    let pattern = |policy: &HashPolicy| match &policy.source {
        HashSource::Header(_, Some(regex)) => Regex::new(&regex.pattern).ok(),
        _ => None,
    };
    policies.iter().map(pattern).collect()
}

/// Hashes a request; `rewrites` holds the compiled pattern of every policy that has one.
#[must_use]
pub fn of(
    policies: &[HashPolicy],
    rewrites: &[Option<Regex>],
    head: &RequestHead,
    client: (IpAddr, Connection),
) -> Hashed {
    let mut hashed = Hashed::default();
    for (policy, rewrite) in policies.iter().zip(rewrites) {
        let found = match &policy.source {
            HashSource::Header(name, regex) => {
                let substitution = regex.as_ref().map(|r| r.substitution.as_str());
                header(head, name, rewrite.as_ref().zip(substitution))
            }
            HashSource::Cookie(wanted) => cookie(head, wanted, client.1, &mut hashed.cookies),
            HashSource::SourceIp => Some(of_source(client.0)),
            HashSource::Query(name) => query(head.query(), name.as_bytes()),
        };
        if let Some(found) = found {
            let before = hashed.value.map_or(0, |v: u64| v.rotate_left(1));
            hashed.value = Some(before ^ found);
            if policy.terminal {
                break;
            }
        }
    }
    hashed
}

fn header(head: &RequestHead, name: &str, rewrite: Option<(&Regex, &str)>) -> Option<u64> {
    let pseudo = match name {
        ":path" => Some(head.target()),
        ":method" => Some(head.method()),
        ":authority" => Some(head.authority()),
        _ => None,
    };
    let mut values: Vec<&[u8]> = match pseudo {
        Some(value) => vec![value],
        None => head.fields.get_all(name).collect(),
    };
    values.sort_unstable();
    let substituted = |value| match rewrite {
        Some((pattern, substitution)) => substitute::all(Some(pattern), substitution, value),
        None => value.into(),
    };
    // Several values are chained, in an order of their own: each one's hash is the seed of the next.
    values.iter().fold(None, |seed, value| Some(xxh64(&substituted(value), seed.unwrap_or(0))))
}

fn cookie(head: &RequestHead, wanted: &HashCookie, connection: Connection, issue: &mut Vec<String>) -> Option<u64> {
    if let Some(value) = cookie::value(&head.fields, wanted.name.as_bytes()).filter(|v| !v.is_empty()) {
        return Some(xxh64(value, 0));
    }
    let ttl = wanted.ttl?;
    let local = connection.local.map(|a| a.to_string()).unwrap_or_default();
    let value = format!("{:016x}", xxh64(format!("{}{local}", connection.peer).as_bytes(), 0));
    let mut text = format!("{}=\"{value}\"", wanted.name);
    if !ttl.is_zero() {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs());
    }
    if !wanted.path.is_empty() {
        let _ = write!(text, "; Path={}", wanted.path);
    }
    for (name, value) in &wanted.attributes {
        let _ = if value.is_empty() { write!(text, "; {name}") } else { write!(text, "; {name}={value}") };
    }
    text.push_str("; HttpOnly");
    issue.push(text);
    Some(xxh64(value.as_bytes(), 0))
}

fn query(query: &[u8], name: &[u8]) -> Option<u64> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=');
        let (key, value) = match at {
            Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
            None => (pair, &b""[..]),
        };
        (key == name).then(|| xxh64(value, 0))
    })
}
