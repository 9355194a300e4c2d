//! The API for releases, version 1: what `serin release` and CI ask. docs/openapi.yaml describes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use axum::Router;
use axum::extract::rejection::StringRejection;
use axum::extract::{Path as Part, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_delivery::{Command, Phase, Said, Status};
use serin_model::{Labels, ObjectName, Release, Share, Step};

use super::{Entry, Refusal, Releases, page};
use crate::loads::Loads;

/// Characters of a comment at most: it is kept in the state, the log and every answer.
const COMMENT: usize = 500;

/// Bytes of a request's body at most.
pub(crate) const BODY: usize = 16 * 1024;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Move releases.
    Releaser,
    /// Everything.
    Admin,
}

/// Who may do what: by token, name and role. Without any, everybody who reaches the interface is an admin.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<String, (String, Role)>);

impl Tokens {
    /// Reads `TOKEN NAME ROLE` from each line of a file.
    pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = serin_folders::read_file(path)
            .text
            .map_err(|why| anyhow::anyhow!("cannot read --tokens {}: {why}", path.display()))?;
        let mut tokens = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let wrong = format!("--tokens {}:{}: write TOKEN NAME ROLE", path.display(), number + 1);
            ensure!(words.len() == 3, wrong);
            let role = match words[2] {
                "viewer" => Role::Viewer,
                "releaser" => Role::Releaser,
                "admin" => Role::Admin,
                other => anyhow::bail!("{wrong}: '{other}' is no role (viewer, releaser, admin)"),
            };
            tokens.insert(words[0].to_owned(), (words[1].to_owned(), role));
        }
        ensure!(!tokens.is_empty(), "--tokens {}: no token in it", path.display());
        Ok(Self(tokens))
    }

    fn who(&self, headers: &HeaderMap, wanted: Role) -> Result<(String, Role), Failure> {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        if self.0.is_empty() {
            let name = headers.get("x-serin-user").and_then(|v| v.to_str().ok()).unwrap_or("somebody");
            return Ok((name.to_owned(), Role::Admin));
        }
        let known = given.and_then(|g| g.strip_prefix("Bearer ")).and_then(|token| self.0.get(token.trim()));
        match known {
            None => Err(Failure(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN".to_owned())),
            Some((name, role)) if *role < wanted => {
                Err(Failure(StatusCode::FORBIDDEN, format!("{name} may not do this: it takes the role {wanted:?}")))
            }
            Some((name, role)) => Ok((name.clone(), *role)),
        }
    }
}

struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

/// The body of an action.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionBody {
    /// Why, for the record.
    comment: Option<String>,
    /// Of promote: to the end, not only to the next step; it means nothing for other actions.
    full: Option<bool>,
    /// Of abort, promote and undo: although it sends traffic where no instance is ready, or in a freeze.
    force: Option<bool>,
}

#[derive(Clone)]
struct Api {
    releases: Arc<Releases>,
    tokens: Arc<Tokens>,
    loads: Arc<Loads>,
}

/// The paths of the API.
pub(crate) fn routes(releases: Arc<Releases>, tokens: Tokens, loads: Arc<Loads>) -> Router {
    Router::new()
        .route("/api/v1/releases", get(list))
        .route("/api/v1/releases/{namespace}/{name}", get(one))
        .route("/api/v1/releases/{namespace}/{name}/{action}", post(act))
        .route("/api/v1/events", get(events))
        .route("/api/v1/audit", get(audit))
        .route(
            "/releases",
            get(|| async { ([(header::CONTENT_SECURITY_POLICY, page::POLICY)], axum::response::Html(page::PAGE)) }),
        )
        .route("/metrics", get(metrics))
        .with_state(Api { releases, tokens: Arc::new(tokens), loads })
}

