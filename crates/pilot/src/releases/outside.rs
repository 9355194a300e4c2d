//! What releases do outside: hooks before and after steps, queries to a Prometheus, and telling people.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use serin_delivery::{Action, Command, Event, EventKind, Phase, Reading, Said};
use serin_model::{Alert, AlertForm, Hook, HookCall, Query, Release};

use super::{PendingEffects, Releases};

/// Does it.
#[derive(Clone)]
pub(crate) struct EffectRunner {
    client: Client<HttpConnector, Full<Bytes>>,
    running: Arc<std::sync::Mutex<std::collections::BTreeSet<String>>>,
}

/// How long somebody who is told may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl EffectRunner {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        Self { client: Client::builder(TokioExecutor::new()).build(connector), running: Arc::default() }
    }

    /// Does what a look asks for, without holding it up.
    pub(crate) fn act(&self, due: PendingEffects, releases: &Arc<Releases>) {
        for action in &due.actions {
            let at = match *action {
                Action::Hook(at) => at,
                Action::Query { number } => {
                    self.ask(&due.release, number, releases);
                    continue;
                }
            };
            let hooks = due.release.steps.get(at.step).map(|s| if at.before { &s.before } else { &s.after });
            let Some(hook) = hooks.and_then(|h| h.get(at.number)).cloned() else { continue };
            let key = format!("{} {at:?}", due.release.name);
            let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if running.insert(key.clone()) {
                let (outside, releases, release) = (self.clone(), releases.clone(), due.release.clone());
                tokio::spawn(async move {
                    let result = outside.hook(&hook, &release, at.step).await;
                    let says = Command::Hooked { hook: at, result };
                    let _ = releases.command(&release.name, Said::new("hook", says));
                    outside.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&key);
                });
            }
        }
        let told = [EventKind::Phase, EventKind::Verdict, EventKind::Done, EventKind::Action, EventKind::Step];
        let spoken = chat(&due.events);
        for (number, event) in due.events.into_iter().enumerate().filter(|(_, e)| told.contains(&e.event)) {
            for alert in due.release.alerts.clone() {
                let told = match alert.form {
                    AlertForm::Slack(_) => spoken == Some(number),
                    AlertForm::CloudEvent => event.event != EventKind::Step,
                };
                if !told {
                    continue;
                }
                let (outside, release, event) = (self.clone(), due.release.name.to_string(), event.clone());
                tokio::spawn(async move {
                    let body = message(&alert, &release, &event);
                    let form = if alert.form == AlertForm::CloudEvent {
                        "application/cloudevents+json"
                    } else {
                        "application/json"
                    };
                    if let Err(why) = outside.post(&alert.url, form, &body, PATIENCE).await {
                        tracing::warn!("cannot tell {} of release {release}: {why}", alert.url);
                    }
                });
            }
        }
    }

    /// Asks a query without waiting; one that is still being asked is not asked again.
    fn ask(&self, release: &Release, number: usize, releases: &Arc<Releases>) {
        let Some(query) = release.analysis.queries.get(number).cloned() else { return };
        let key = format!("{} query {}", release.name, query.name);
        let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if running.insert(key.clone()) {
            let (outside, releases, name) = (self.clone(), releases.clone(), release.name.clone());
            tokio::spawn(async move {
                let value = outside.query(&query).await;
                if let Err(why) = &value {
                    tracing::warn!("query {} of release {name}: {why}", query.name);
                }
                releases.answered(&name, &query.name, Reading { at: super::now(), value });
                outside.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&key);
            });
        }
    }

    /// Prometheus' instant query (its HTTP API, `/api/v1/query`).
    async fn query(&self, query: &Query) -> Result<f64, String> {
        let text: String = form_urlencoded::byte_serialize(query.expression.as_bytes()).collect();
        let url = format!("{}/api/v1/query?query={text}", query.server);
        let exchange = async {
            let uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
            let response = self.client.get(uri).await.map_err(|e| format!("{}: {e}", query.server))?;
            let body = response.into_body().collect().await.map_err(|e| format!("{}: {e}", query.server))?;
            serde_json::from_slice::<Value>(&body.to_bytes()).map_err(|e| format!("{}: {e}", query.server))
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        one_number(&answer.map_err(|_| format!("{} did not answer in time", query.server))??)
    }

    async fn hook(&self, hook: &Hook, release: &Release, step: usize) -> Result<(), String> {
        match &hook.call {
            HookCall::Http(url) => {
                let mut body =
                    json!({"release": release.name.to_string(), "host": release.host.to_string(), "step": step});
                if !hook.metadata.is_empty() {
                    body["metadata"] = json!(hook.metadata);
                }
                self.post(url, "application/json", &body, hook.timeout).await
            }
            HookCall::Command(words) => {
                let Some((program, arguments)) = words.split_first() else { return Ok(()) };
                let mut command = tokio::process::Command::new(program);
                command
                    .args(arguments)
                    .env("SERIN_RELEASE", release.name.to_string())
                    .env("SERIN_STEP", step.to_string());
                for (name, value) in &hook.metadata {
                    command.env(format!("SERIN_METADATA_{}", name.to_ascii_uppercase().replace('-', "_")), value);
                }
                command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).kill_on_drop(true);
                match tokio::time::timeout(hook.timeout, command.status()).await {
                    Err(_) => Err(format!("{program} took longer than {} s", hook.timeout.as_secs_f64())),
                    Ok(Err(error)) => Err(format!("{program} cannot be run: {error}")),
                    Ok(Ok(status)) if status.success() => Ok(()),
                    Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
                }
            }
        }
    }

    async fn post(&self, url: &str, form: &str, body: &Value, limit: Duration) -> Result<(), String> {
        let request = Request::post(url).header("content-type", form).body(Full::from(body.to_string()));
        let request = request.map_err(|e| format!("{url}: {e}"))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| format!("{url}: {e}"))?;
            let status = response.status();
            let _ = response.into_body().collect().await;
            if status.is_success() { Ok(()) } else { Err(format!("{url} answered {status}")) }
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| format!("{url} did not answer in time"))?
    }
}

