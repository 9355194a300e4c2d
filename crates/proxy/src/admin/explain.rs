//! `/explain`: what this proxy would do with a request, and why.
//! Parameters: `listener`, `url` (with authority), `method`, `header` (`name:value`, several joined by `|`), `draw` (0 to 1).

use std::collections::HashMap;

use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use serin_http1::{RequestHead, Version, check_target};
use serin_traffic::explain::{self, Explanation, Outcome};
use serin_traffic::router::{HostMatch, Mismatch, RouteTable};

use super::Admin;
use crate::error::Error;
use crate::snapshot::{ListenerRuntime, Snapshot};

pub(super) async fn explain(Extract(admin): Extract<Admin>, Query(asked): Query<HashMap<String, String>>) -> Response {
    let current = admin.lock().current();
    match answer(&current, &asked) {
        Ok(value) => ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response(),
    }
}

fn answer(current: &Snapshot, asked: &HashMap<String, String>) -> Result<Value, Error> {
    let names = || current.listeners.keys().cloned().collect::<Vec<_>>().join(", ");
    let listener = match asked.get("listener") {
        Some(name) => current.listeners.get(name),
        None if current.listeners.len() == 1 => current.listeners.values().next(),
        None => None,
    };
    let listener = listener.ok_or_else(|| Error::NoListener(names()))?;
    let table = routes(listener, asked.get("chain"))?;
    let url = asked.get("url").ok_or(Error::NoUrl)?;
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let mut head = RequestHead::default();
    let method = asked.get("method").map_or("GET", String::as_str);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    head.start(method.as_bytes(), path.as_bytes(), Version::Http11);
    head.fields.append(b"host", authority.as_bytes());
    for field in asked.get("header").map(String::as_str).unwrap_or_default().split('|').filter(|f| !f.is_empty()) {
        let (name, value) = field.split_once(':').ok_or_else(|| Error::Header(field.to_owned()))?;
        head.fields.append(name.trim().as_bytes(), value.trim().as_bytes());
    }
    if let Err(error) = check_target(&head) {
        return Ok(json!({"outcome": {"status": error.status(), "why": error.to_string()}}));
    }
    let draw = asked.get("draw").map_or(Ok(0.5), |d| d.parse::<f64>());
    let draw = draw.ok().filter(|d| (0.0..=1.0).contains(d)).ok_or(Error::Draw)?;
    Ok(describe(&explain::route(table, &head, (draw * u64::MAX as f64) as u64), current))
}

/// The routes of a chain of a listener, which has to be named when there are several.
fn routes<'a>(listener: &'a ListenerRuntime, wanted: Option<&String>) -> Result<&'a RouteTable, Error> {
    let name = |number: usize| {
        let config = listener.chains.get(number).map(|(chain, _)| &chain.config);
        config.filter(|config| !config.name.is_empty()).map_or_else(|| number.to_string(), |config| config.name.clone())
    };
    let mut numbers = 0..listener.chains.len();
    let number = match wanted {
        Some(wanted) => numbers.find(|number| name(*number) == *wanted),
        None if numbers.len() == 1 => Some(0),
        None => None,
    };
    let chain = number.and_then(|number| listener.chains.get(number));
    let names = || (0..listener.chains.len()).map(name).collect::<Vec<_>>().join(", ");
    match chain {
        None => Err(Error::NoChain(names())),
        Some((chain, _)) if chain.config.filter.manager().is_none() => {
            Err(Error::NoHttp(number.map(name).unwrap_or_default()))
        }
        Some((_, table)) => Ok(table),
    }
}

fn describe(found: &Explanation<'_>, current: &Snapshot) -> Value {
    let how = |how: HostMatch| match how {
        HostMatch::Exact => "its exact name",
        HostMatch::Suffix => "the longest suffix",
        HostMatch::Prefix => "the longest prefix",
        HostMatch::Any => "the domain '*'",
    };
    let why = |mismatch: Mismatch<'_>| match mismatch {
        Mismatch::Path => "the path does not match".to_owned(),
        Mismatch::Header(name) => format!("header '{name}' does not match"),
        Mismatch::Query(name) => format!("query parameter '{name}' does not match"),
        Mismatch::Cookie(name) => format!("cookie '{name}' does not match"),
        Mismatch::Grpc => "it is no gRPC call".to_owned(),
        Mismatch::Certificate => "the client's certificate does not match".to_owned(),
        Mismatch::Share => "it is not in the share that was drawn".to_owned(),
    };
    let routes: Vec<Value> = found
        .routes
        .iter()
        .map(|r| json!({"position": r.position, "name": r.name, "matches": r.mismatch.is_none(), "why_not": r.mismatch.map(why)}))
        .collect();
    let outcome = match &found.outcome {
        Outcome::NotFound => json!({"status": 404}),
        Outcome::Redirect(status) => json!({"redirect": status}),
        Outcome::Respond(status) => json!({"status": status}),
        Outcome::ClusterHeader(header) => json!({"cluster_named_by_header": header}),
        Outcome::Clusters { shares, drawn } => {
            let clusters: Vec<Value> = shares
                .iter()
                .enumerate()
                .map(|(n, (name, percent))| {
                    json!({"cluster": name, "percent": percent, "drawn": n == *drawn, "endpoints": endpoints(name, current),
                        "refused_by": current.clusters.get(*name).and_then(|c| c.config.refused.as_deref())})
                })
                .collect();
            json!({"clusters": clusters})
        }
    };
    json!({
        "virtual_host": found.host.map(|(name, by)| json!({"name": name, "by": how(by)})),
        "outdated": Some(found.outdated).filter(|text| !text.is_empty()),
        "other_virtual_hosts": found.other_hosts.iter().map(|(n, d)| json!({"name": n, "domains": d})).collect::<Vec<_>>(),
        "routes": routes,
        "outcome": outcome,
    })
}

/// The endpoints of a cluster, and why some get nothing; null when there is no such cluster.
fn endpoints(cluster: &str, current: &Snapshot) -> Option<Vec<Value>> {
    let cluster = current.clusters.get(cluster)?;
    let one = |m| {
        let member: &crate::runtime::ClusterEndpoint = m;
        json!({"address": member.host.address.to_string(), "weight": member.endpoint.weight,
            "priority": member.endpoint.priority, "left_out": cluster.left_out(member)})
    };
    Some(cluster.members.iter().map(one).collect())
}