/// A release as its document, with its whole status, and its plan as it is understood: weights in per cent, times in seconds.
pub(crate) fn document(entry: &Entry) -> Value {
    let Release { name, host, stable, candidate, baseline, steps, .. } = &entry.spec;
    let step = |s: &Step| {
        json!({
            "weight": s.weight.map(Share::percent),
            "match": s.cohorts.as_ref().map(Vec::len),
            "mirror": s.mirror.map(Share::percent),
            "bake": {"min": s.bake.min.as_secs_f64(), "max": s.bake.max.as_secs_f64()},
            "approval": s.approval.is_some(),
        })
    };
    let labels = |labels: &Labels| json!({"labels": labels});
    json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": name.name, "namespace": name.namespace},
        "spec": serde_json::from_str::<Value>(&entry.spec.document).unwrap_or_default(),
        "plan": {
            "host": host.to_string(),
            "stable": labels(stable),
            "candidate": labels(candidate),
            "baseline": baseline.as_ref().map(labels),
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
        },
        "status": entry.status,
        "instances": {"stable": entry.known.stable_ready, "candidate": entry.known.candidate_ready},
        "outdated": entry.outdated,
        "fault": entry.fault,
        "now": super::now(),
    })
}

async fn list(State(api): State<Api>, headers: HeaderMap) -> Result<Json<Value>, Failure> {
    api.tokens.who(&headers, Role::Viewer)?;
    let items: Vec<Value> = api.releases.each(None).iter().map(document).collect();
    let refused = api.releases.refused().into_iter();
    let refused = refused.map(|(name, why)| json!({"namespace": name.namespace, "name": name.name, "fault": why}));
    Ok(Json(json!({"items": items, "refused": refused.collect::<Vec<_>>()})))
}

async fn one(
    State(api): State<Api>,
    Part((namespace, name)): Part<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    api.tokens.who(&headers, Role::Viewer)?;
    let name = ObjectName { namespace, name };
    let entry = api.releases.each(Some(&name)).pop();
    Ok(Json(document(&entry.ok_or_else(|| missing(&api, &name))?)))
}

/// There is no such release, perhaps because its document has errors.
fn missing(api: &Api, name: &ObjectName) -> Failure {
    let why = api.releases.refused().remove(name).map(|why| format!(": its document has an error, {why}"));
    Failure(StatusCode::NOT_FOUND, format!("there is no release {name}{}", why.unwrap_or_default()))
}

async fn act(
    State(api): State<Api>,
    Part((namespace, name, action)): Part<(String, String, String)>,
    headers: HeaderMap,
    body: Result<String, StringRejection>,
) -> Result<Json<Value>, Failure> {
    from_here(&headers)?;
    let body = body.map_err(|why| Failure(why.status(), why.body_text()))?;
    let (who, role) = api.tokens.who(&headers, Role::Releaser)?;
    let body: ActionBody = serde_json::from_str(if body.is_empty() { "{}" } else { &body })
        .map_err(|e| Failure(StatusCode::BAD_REQUEST, format!("the body is not as docs/openapi.yaml says: {e}")))?;
    let text = plain(&body.comment.unwrap_or_default());
    if text.chars().count() > COMMENT {
        let why = format!("a comment has at most {COMMENT} characters");
        return Err(Failure(StatusCode::BAD_REQUEST, why));
    }
    let name = ObjectName { namespace, name };
    let says = match action.as_str() {
        "start" => Command::Start(text),
        "pause" => Command::Pause(text),
        "resume" => Command::Resume(text),
        "approve" => {
            approves(&api, &name, role)?;
            Command::Approve(text)
        }
        "promote" => {
            let all = body.full == Some(true);
            promotes(&api, &name, all, role)?;
            Command::Promote { all, why: text }
        }
        "retry" => Command::Retry(text),
        "abort" => Command::Abort(text),
        "undo" => Command::Undo(text),
        other => return Err(Failure(StatusCode::NOT_FOUND, format!("'{other}' is no action"))),
    };
    if api.releases.each(Some(&name)).is_empty() {
        return Err(missing(&api, &name));
    }
    let said = Said { who, command: says, force: body.force == Some(true) };
    let status: Status = api.releases.command(&name, said).map_err(|refusal| match refusal {
        Refusal::Senseless(why) => Failure(StatusCode::CONFLICT, why),
        Refusal::NotKept(why) => Failure(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{action} is done, but it is not confirmed: {why}; a pilot that begins anew would not know it"),
        ),
    })?;
    Ok(Json(json!({"status": status})))
}

