//! The collecting end.

use std::sync::Arc;

use envoy_types::pb::envoy::service::load_stats::v3 as pb;

use super::{Load, Wanted, wire};
use crate::grpc::{Call, Failure, Served, Service};
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

impl<C> Collector<C> {
    /// Creates the service.
    #[must_use]
    pub fn new(collect: Arc<C>) -> Self {
        Self(collect)
    }
}

impl<C: Collect> Service for Collector<C> {
    fn name(&self) -> &'static str {
        "envoy.service.load_stats.v3.LoadReportingService"
    }

    fn call(&self, method: &str, call: Call) -> Option<Served> {
        (method == "StreamLoadStats").then(|| Box::pin(collect(self.0.clone(), call)) as Served)
    }
}

async fn collect<C: Collect>(collect: Arc<C>, mut call: Call) -> Result<(), Failure> {
    let Some(first) = call.message::<pb::LoadStatsRequest>().await? else { return Ok(()) };
    let node = first.node.as_ref().map(Node::from).unwrap_or_default();
    if !call.send(&wire::asking(&collect.wanted(&node))).await {
        return Ok(());
    }
    let peer = call.peer().to_string();
    while let Some(request) = call.message::<pb::LoadStatsRequest>().await? {
        let loads = request.cluster_stats.into_iter().map(wire::from_message).collect();
        collect.report(&node, &peer, loads);
    }
    Ok(())
}
