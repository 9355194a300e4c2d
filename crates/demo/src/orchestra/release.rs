//! A release of reviews v3 under load, as one of several stories.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::plan::Plan;
use super::ready::Places;
use super::scenario::Scenario;
use crate::client::Client;

/// The release; its plan is quick.
const RELEASE: &str = "\
apiVersion: serin.dev/v1alpha1
kind: Release
metadata: {name: reviews-v3, namespace: default}
spec:
  host: reviews
  stable: {labels: {version: v2}}
  candidate: {labels: {version: v3}}
  steps:
  - {weight: 5%, bake: {min: 3s, max: 25s}}
  - {weight: 25%, bake: {min: 3s, max: 20s}}
  - {weight: 50%, bake: {min: 3s, max: 20s}}
  analysis:
    warmup: 1s
    compareLatency: false
    limits: {errorRate: 5%, latency: {quantile: 0.9, max: 1s}}
  guard: 3s
";

/// Plays a story to its end; true when it ends as it should.
pub(super) async fn play(scenario: Scenario, plan: &Plan, places: &Places, as_json: bool) -> anyhow::Result<bool> {
    let url = places.gateway.clone().context("no gateway to send load to")?;
    let load = Load::start(&format!("{url}/api/v1/products/0/reviews"), scenario.rate());
    // The old version has its traffic before the new one comes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::fs::write(plan.rules.join("release.yaml"), RELEASE).context("cannot write the release")?;
    if !as_json {
        let rate = scenario.rate();
        writeln!(std::io::stdout(), "Release reviews-v3 begins, under {rate} requests a second.\n")?;
    }
    let client = Client::new();
    let mut after = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some(events) = events(&client, plan.pilot_admin, after).await else { continue };
        for event in events {
            after = event["number"].as_u64().unwrap_or(after);
            let line = line(&event);
            tell(&line, as_json)?;
            if line["event"] == "done" {
                let (sent, failed) = load.stop();
                let found = line["outcome"].as_str().unwrap_or_default();
                if !as_json {
                    let found = words(found);
                    writeln!(
                        std::io::stdout(),
                        "\nThe release was {found} after {sent} requests, of which {failed} failed."
                    )?;
                }
                return Ok(found == scenario.outcome());
            }
        }
    }
}

async fn events(client: &Client, pilot: SocketAddr, after: u64) -> Option<Vec<Value>> {
    let url = format!("http://{pilot}/api/v1/events?after={after}");
    let (_, body) = client.get(&url, Duration::from_secs(2)).await.ok()?;
    let value: Value = serde_json::from_slice(&body).ok()?;
    value["events"].as_array().cloned()
}

/// An event as the demo's line.
fn line(event: &Value) -> Value {
    let inner = &event["event"];
    let at = inner["at"].as_u64().unwrap_or_default();
    let mut line = json!({
        "time": rfc3339(at),
        "release": event["release"],
        "event": inner["event"],
        "phase": inner["phase"],
        "step": inner["step"],
        "weights": inner["weights"],
        "reason": inner["reason"],
    });
    if inner["outcome"].is_string() {
        line["outcome"] = inner["outcome"].clone();
    }
    line
}

fn rfc3339(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or_default();
    jiff::Timestamp::from_millisecond(millis).map(|t| format!("{t:.3}")).unwrap_or_default()
}

fn tell(line: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{line}")?;
    } else if line["event"] != "evidence" {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let weight = line["weights"]["configured"].as_f64().unwrap_or_default();
        let (event, phase) = (words(&text("event")), words(&text("phase")));
        writeln!(out, "  {event:<9} {phase:<18} {weight:>5} %  {}", text("reason"))?;
    }
    out.flush()?;
    Ok(())
}

/// A name of the API as words: `rolledBack` is `rolled back`.
fn words(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() {
            out.push(' ');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// Requests at an even pace, however long each takes.
struct Load {
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(url: &str, rate: u32) -> Self {
        let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (url, counts) = (url.to_owned(), (sent.clone(), failed.clone()));
        let task = tokio::spawn(async move {
            let client = Client::new();
            let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
            loop {
                pace.tick().await;
                let (client, url, (sent, failed)) = (client.clone(), url.clone(), counts.clone());
                tokio::spawn(async move {
                    let answer = client.get(&url, Duration::from_secs(8)).await;
                    sent.fetch_add(1, Relaxed);
                    if !matches!(answer, Ok((status, _)) if status.is_success()) {
                        failed.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        Self { sent, failed, task }
    }

    fn stop(&self) -> (u64, u64) {
        self.task.abort();
        (self.sent.load(Relaxed), self.failed.load(Relaxed))
    }
}