/// A text on one line, without what would move a terminal's cursor or turn its text around.
fn plain(text: &str) -> String {
    let is_odd =
        |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
    text.chars().map(|c| if is_odd(c) { ' ' } else { c }).collect()
}

/// A number of a query; the default where it is not given.
fn number<T: std::str::FromStr + Default>(query: &BTreeMap<String, String>, name: &str) -> Result<T, Failure> {
    let wrong = || Failure(StatusCode::BAD_REQUEST, format!("{name} must be a number that is not negative"));
    query.get(name).map_or(Ok(T::default()), |text| text.parse().map_err(|_| wrong()))
}

/// A page of another site that is open in somebody's browser moves no release.
fn from_here(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), host) if origin.split_once("://").map(|(_, at)| at) != host => {
            Err(Failure(StatusCode::FORBIDDEN, format!("a page of {origin} may not do this")))
        }
        _ => Ok(()),
    }
}

/// Whether a role is what the step at hand asks for.
fn approves(api: &Api, name: &ObjectName, role: Role) -> Result<(), Failure> {
    let Some(entry) = api.releases.each(Some(name)).pop() else { return Ok(()) };
    consents(entry.spec.steps.get(entry.status.step..=entry.status.step), role)
}

/// Whether a role may pass over the steps that a promotion passes over.
fn promotes(api: &Api, name: &ObjectName, all: bool, role: Role) -> Result<(), Failure> {
    let Some(entry) = api.releases.each(Some(name)).pop() else { return Ok(()) };
    let (step, end) = (entry.status.step, entry.spec.steps.len());
    let waits = all || entry.status.phase == Phase::AwaitingApproval;
    let passed = if all { step..end } else { step..step + 1 };
    consents(entry.spec.steps.get(passed).filter(|_| waits), role)
}

fn consents(steps: Option<&[Step]>, role: Role) -> Result<(), Failure> {
    let asks = |s: &Step| s.approval.as_ref().is_some_and(|a| a.role == "admin");
    if role < Role::Admin && steps.is_some_and(|steps| steps.iter().any(asks)) {
        return Err(Failure(StatusCode::FORBIDDEN, "this step is approved by an admin only".to_owned()));
    }
    Ok(())
}

async fn events(
    State(api): State<Api>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    api.tokens.who(&headers, Role::Viewer)?;
    let after = number(&query, "after")?;
    let list = api.releases.events(after).into_iter().map(
        |h| json!({"number": h.number, "namespace": h.release.namespace, "release": h.release.name, "event": h.event}),
    );
    Ok(Json(json!({"events": list.collect::<Vec<_>>()})))
}

async fn metrics(State(api): State<Api>) -> Response {
    let text = page::metrics(&api.releases.each(None), &api.releases.ends(), api.loads.refused());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=UTF-8")], text).into_response()
}

async fn audit(
    State(api): State<Api>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    api.tokens.who(&headers, Role::Viewer)?;
    let last = number(&query, "last")?;
    let releases = api.releases.clone();
    // A long log takes its time.
    let audited = tokio::task::spawn_blocking(move || releases.audited(last)).await;
    Ok(Json(match audited.map_err(|e| e.to_string()).and_then(|audited| audited.map_err(|e| e.to_string())) {
        Ok(log) if log.missing > 0 => json!({
            "whole": false,
            "reason": format!("{} entries are missing, because they could not be written", log.missing),
            "entries": log.entries,
            "hash": log.hash,
            "last": log.last,
        }),
        Ok(log) => json!({"whole": true, "entries": log.entries, "hash": log.hash, "last": log.last}),
        Err(why) => json!({"whole": false, "reason": why}),
    }))
}
