//! Spans on their way to collectors: batches, each with one call; what a collector does not take is dropped and counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serin_resources::tracing::Provider;
use serin_telemetry::otlp::{EXPORT, ExportRequest, ExportResponse, Span};
use serin_xds::client::Connector;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::discovery::SharedStore;
use crate::error::Error;
use crate::spans::{DROPPED, SENT};
use crate::tls::ClientSlot;

/// Spans in one call at most, and how long the first of them waits for others.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_millis(500);

/// The time that a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Collectors whose connections are kept; those of a cluster come and go.
const KEPT: usize = 16;

/// Connections by address, and by the TLS that they have.
type Channels = BTreeMap<(String, Option<usize>), Channel>;

/// Sends spans until the process ends.
pub(crate) async fn run(store: SharedStore, mut spans: mpsc::Receiver<(Provider, Span)>) {
    let mut channels = Channels::new();
    while let Some((provider, span)) = spans.recv().await {
        let mut batches: BTreeMap<Provider, Vec<Span>> = BTreeMap::from([(provider, vec![span])]);
        let more = async {
            for _ in 1..BATCH {
                let Some((provider, span)) = spans.recv().await else { return };
                batches.entry(provider).or_default().push(span);
            }
        };
        let _ = tokio::time::timeout(DELAY, more).await;
        for (provider, batch) in batches {
            let count = batch.len() as u64;
            match export(&store, &mut channels, &provider, batch).await {
                Ok(()) => SENT.fetch_add(count, Relaxed),
                Err(reason) => {
                    tracing::debug!("{count} spans of {} are lost: {reason}", provider.service);
                    DROPPED.fetch_add(count, Relaxed)
                }
            };
        }
    }
}

async fn export(
    store: &SharedStore,
    channels: &mut Channels,
    provider: &Provider,
    batch: Vec<Span>,
) -> Result<(), Error> {
    let mut tls = None;
    let address = match provider.cluster.as_str() {
        "" => provider.address.clone(),
        cluster => {
            let (address, slot) = member(store, cluster).ok_or(Error::NoCollector)?;
            tls = slot;
            address.to_string()
        }
    };
    // A cluster that speaks TLS from now on gets a new connection.
    let key = (address.clone(), tls.as_ref().map(|slot| Arc::as_ptr(slot).addr()));
    let channel = match channels.get(&key) {
        Some(channel) => channel.clone(),
        None => {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
            let channel = match tls {
                Some(slot) => {
                    let name = slot.settings.server_name.clone();
                    endpoint.connect_with_connector_lazy(Connector(slot.into_identity(&name)))
                }
                None => endpoint.connect_lazy(),
            };
            if channels.len() >= KEPT {
                channels.pop_first();
            }
            channels.entry(key).or_insert(channel).clone()
        }
    };
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let codec: ProstCodec<ExportRequest, ExportResponse> = ProstCodec::default();
    let request = tonic::Request::new(ExportRequest::new(&provider.service, batch));
    let call = client.unary(request, tonic::codegen::http::uri::PathAndQuery::from_static(EXPORT), codec);
    call.await?;
    Ok(())
}

/// Some endpoint of a cluster that is fit.
fn member(store: &SharedStore, cluster: &str) -> Option<(SocketAddr, Option<Arc<ClientSlot>>)> {
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = store.clusters_in_use().find(|c| c.config.name == cluster)?.clone();
    let fit = cluster.members.iter().find(|m| cluster.left_out(m).is_none());
    fit.or(cluster.members.first()).map(|m| (m.host.address, m.tls.clone()))
}
