//! Waiting until everything answers, and finding out where.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use super::options::DataPlane;
use super::plan::{Part, Plan};
use super::processes::Processes;
use crate::client::Client;

const QUESTION: Duration = Duration::from_millis(500);

/// Returns true when a proxy serves; `None` when it takes its time to say so, which means that it is busy, not that it is gone.
pub(super) async fn is_ready(client: &Client, admin: SocketAddr) -> Option<bool> {
    match client.get(&format!("http://{admin}/ready"), QUESTION).await {
        Ok((status, _)) => Some(status.is_success()),
        Err(error) if error.is::<tokio::time::error::Elapsed>() => None,
        Err(_) => Some(false),
    }
}

/// Waits until every application and proxy answers.
pub(super) async fn wait(plan: &Plan, processes: &mut Processes) -> anyhow::Result<()> {
    let client = Client::new();
    let patience = Duration::from_secs(if plan.data_plane == DataPlane::Envoy { 120 } else { 30 });
    let started = Instant::now();
    let mut waiting: Vec<(Part, String)> = vec![(Part::Pilot, format!("http://{}/ready", plan.pilot_admin))];
    for (index, instance) in plan.instances.iter().enumerate() {
        waiting.push((Part::App(index), format!("http://{}/health", instance.app)));
        if let Some(proxy) = &instance.proxy {
            waiting.push((Part::Proxy(index), format!("http://{}/ready", proxy.admin)));
        }
    }
    waiting.push((Part::Gateway, format!("http://{}/ready", plan.gateway.admin)));
    while let Some((part, url)) = waiting.first().cloned() {
        if let Ok(ended) = processes.ended.try_recv() {
            let what = plan.describe(ended.part);
            bail!("{what} ended before it was ready ({})", ended.status.map(|s| s.to_string()).unwrap_or_default());
        }
        if matches!(client.get(&url, QUESTION).await, Ok((status, _)) if status.is_success()) {
            waiting.remove(0);
        } else if started.elapsed() > patience {
            bail!("{} is not ready after {} s ({url} does not answer 200)", plan.describe(part), patience.as_secs());
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// The addresses for people.
pub(super) struct Places {
    /// The page.
    pub(super) productpage: String,
    /// The gateway, when a Gateway opens one.
    pub(super) gateway: Option<String>,
}

/// Asks the gateway where it listens; without a Gateway the page is reached at its own proxy.
pub(super) async fn places(plan: &Plan) -> Places {
    let client = Client::new();
    let direct =
        plan.of_service("productpage").next().map(|i| format!("http://{}", i.reached_at())).unwrap_or_default();
    let mut gateway = None;
    for _ in 0..100 {
        gateway = listener(&client, plan.gateway.admin).await;
        let Some(url) = &gateway else { break };
        match client.get(&format!("{url}/productpage"), Duration::from_secs(8)).await {
            Ok((status, _)) if status.is_success() || status.is_client_error() => break,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let base = gateway.clone().unwrap_or(direct);
    Places { productpage: format!("{base}/productpage"), gateway }
}

async fn listener(client: &Client, admin: SocketAddr) -> Option<String> {
    let (_, body) = client.get(&format!("http://{admin}/listeners?format=json"), QUESTION).await.ok()?;
    let value: Value = serde_json::from_slice(&body).ok()?;
    let address = &value["listener_statuses"].as_array()?.first()?["local_address"]["socket_address"];
    Some(format!("http://127.0.0.1:{}", address["port_value"].as_u64()?))
}
