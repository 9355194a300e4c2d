//! Clients that do not read their first configuration, and those that wait behind them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3 as pb;
use pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use prost::Message as _;
use serin_transport::{ByteStream, Listener};
use serin_xds::grpc::{self, Service};
use serin_xds::server::{Client, Control, Discovery, Feed, TypeStatus};
use serin_xds::{Error, Resource, ResourceMap, TYPES, TypeMap};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, watch};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// Has one large cluster for everybody.
struct Same(watch::Sender<Arc<ResourceMap>>);

impl Control for Same {
    fn connect(&self, _: &Client) -> Result<Feed, Error> {
        Ok(Feed { resources: self.0.subscribe(), stream: 1 })
    }

    fn status(&self, _: u64, _: &Arc<str>, _: Vec<TypeStatus>) {}

    fn disconnect(&self, _: u64) {}
}

fn request() -> pb::DeltaDiscoveryRequest {
    pb::DeltaDiscoveryRequest { type_url: CLUSTER.to_owned(), ..Default::default() }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A field of a header block as text, without Huffman codes.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// Connects and asks for everything on some streams, with windows that never open.
async fn unread(address: std::net::SocketAddr, streams: u8) -> ByteStream {
    let mut stream = ByteStream::connect(address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")];
    let mut head: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    head.extend(field("content-type", "application/grpc"));
    head.extend(field("te", "trailers"));
    let message = request().encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let message = [&[0], &length[..], &message].concat();
    for number in 0..streams {
        bytes.extend(frame(1, 4, 2 * number + 1, &head));
        bytes.extend(frame(0, 0, 2 * number + 1, &message));
    }
    stream.write_all(&bytes).await.unwrap();
    stream
}

async fn first_response(address: std::net::SocketAddr) -> pb::DeltaDiscoveryResponse {
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request()).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut responses = client.delta_aggregated_resources(requests).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap()
}

/// With one place for all, clients that never read let another have its configuration, however many streams each has.
#[tokio::test]
async fn who_does_not_read_holds_nobody_up() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    let body = vec![7; 100_000].into();
    let resource = Resource { name: "large".into(), version: "1".to_owned(), body };
    let types: TypeMap = [(resource.name.clone(), Arc::new(resource))].into_iter().collect();
    let resources = ResourceMap { version: "v".into(), types: [(CLUSTER, types)].into(), ..ResourceMap::default() };
    let control = Arc::new(Same(watch::channel(Arc::new(resources)).0));
    let discovery = Discovery::new(control, &TYPES, Arc::new(Semaphore::new(1)));
    let services: Rc<[Box<dyn Service>]> = Rc::new([Box::new(discovery)]);
    let serve = async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            tokio::task::spawn_local(grpc::serve(stream, peer, services.clone(), || {}));
        }
    };
    let test = async {
        let _one = unread(address, 60).await;
        let _other = unread(address, 1).await;
        // The pilot gives each of the two a second at most; sixty seconds are those of the first's streams.
        let served = tokio::time::timeout(Duration::from_secs(30), first_response(address)).await;
        assert_eq!(served.unwrap().resources.len(), 1);
    };
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            tokio::select! {
                () = test => {}
                () = serve => {}
            }
        })
        .await;
}
