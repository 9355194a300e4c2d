//! The pilot's admin interface.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State as Extract;
use axum::response::Json;
use axum::routing::get;
use axum::{Router, http::StatusCode};
use serde_json::{Value, json};
use serin_ingest::Diagnostic;
use serin_xds::server::{TypeState, TypeStatus};

use crate::fleet::Fleet;
use crate::loads::Loads;
use crate::store::Store;

/// What the pages look at.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) loads: Arc<Loads>,
}

/// Serves until the process ends.
pub(crate) async fn serve(socket: tokio::net::TcpListener, admin: Admin, more: Router) {
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/ready", get(|| async { (StatusCode::OK, "LIVE\n") }))
        .route("/debug/syncz", get(syncz))
        .route("/debug/configz", get(configz))
        .route("/debug/diagnosticz", get(diagnosticz))
        .route("/debug/loadz", get(loadz))
        .route("/debug/processz", get(|| async { Json(json!({"pid": std::process::id()})) }))
        .with_state(admin)
        .merge(more);
    if let Err(error) = axum::serve(socket, router).await {
        tracing::error!(%error, "admin interface ended");
    }
}

const INDEX: &str = "serin pilot\n  \
    /ready: 200 when documents are read\n  \
    /debug/syncz: proxies, and how each stands with what it should have\n  \
    /debug/configz: objects in force\n  \
    /debug/diagnosticz: findings about documents\n  \
    /releases: releases, for a browser\n  \
    /metrics: releases, for Prometheus\n  \
    /api/v1/releases: releases and what can be done with them\n  \
    /debug/processz: the process\n  \
    /debug/loadz: requests that proxies report, by endpoint\n";

async fn syncz(Extract(admin): Extract<Admin>) -> Json<Value> {
    let list = admin.fleet.each(|stream, client| {
        json!({
            "stream": stream,
            "proxy": client.identity.name.to_string(),
            "node": client.node_id,
            "agent": client.agent,
            "peer": client.peer,
            "types": client.status.iter().map(type_json).collect::<Vec<_>>(),
        })
    });
    Json(json!(list))
}

fn type_json(status: &TypeStatus) -> Value {
    let state = match status.state {
        TypeState::Synced => "SYNCED",
        TypeState::Stale => "STALE",
        TypeState::Nacked => "NACKED",
    };
    json!({
        "type": status.type_url,
        "state": state,
        "sent": status.sent,
        "acked": status.acked,
        "error": status.error,
        "resources": status.resources,
    })
}

async fn loadz(Extract(admin): Extract<Admin>) -> Json<Value> {
    let list = admin.loads.each(|way, sum| {
        json!({
            "node": way.node,
            "cluster": way.cluster,
            "endpoint": way.endpoint.map(|a| a.to_string()),
            "locality": way.locality,
            "issued": sum.issued,
            "succeeded": sum.succeeded,
            "failed": sum.failed,
            "active": sum.active,
            "firstAttempts": sum.first,
            "firstAttemptsFailed": sum.first_failed,
            "firstAttemptTimes": sum.times.iter().map(|(bound, count)| json!({"leMicros": bound, "count": count})).collect::<Vec<_>>(),
        })
    });
    Json(json!(list))
}

async fn configz(Extract(admin): Extract<Admin>) -> Json<Value> {
    let store = admin.store.lock().unwrap_or_else(PoisonError::into_inner);
    let objects = store.objects().map(|d| {
        json!({"kind": d.key.kind.to_string(), "namespace": d.key.name.namespace, "name": d.key.name.name, "file": &*d.file, "line": d.at.line})
    });
    Json(json!(objects.collect::<Vec<_>>()))
}

async fn diagnosticz(Extract(admin): Extract<Admin>) -> Json<Value> {
    let store = admin.store.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!(store.diagnostics().iter().map(diagnostic_json).collect::<Vec<_>>()))
}

fn diagnostic_json(d: &Diagnostic) -> Value {
    json!({
        "code": d.code.as_str(),
        "severity": d.severity.as_str(),
        "file": &*d.file,
        "line": d.at.line,
        "column": d.at.column,
        "path": d.path,
        "message": d.message,
        "help": d.help,
    })
}
