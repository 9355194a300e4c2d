//! The admin interface, with Envoy's paths and responses.

mod config_dump;
mod explain;
mod pages;
mod samples;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serin_telemetry::{Filter, json, prometheus, text};
use serin_transport::Listener;

use crate::discovery::SharedStore;
use crate::state::State;
use crate::worker::Command;

/// The state that the pages show.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) store: SharedStore,
    pub(crate) state: State,
    pub(crate) node: String,
    pub(crate) workers: usize,
}

impl Admin {
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, crate::discovery::Store> {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(socket: Listener, admin: Admin) {
    let router = Router::new()
        .route("/", get(index))
        .route("/help", get(index))
        .route("/explain", get(explain::explain))
        .route("/ready", get(ready))
        .route("/stats", get(stats))
        .route("/stats/prometheus", get(stats_prometheus))
        .route("/clusters", get(pages::clusters))
        .route("/listeners", get(pages::listeners))
        .route("/server_info", get(pages::server_info))
        .route("/config_dump", get(config_dump::page))
        .route("/quitquitquit", post(quit))
        .route("/mirrors", get(pages::mirrors))
        .route("/healthcheck/fail", post(|admin: Extract<Admin>| health(admin, true)))
        .route("/healthcheck/ok", post(|admin: Extract<Admin>| health(admin, false)))
        .route("/drain_listeners", post(drain_listeners))
        .with_state(admin)
        .layer(axum::middleware::from_fn(from_here));
    if let Err(error) = axum::serve(socket, router).await {
        tracing::error!(%error, "admin interface ended");
    }
}

/// Commands come from programs, or from a page of this interface: a page of another site that is open in somebody's browser, or one
/// that was given a name which leads here, moves nothing.
async fn from_here(request: Request, next: Next) -> Response {
    if is_foreign(request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, "a page of another site may not do this\n").into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().entry("x-content-type-options").or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// Returns true when a browser sends this for a page that is not of this interface.
fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let origin = text(header::ORIGIN);
    let own =
        origin.and_then(|o| o.split_once("://")).map(|(_, at)| at).zip(text(header::HOST)).is_some_and(|(o, host)| {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
            o == host && (name == "localhost" || name.parse::<std::net::IpAddr>().is_ok())
        });
    let across = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    method != Method::GET && method != Method::HEAD && (across || (origin.is_some() && !own))
}

async fn index() -> &'static str {
    "admin commands are:\n  \
     /clusters: upstream cluster status (format=json)\n  \
     /config_dump: dump current configuration (include_eds for endpoints)\n  \
     POST /drain_listeners: drain listeners (graceful to announce it only)\n  \
     POST /healthcheck/fail: cause the server to fail health checks\n  \
     POST /healthcheck/ok: cause the server to pass health checks\n  \
     /listeners: print listener info\n  \
     /mirrors: how mirrors' answers compare with those that clients got\n  \
     POST /quitquitquit: exit the server\n  \
     /explain: say what would be done with a request, and why (url, listener, method, header, draw)\n  \
     /ready: print server state, return 200 if LIVE, otherwise return 503\n  \
     /server_info: print server version/status information\n  \
     /stats: print server stats (filter, usedonly, format=json|prometheus)\n  \
     /stats/prometheus: print server stats in prometheus format\n"
}

async fn ready(Extract(admin): Extract<Admin>) -> (StatusCode, String) {
    let name = admin.state.phase();
    let status = if name == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = format!("{name}\n");
    for address in admin.lock().unbound() {
        text += &format!("{address} cannot be bound: another process has it; it is tried again every second\n");
    }
    (status, text)
}

type Parameters = Query<std::collections::HashMap<String, String>>;

/// `filter` is a regular expression that a part of the name must match, as in Envoy.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn filter(parameters: &std::collections::HashMap<String, String>) -> Result<Filter, Response> {
    let pattern = parameters.get("filter").map(|pattern| regex::Regex::new(pattern)).transpose();
    let invalid = |error: regex::Error| (StatusCode::BAD_REQUEST, format!("Invalid re2 regex: {error}\n"));
    let pattern = pattern.map_err(|error| invalid(error).into_response())?;
    Ok(Filter { pattern, used_only: parameters.contains_key("usedonly") })
}

async fn stats(Extract(admin): Extract<Admin>, Query(parameters): Parameters) -> Response {
    let filter = match filter(&parameters) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    let (samples, timings) = (samples::all(&admin), samples::timings(&admin));
    match parameters.get("format").map(String::as_str) {
        Some("json") => {
            ([(header::CONTENT_TYPE, "application/json")], json(&samples, &timings, &filter)).into_response()
        }
        Some("prometheus") => scraped(&admin, &filter),
        Some("text") | None => text(&samples, &timings, &filter).into_response(),
        Some(other) => (StatusCode::BAD_REQUEST, format!("unknown format '{other}': use text, json or prometheus\n"))
            .into_response(),
    }
}

async fn stats_prometheus(Extract(admin): Extract<Admin>, Query(parameters): Parameters) -> Response {
    let filter = match filter(&parameters) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    scraped(&admin, &filter)
}

/// Envoy's metrics, then Istio's, which are written while they are sent.
fn scraped(admin: &Admin, filter: &Filter) -> Response {
    let text = prometheus(&samples::all(admin), &samples::timings(admin), filter);
    let rest = admin.lock().tallies.prometheus(filter);
    let pieces = std::iter::once(text).chain(rest).filter(|piece| !piece.is_empty()).map(Ok::<_, Infallible>);
    let body = Body::from_stream(tokio_stream::iter(pieces));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=UTF-8")], body).into_response()
}

async fn quit(Extract(admin): Extract<Admin>) -> &'static str {
    admin.state.ask_to_quit();
    "OK\n"
}

async fn health(Extract(admin): Extract<Admin>, failing: bool) -> &'static str {
    admin.state.fail_health(failing);
    "OK\n"
}

/// With `graceful`, clients are asked to leave; without, nothing is accepted any more.
async fn drain_listeners(Extract(admin): Extract<Admin>, Query(parameters): Parameters) -> &'static str {
    let graceful = parameters.contains_key("graceful");
    admin.lock().sockets.tell(|| if graceful { Command::Drain } else { Command::Finish });
    "OK\n"
}
