//! The pilot's admin interface.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, Request, State as Extract};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};
use serin_ingest::{Diagnostic, Document};
use serin_xds::server::{TypeState, TypeStatus};

use crate::accept::Bounded;
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

/// The names by which browsers may call the admin interface: another name that leads here is somebody's who would like to use the
/// interface in a visitor's place (DNS rebinding).
#[derive(Debug, Clone)]
pub(crate) struct Names(Arc<Vec<String>>);

impl Names {
    /// Names of loopback, that of this machine, and those given. Addresses are always allowed: a browser that was given an address was not
    /// led here by a name.
    pub(crate) fn new(given: &[String]) -> Self {
        let own = ["localhost", "localhost.localdomain", "ip6-localhost"].map(str::to_owned);
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let all = own.into_iter().chain([machine]).chain(given.iter().cloned());
        Self(Arc::new(all.map(|name| name.to_ascii_lowercase()).collect()))
    }

    fn allows(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|h| h.split_once(']')).map_or_else(
            || host.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h),
            |(address, _)| address,
        );
        let bare = bare.trim_end_matches('.').to_ascii_lowercase();
        bare.parse::<std::net::IpAddr>().is_ok() || self.0.contains(&bare) || bare.ends_with(".localhost")
    }
}

/// Refuses requests that name another host, and gives every answer the fields that keep browsers from misusing it.
async fn guard(Extract(names): Extract<Names>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str));
    let asks_api = request.uri().path().starts_with("/api/");
    let mut response = match host {
        // What programs ask for by any name of this machine says nothing that a page of another site may not know.
        _ if matches!(request.uri().path(), "/metrics" | "/ready") && request.method() == Method::GET => {
            next.run(request).await
        }
        Some(host) if names.allows(host) => next.run(request).await,
        other => {
            let shown: String = other.unwrap_or("none").chars().take(100).collect();
            let text = format!(
                "this interface is not called '{shown}': use its address, or start the pilot with --admin-name\n"
            );
            if asks_api {
                (StatusCode::MISDIRECTED_REQUEST, Json(json!({"error": text.trim_end()}))).into_response()
            } else {
                (StatusCode::MISDIRECTED_REQUEST, text).into_response()
            }
        }
    };
    let is_empty = response.body().size_hint().exact() == Some(0);
    if asks_api && is_empty && response.status().is_client_error() {
        // What no handler was for.
        let status = response.status();
        let words = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
        response = (status, Json(json!({"error": words}))).into_response();
    }
    let fields = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        fields.entry(name).or_insert(HeaderValue::from_static(value));
    }
    let policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    fields.entry("content-security-policy").or_insert(HeaderValue::from_static(policy));
    response
}

/// Serves until the process ends.
pub(crate) async fn serve(socket: Bounded, admin: Admin, more: Router, names: Names) {
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/ready", get(|| async { (StatusCode::OK, "LIVE\n") }))
        .route("/debug/syncz", get(syncz))
        .route("/debug/configz", get(configz))
        .route("/debug/diagnosticz", get(diagnosticz))
        .route("/debug/loadz", get(loadz))
        .route("/debug/processz", get(|| async { Json(json!({"pid": std::process::id()})) }))
        .with_state(admin)
        .merge(more)
        .layer(DefaultBodyLimit::max(crate::releases::BODY))
        .layer(axum::middleware::from_fn_with_state(names, guard));
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
        "type": &*status.type_url,
        "state": state,
        "sent": &*status.sent,
        "acked": &*status.acked,
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
    let age =
        |d: &Document| store.outdated().get(&d.key).and_then(|since| since.elapsed().ok()).map(|age| age.as_secs());
    let objects = store.objects().map(|d| {
        json!({"outdatedSeconds": age(d), "kind": d.key.kind.to_string(), "namespace": d.key.name.namespace, "name": d.key.name.name, "file": &*d.file, "line": d.at.line})
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
