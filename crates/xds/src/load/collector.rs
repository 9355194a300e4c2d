//! The collecting end.

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::load_stats::v3 as pb;
use pb::load_reporting_service_server::{LoadReportingService, LoadReportingServiceServer};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{Load, Wanted, wire};
use crate::message::Node;

/// What becomes of reports.
pub trait Collect: Send + Sync + 'static {
    /// What a proxy is asked for.
    fn wanted(&self, node: &Node) -> Wanted;
    /// Takes one report of a proxy in; `peer` is where it came from.
    fn report(&self, node: &Node, peer: &str, loads: Vec<Load>);
}

/// The service; one for the whole process.
pub struct Collector<C>(Arc<C>);

impl<C: Collect> Collector<C> {
    /// The tonic service.
    #[must_use]
    pub fn service(collect: Arc<C>) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(Self(collect)).max_decoding_message_size(64 << 20)
    }
}

#[tonic::async_trait]
impl<C: Collect> LoadReportingService for Collector<C> {
    type StreamLoadStatsStream = Pin<Box<dyn Stream<Item = Result<pb::LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: tonic::Request<Streaming<pb::LoadStatsRequest>>,
    ) -> Result<tonic::Response<Self::StreamLoadStatsStream>, Status> {
        let peer = request.remote_addr().map_or_else(|| "unknown".to_owned(), |a| a.to_string());
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(collect(self.0.clone(), peer, request.into_inner(), sender));
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn collect<C: Collect>(
    collect: Arc<C>,
    peer: String,
    mut requests: Streaming<pb::LoadStatsRequest>,
    sender: mpsc::Sender<Result<pb::LoadStatsResponse, Status>>,
) {
    let Some(Ok(first)) = requests.next().await else { return };
    let node = first.node.as_ref().map(Node::from).unwrap_or_default();
    if sender.send(Ok(wire::asking(&collect.wanted(&node)))).await.is_err() {
        return;
    }
    while let Some(Ok(request)) = requests.next().await {
        let loads = request.cluster_stats.into_iter().map(wire::from_message).collect();
        collect.report(&node, &peer, loads);
    }
}
