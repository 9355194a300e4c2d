//! Retry and fault policies of the model as a proxy carries them out.

use std::time::Duration;

use serin_model::{self as model, MeshSnapshot};
use serin_resources::header::{AppendAction, HeaderEdits, HeaderValue};
use serin_resources::http_filter::{Abort, AbortStatus, Cors, Delay, Fault};
use serin_resources::matcher::{StringMatch, StringMatcher};
use serin_resources::retry::{RetryOn, RetryPolicy};
use serin_resources::route::{HashCookie, HashPolicy, HashSource};

/// What Istio's pilot asks for when a rule says nothing: two more tries, only where the request cannot have been served.
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The retry policy of a rule, or the mesh's where it says none; `None` switches retries off. `hashed` is whether a hash chooses the instance of the rule's only
/// destination: then another instance is not looked for unless the rule says so (Istio: `retry.ConvertPolicy`).
pub(crate) fn retry(mesh: &MeshSnapshot, rule: Option<&model::Retries>, hashed: bool) -> Option<RetryPolicy> {
    let Some(rule) = rule.or(mesh.default_retries()) else {
        return Some(policy(DEFAULT_RETRY_ON, 2, !hashed));
    };
    if rule.attempts == 0 {
        return None;
    }
    let avoids = rule.ignore_previous_hosts.unwrap_or(!hashed);
    let mut policy = policy(rule.retry_on.as_deref().unwrap_or(DEFAULT_RETRY_ON), rule.attempts, avoids);
    policy.per_try_timeout = rule.per_try_timeout;
    if let Some(base) = rule.backoff {
        policy.base_interval = base;
        policy.max_interval = base * 10;
    }
    Some(policy)
}

fn policy(retry_on: &str, attempts: u32, avoid_previous_hosts: bool) -> RetryPolicy {
    let (mut on, rest) = RetryOn::parse(retry_on);
    let status_codes: Vec<u16> = rest.iter().filter_map(|code| code.parse().ok()).collect();
    on.retriable_status_codes |= !status_codes.is_empty();
    RetryPolicy {
        on,
        attempts,
        status_codes,
        avoid_previous_hosts,
        host_selection_attempts: 5,
        ..RetryPolicy::default()
    }
}

/// What requests are hashed by, where a hash chooses the instance.
pub(crate) fn hash(policy: &model::TrafficPolicy) -> Option<HashPolicy> {
    let Some(model::Balancer::Hash(hash)) = &policy.balancer else { return None };
    let source = match hash.key.clone() {
        model::HashKey::Header(name) => HashSource::Header(name, None),
        model::HashKey::Query(name) => HashSource::Query(name),
        model::HashKey::SourceIp => HashSource::SourceIp,
        model::HashKey::Cookie { name, path, ttl, attributes } => {
            HashSource::Cookie(HashCookie { name, path, ttl, attributes })
        }
    };
    Some(HashPolicy { source, terminal: false })
}

/// The faults of a rule that affect any request at all.
pub(crate) fn fault(rule: Option<&model::Fault>) -> Option<Fault> {
    let rule = rule?;
    let delay = rule.delay.as_ref().filter(|d| d.share.parts() > 0);
    let abort = rule.abort.as_ref().filter(|a| a.share.parts() > 0);
    let fault = Fault {
        delay: delay.map(|d| Delay { fixed: d.fixed, share: d.share.parts() }).filter(|d| d.fixed > Duration::ZERO),
        abort: abort.map(|a| Abort {
            status: match a.status {
                model::AbortStatus::Http(code) => AbortStatus::Http(code),
                model::AbortStatus::Grpc(code) => AbortStatus::Grpc(code),
            },
            share: a.share.parts(),
        }),
        ..Fault::default()
    };
    (fault != Fault::default()).then_some(fault)
}

/// Which other sites may make browsers send requests here.
pub(crate) fn cors(policy: &model::CorsPolicy) -> Cors {
    let origin = |m: &model::StringMatch| {
        StringMatcher::new(match m {
            model::StringMatch::Exact(s) => StringMatch::Exact(s.clone()),
            model::StringMatch::Prefix(s) => StringMatch::Prefix(s.clone()),
            model::StringMatch::Regex(s) => StringMatch::Regex(s.clone()),
            model::StringMatch::Present => StringMatch::Exact("*".to_owned()),
        })
    };
    Cors {
        origins: policy.origins.iter().map(origin).collect(),
        methods: policy.methods.join(","),
        headers: policy.headers.join(","),
        expose: policy.expose.join(","),
        max_age: policy.max_age.map(|d| d.as_secs().to_string()).unwrap_or_default(),
        credentials: policy.credentials,
        forward_others: policy.forward_others,
        enabled: 1_000_000,
        private_network: None,
    }
}

/// Header operations: set replaces, add appends; pseudo-headers and the authority are set elsewhere.
pub(crate) fn headers(operations: &model::HeaderOperations) -> HeaderEdits {
    let put = |(name, value): &(String, String), action| {
        (!is_authority(name) && !name.starts_with(':')).then(|| HeaderValue::literal(name, value, action))
    };
    HeaderEdits {
        add: operations
            .set
            .iter()
            .filter_map(|pair| put(pair, AppendAction::Overwrite))
            .chain(operations.add.iter().filter_map(|pair| put(pair, AppendAction::Append)))
            .collect(),
        remove: operations.remove.clone(),
    }
}

/// The authority that header operations ask for.
pub(crate) fn authority(operations: &model::HeaderOperations) -> Option<String> {
    let mut pairs = operations.set.iter().chain(&operations.add);
    pairs.find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone())
}

fn is_authority(name: &str) -> bool {
    name == "host" || name == ":authority"
}
