//! What releases do outside: hooks before and after steps, and telling people.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use serin_delivery::{Action, Command, Event, EventKind};
use serin_model::{Alert, AlertForm, Hook, HookCall, Release};

use super::{Due, Releases};

/// Does it.
#[derive(Clone)]
pub(crate) struct Outside {
    client: Client<HttpConnector, Full<Bytes>>,
    running: Arc<std::sync::Mutex<std::collections::BTreeSet<String>>>,
}

/// How long somebody who is told may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Outside {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        Self { client: Client::builder(TokioExecutor::new()).build(connector), running: Arc::default() }
    }

    /// Does what a look asks for, without holding it up.
    pub(crate) fn act(&self, due: Due, releases: &Arc<Releases>) {
        for action in &due.actions {
            let Action::Hook { step, before, number } = *action;
            let hooks = due.release.steps.get(step).map(|s| if before { &s.before } else { &s.after });
            let Some(hook) = hooks.and_then(|h| h.get(number)).cloned() else { continue };
            let key = format!("{} {step} {before} {number}", due.release.name);
            let mut running = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if running.insert(key.clone()) {
                let (outside, releases, release) = (self.clone(), releases.clone(), due.release.clone());
                tokio::spawn(async move {
                    let result = outside.hook(&hook, &release, step).await;
                    let _ = releases.command(&release.name, "hook", Command::Hooked(result));
                    outside.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&key);
                });
            }
        }
        let told = [EventKind::Phase, EventKind::Verdict, EventKind::Done, EventKind::Action];
        for event in due.events.into_iter().filter(|e| told.contains(&e.event)) {
            for alert in due.release.alerts.clone() {
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

    async fn hook(&self, hook: &Hook, release: &Release, step: usize) -> Result<(), String> {
        match &hook.call {
            HookCall::Http(url) => {
                let body = json!({"release": release.name.to_string(), "host": release.host.to_string(), "step": step});
                self.post(url, "application/json", &body, hook.timeout).await
            }
            HookCall::Command(words) => {
                let Some((program, arguments)) = words.split_first() else { return Ok(()) };
                let mut command = tokio::process::Command::new(program);
                command
                    .args(arguments)
                    .env("SERIN_RELEASE", release.name.to_string())
                    .env("SERIN_STEP", step.to_string());
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

fn message(alert: &Alert, release: &str, event: &Event) -> Value {
    match &alert.form {
        AlertForm::Slack(template) => {
            let kind = |v: Value| v.as_str().unwrap_or_default().to_owned();
            let text = template
                .replace("{release}", release)
                .replace("{phase}", &kind(json!(event.phase)))
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
            "id": format!("{release}-{}-{}", event.at, json!(event.event).as_str().unwrap_or_default()),
            "datacontenttype": "application/json",
            "data": event,
        }),
    }
}
