//! `/clusters`, `/listeners` and `/server_info`.

use std::fmt::Write as _;

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use serin_resources::endpoint::Health;

use super::{Admin, Parameters};
use crate::metric;
use crate::mirrors::{Compared, Example};
use crate::runtime::{ClusterEndpoint, ClusterRuntime};

pub(super) fn as_json(value: &Value) -> Response {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn wants_json(parameters: &Parameters) -> bool {
    parameters.0.get("format").is_some_and(|f| f == "json")
}

pub(super) async fn clusters(Extract(admin): Extract<Admin>, parameters: Parameters) -> Response {
    let current = admin.lock().current();
    let mut clusters: Vec<&ClusterRuntime> = current.clusters.values().map(AsRef::as_ref).collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if wants_json(&parameters) {
        let list: Vec<Value> = clusters
            .iter()
            .map(|c| json!({"name": c.config.name, "added_via_api": true, "host_statuses": c.members.iter().map(host_json).collect::<Vec<_>>()}))
            .collect();
        return as_json(&json!({ "cluster_statuses": list }));
    }
    let mut out = String::new();
    for cluster in clusters {
        cluster_text(cluster, &mut out);
    }
    out.into_response()
}

fn cluster_text(cluster: &ClusterRuntime, out: &mut String) {
    let name = &cluster.config.name;
    let limit = |limit: Option<u32>| limit.unwrap_or(u32::MAX);
    for (priority, breakers) in ["default_priority", "high_priority"].iter().zip(&cluster.config.breakers) {
        let _ = writeln!(out, "{name}::{priority}::max_connections::{}", limit(breakers.connections));
        let _ = writeln!(out, "{name}::{priority}::max_pending_requests::{}", limit(breakers.pending));
        let _ = writeln!(out, "{name}::{priority}::max_requests::{}", limit(breakers.requests));
        let _ = writeln!(out, "{name}::{priority}::max_retries::{}", limit(breakers.retries));
    }
    for member in &cluster.members {
        let address = member.host.address;
        for (metric, value) in member.host.stats.iter() {
            let _ = writeln!(out, "{name}::{address}::{metric}::{value}");
        }
        let endpoint = &member.endpoint;
        let _ = writeln!(out, "{name}::{address}::hostname::{}", endpoint.hostname);
        let _ = writeln!(out, "{name}::{address}::health_flags::{}", health_flags(member));
        let _ = writeln!(out, "{name}::{address}::weight::{}", endpoint.weight);
        let _ = writeln!(out, "{name}::{address}::priority::{}", endpoint.priority);
        let _ = writeln!(out, "{name}::{address}::locality::{}", endpoint.locality);
    }
}

fn health_flags(member: &ClusterEndpoint) -> &'static str {
    if member.host.health.is_unfit() {
        return "/failed_active_hc";
    }
    if member.host.health.is_ejected() {
        return "/failed_outlier_check";
    }
    if member.host.health.is_degraded() {
        return "/degraded_active_hc";
    }
    match member.endpoint.health {
        Health::Unknown | Health::Healthy => "healthy",
        Health::Unhealthy => "/failed_eds_health",
        Health::Draining => "/eds_status_draining",
        Health::Degraded => "/degraded_eds_health",
    }
}

fn host_json(member: &ClusterEndpoint) -> Value {
    let stats: Vec<Value> = member
        .host
        .stats
        .iter()
        .map(|(name, value)| {
            let kind = if metric::is_gauge(name) { "GAUGE" } else { "COUNTER" };
            json!({"name": name, "value": value.to_string(), "type": kind})
        })
        .collect();
    let status = match member.endpoint.health {
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Degraded => "DEGRADED",
    };
    json!({
        "address": {"socket_address": {"address": member.host.address.ip(), "port_value": member.host.address.port()}},
        "stats": stats,
        "health_status": {"eds_health_status": status, "failed_outlier_check": member.host.health.is_ejected()},
        "weight": member.endpoint.weight,
        "priority": member.endpoint.priority,
        "hostname": member.endpoint.hostname,
    })
}

pub(super) async fn listeners(Extract(admin): Extract<Admin>, parameters: Parameters) -> Response {
    let addresses = admin.lock().sockets.addresses();
    if wants_json(&parameters) {
        let list: Vec<Value> = addresses
            .iter()
            .map(|(name, a)| json!({"name": name, "local_address": {"socket_address": {"address": a.ip(), "port_value": a.port()}}}))
            .collect();
        return as_json(&json!({ "listener_statuses": list }));
    }
    let mut out = String::new();
    for (name, address) in addresses {
        let _ = writeln!(out, "{name}::{address}");
    }
    out.into_response()
}

pub(super) async fn server_info(Extract(admin): Extract<Admin>) -> Response {
    let uptime = format!("{}s", admin.state.uptime().as_secs());
    as_json(&json!({
        "version": format!("serin/{}", env!("CARGO_PKG_VERSION")),
        "state": admin.state.phase(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {"concurrency": admin.workers},
        "node": {"id": admin.node},
    }))
}

pub(super) async fn mirrors(Extract(admin): Extract<Admin>) -> Response {
    let example = |e: &Example| {
        let differences =
            e.differences.iter().map(|d| json!({"place": d.place, "client": d.values[0], "mirror": d.values[1]}));
        json!({"request": e.request, "differences": differences.collect::<Vec<_>>()})
    };
    let of = |(cluster, compared): (&String, &Compared)| {
        json!({
            "cluster": cluster,
            "same": compared.same,
            "different": compared.different,
            "places": compared.places,
            "newest": compared.newest.iter().map(example).collect::<Vec<_>>(),
        })
    };
    as_json(&json!(admin.state.mirrors().all().iter().map(of).collect::<Vec<_>>()))
}
