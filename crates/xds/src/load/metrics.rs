//! Envoy's metrics service: how long requests took, of proxies whose load reports do not say it.
//!
//! Of everything that Envoy sends only `cluster.NAME.upstream_rq_time` is looked at, and the counters of statuses
//! (`cluster.NAME.upstream_rq_404`), but of 2xx: all are cumulative since the proxy began.

use std::sync::Arc;

use envoy_types::pb::envoy::service::metrics::v3 as pb;
use envoy_types::pb::io::prometheus::client::MetricFamily;

use crate::grpc::{Call, Failure, Served, Service};
use crate::message::Node;

/// How long the requests of a cluster took, since its proxy began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// The cluster.
    pub cluster: String,
    /// Upper bounds in milliseconds, with the requests that took at most that long.
    pub buckets: Vec<(f64, u64)>,
    /// Statuses, with the requests that were answered so; beside it there are no buckets.
    pub answers: Vec<(u16, u64)>,
}

/// What becomes of times.
pub trait Clocked: Send + Sync + 'static {
    /// Takes what a proxy sends in; `peer` is where it came from.
    fn times(&self, node: &Node, peer: &str, times: Vec<Times>);
}

/// The service; one for the whole process.
pub struct Clock<C>(Arc<C>);

impl<C> Clock<C> {
    /// Creates the service.
    #[must_use]
    pub fn new(clocked: Arc<C>) -> Self {
        Self(clocked)
    }
}

impl<C: Clocked> Service for Clock<C> {
    fn name(&self) -> &'static str {
        "envoy.service.metrics.v3.MetricsService"
    }

    fn call(&self, method: &str, call: Call) -> Option<Served> {
        (method == "StreamMetrics").then(|| Box::pin(receive(self.0.clone(), call)) as Served)
    }
}

async fn receive<C: Clocked>(clocked: Arc<C>, mut call: Call) -> Result<(), Failure> {
    let peer = call.peer().to_string();
    let mut node = Node::default();
    while let Some(message) = call.message::<pb::StreamMetricsMessage>().await? {
        if let Some(identifier) = message.identifier.as_ref().and_then(|i| i.node.as_ref()) {
            node = Node::from(identifier);
        }
        let times: Vec<Times> = message.envoy_metrics.iter().filter_map(read).collect();
        if !times.is_empty() {
            clocked.times(&node, &peer, times);
        }
    }
    call.send(&pb::StreamMetricsResponse {}).await;
    Ok(())
}

fn read(family: &MetricFamily) -> Option<Times> {
    let (cluster, name) = family.name.as_deref()?.strip_prefix("cluster.")?.rsplit_once(".upstream_rq_")?;
    let metric = family.metric.first()?;
    if name == "time" {
        let bucket = |b: &envoy_types::pb::io::prometheus::client::Bucket| Some((b.upper_bound?, b.cumulative_count?));
        let buckets: Vec<(f64, u64)> = metric.histogram.as_ref()?.bucket.iter().filter_map(bucket).collect();
        return Some(Times { cluster: cluster.to_owned(), buckets, answers: Vec::new() });
    }
    let status = name.parse::<u16>().ok().filter(|status| (100..600).contains(status) && status / 100 != 2)?;
    let count = metric.counter.as_ref()?.value?;
    Some(Times { cluster: cluster.to_owned(), buckets: Vec::new(), answers: vec![(status, count as u64)] })
}
