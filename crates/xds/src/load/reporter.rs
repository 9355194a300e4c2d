//! The reporting end: one stream, for ever, at the pace the server asks for.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::load_stats::v3 as pb;
use pb::load_reporting_service_client::LoadReportingServiceClient as Client;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{Load, Wanted, wire};
use crate::client::{Connections, jitter};

/// Where loads come from.
pub trait Measure {
    /// A server asks for loads. What was measured before one did for the first time is not told; what was measured between two
    /// streams is.
    fn begin(&mut self);
    /// What was sent since the last call to clusters of these names (`None`: to all of them); a cluster that got
    /// nothing is left out.
    fn loads(&mut self, clusters: Option<&[String]>) -> Vec<Load>;
}

/// How long to wait after a stream that failed: this, doubling to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// When to ask a server again that knows no load reports.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);

/// The shortest time between two reports.
const FASTEST: Duration = Duration::from_millis(50);

/// Reports to one of several servers (`host:port`), as the node of these bytes, until the task is dropped; to a server that configuration
/// comes from over the same connection.
pub async fn run<M: Measure>(servers: Vec<String>, node: Vec<u8>, connections: Connections, mut measure: M) {
    let mut node = core::Node::decode(node.as_slice()).unwrap_or_default();
    node.client_features.push(wire::ALL_CLUSTERS.to_owned());
    let mut wait = FIRST_WAIT;
    let mut last = None;
    for attempt in 0usize.. {
        let Some(server) = servers.get(attempt % servers.len().max(1)) else { return };
        match report(server, &connections, &node, &mut measure, &mut last).await {
            Err(status) if status.code() == tonic::Code::Unimplemented => wait = UNKNOWN_WAIT,
            Err(status) => tracing::debug!("load reports to {server}: {}", status.message()),
            Ok(()) => wait = FIRST_WAIT,
        }
        tokio::time::sleep(jitter(wait)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// One stream; `last` is when loads were taken last, by this stream or one before it.
async fn report<M: Measure>(
    server: &str,
    connections: &Connections,
    node: &core::Node,
    measure: &mut M,
    last: &mut Option<Instant>,
) -> Result<(), tonic::Status> {
    let channel = connections.get(server).await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let (sender, receiver) = mpsc::channel(1);
    let hello = pb::LoadStatsRequest { node: Some(node.clone()), cluster_stats: Vec::new() };
    let gone = |_| tonic::Status::unavailable("the stream closed");
    sender.send(hello).await.map_err(gone)?;
    let mut answers = Client::new(channel).stream_load_stats(ReceiverStream::new(receiver)).await?.into_inner();
    let mut wanted: Option<Wanted> = None;
    loop {
        let every = wanted.as_ref().map(|w| w.every.max(FASTEST));
        let due = every.zip(*last).map(|(every, last)| tokio::time::Instant::from_std(last + every));
        tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => {
                    if wanted.is_none() {
                        measure.begin();
                        last.get_or_insert_with(Instant::now);
                    }
                    wanted = Some(wire::wanted(answer?));
                }
                None => return Ok(()),
            },
            () = at(due) => {
                let Some(wanted) = &wanted else { continue };
                let during = last.replace(Instant::now()).map_or(Duration::ZERO, |last| last.elapsed());
                let loads = measure.loads(wanted.clusters.as_deref());
                let stats = loads.into_iter().map(|load| wire::to_message(Load { during, ..load }, wanted.endpoints));
                let report = pb::LoadStatsRequest { node: None, cluster_stats: stats.collect() };
                sender.send(report).await.map_err(gone)?;
            }
        }
    }
}

async fn at(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