/// The one number of an answer of Prometheus.
fn one_number(answer: &Value) -> Result<f64, String> {
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or("no answer of a Prometheus").to_owned());
    }
    let result = &answer["data"]["result"];
    let value = match (answer["data"]["resultType"].as_str(), result.as_array().map(Vec::as_slice)) {
        (Some("scalar"), _) => &result[1],
        (_, Some([one])) => &one["value"][1],
        (_, Some([])) => return Err("the answer is empty".to_owned()),
        (_, Some(many)) => return Err(format!("the answer has {} series; aggregate them to one", many.len())),
        _ => return Err("the answer is neither a vector nor a scalar".to_owned()),
    };
    let number = value.as_str().and_then(|v| v.parse().ok()).filter(|v: &f64| v.is_finite());
    number.ok_or_else(|| format!("{value} is not a number"))
}

/// Which of the events of one look people are told of: the one that says most, if any does. Programs are told of all.
fn chat(events: &[Event]) -> Option<usize> {
    let weight = |event: &Event| match (event.event, event.phase) {
        (EventKind::Done, _) => 4,
        (EventKind::Verdict, _) => 3,
        (EventKind::Action, _) => 2,
        (EventKind::Step, _) => 1,
        (EventKind::Phase, Phase::AwaitingApproval | Phase::Guarding | Phase::RollingBack)
            if !event.reason.is_empty() =>
        {
            2
        }
        _ => 0,
    };
    let best = events.iter().enumerate().max_by_key(|(number, event)| (weight(event), *number))?;
    (weight(best.1) > 0).then_some(best.0)
}

fn message(alert: &Alert, release: &str, event: &Event) -> Value {
    match &alert.form {
        AlertForm::Slack(template) => {
            let kind = |v: Value| v.as_str().unwrap_or_default().to_owned();
            let text = template
                .replace("{release}", release)
                .replace("{phase}", event.phase.words())
                .replace("{event}", &kind(json!(event.event)))
                .replace("{step}", &(event.step + 1).to_string())
                .replace("{weight}", &event.weights.configured.to_string())
                .replace("{reason}", &event.reason);
            json!({"text": text})
        }
        AlertForm::CloudEvent => json!({
            "specversion": "1.0",
            "type": format!("dev.serin.release.{}", json!(event.event).as_str().unwrap_or_default()),
            "source": "/serin/pilot",
            "subject": release,
            "id": format!("{release}-{}-{:?}-{:?}-{}", event.at, event.event, event.phase, event.step),
            "datacontenttype": "application/json",
            "data": event,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serin_delivery::Weights;

    use super::*;

    fn event(event: EventKind, phase: Phase, reason: &str) -> Event {
        let (weights, reason) = (Weights::default(), reason.to_owned());
        Event { at: 0, event, phase, step: 0, weights, reason, outcome: None }
    }

    /// People get one message of a transition: of all that happens in a look, the event that says most.
    #[test]
    fn of_one_look_one_event_is_told() {
        let step = event(EventKind::Step, Phase::Shifting, "step 2");
        let phase = |phase| event(EventKind::Phase, phase, "why");
        let verdict = event(EventKind::Verdict, Phase::RollingBack, "7 of 9 failed");
        let done = event(EventKind::Done, Phase::Promoted, "");
        for (events, told) in [
            (vec![], None),
            (vec![phase(Phase::WarmingUp), phase(Phase::Baking)], None),
            (vec![phase(Phase::After), step.clone(), phase(Phase::Shifting)], Some(1)),
            (vec![phase(Phase::AwaitingApproval)], Some(0)),
            (vec![event(EventKind::Phase, Phase::AwaitingApproval, "")], None),
            (vec![verdict.clone(), phase(Phase::RollingBack)], Some(0)),
            (vec![step.clone(), phase(Phase::Guarding), done.clone(), step], Some(2)),
            (vec![event(EventKind::Evidence, Phase::Baking, "1 of 2")], None),
        ] {
            assert_eq!(chat(&events), told, "{events:?}");
        }
    }
}
