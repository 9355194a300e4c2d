//! Envoy's metrics service: how long requests took, of proxies whose load reports do not say it.
//!
//! Of everything that Envoy sends only `cluster.NAME.upstream_rq_time` is looked at: cumulative buckets since the proxy began.

use std::sync::Arc;

use envoy_types::pb::envoy::service::metrics::v3 as pb;
use envoy_types::pb::io::prometheus::client::MetricFamily;
use pb::metrics_service_server::{MetricsService, MetricsServiceServer};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};

use crate::message::Node;

/// How long the requests of a cluster took, since its proxy began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// The cluster.
    pub cluster: String,
    /// Upper bounds in milliseconds, with the requests that took at most that long.
    pub buckets: Vec<(f64, u64)>,
}

/// What becomes of times.
pub trait Clocked: Send + Sync + 'static {
    /// Takes what a proxy sends in.
    fn times(&self, node: &Node, times: Vec<Times>);
}

/// The service; one for the whole process.
pub struct Clock<C>(Arc<C>);

impl<C: Clocked> Clock<C> {
    /// The tonic service.
    #[must_use]
    pub fn service(clocked: Arc<C>) -> MetricsServiceServer<Self> {
        MetricsServiceServer::new(Self(clocked)).max_decoding_message_size(64 << 20)
    }
}

#[tonic::async_trait]
impl<C: Clocked> MetricsService for Clock<C> {
    async fn stream_metrics(
        &self,
        request: tonic::Request<Streaming<pb::StreamMetricsMessage>>,
    ) -> Result<tonic::Response<pb::StreamMetricsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut node = Node::default();
        while let Some(Ok(message)) = messages.next().await {
            if let Some(identifier) = message.identifier.as_ref().and_then(|i| i.node.as_ref()) {
                node = Node::from(identifier);
            }
            let times: Vec<Times> = message.envoy_metrics.iter().filter_map(read).collect();
            if !times.is_empty() {
                self.0.times(&node, times);
            }
        }
        Ok(tonic::Response::new(pb::StreamMetricsResponse {}))
    }
}

fn read(family: &MetricFamily) -> Option<Times> {
    let cluster = family.name.as_deref()?.strip_prefix("cluster.")?.strip_suffix(".upstream_rq_time")?;
    let histogram = family.metric.first()?.histogram.as_ref()?;
    let bucket = |b: &envoy_types::pb::io::prometheus::client::Bucket| Some((b.upper_bound?, b.cumulative_count?));
    let buckets: Vec<(f64, u64)> = histogram.bucket.iter().filter_map(bucket).collect();
    Some(Times { cluster: cluster.to_owned(), buckets })
}
