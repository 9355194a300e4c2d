//! The aggregated discovery service over tonic: one task a stream, one session in it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3 as pb;
use envoy_types::pb::google::protobuf::Any;
use pb::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::error::Error;
use crate::message::{Node, Peer, Resource, ResourceMap};
use crate::server::session::{Mode, Request, Response, Session, TypeStatus};
use crate::type_spec::TypeSpec;

/// What a client is served from.
pub struct Feed {
    /// The newest resources for it.
    pub resources: watch::Receiver<Arc<ResourceMap>>,
    /// Identifies the stream towards [`Control`].
    pub stream: u64,
}

/// A client that wants to be served.
#[derive(Debug, Clone)]
pub struct Client {
    /// Who it says it is.
    pub node: Node,
    /// Who it is as far as the transport knows.
    pub peer: Peer,
    /// The variant of the protocol that it speaks.
    pub mode: Mode,
}

/// The control plane behind the service.
pub trait Control: Send + Sync + 'static {
    /// Admits a client. It may take as long as a translation of the mesh takes: it is called where blocking is allowed.
    ///
    /// # Errors
    /// [`Error::Refused`] when the client cannot be served, such as for a malformed node id.
    fn connect(&self, client: &Client) -> Result<Feed, Error>;
    /// Tells how a client stands with the resources of the version `known`, after every exchange.
    fn status(&self, stream: u64, known: &Arc<str>, status: Vec<TypeStatus>);
    /// A stream ended.
    fn disconnect(&self, stream: u64);
}

/// The service; one for the whole process.
pub struct Discovery<C> {
    control: Arc<C>,
    types: Vec<TypeSpec>,
    /// Clients that may get their first configuration at the same time.
    admission: Arc<Semaphore>,
}

/// How long a client may take with its first configuration until others no longer wait for it.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(1);

impl<C: Control> Discovery<C> {
    /// Makes the tonic service for these types. When many clients connect at once, `admitted` of them get their first configuration
    /// at a time, so that the encoded configurations of all never stand in memory together.
    #[must_use]
    pub fn service(control: Arc<C>, types: &[TypeSpec], admitted: usize) -> AggregatedDiscoveryServiceServer<Self> {
        let admission = Arc::new(Semaphore::new(admitted.max(1)));
        AggregatedDiscoveryServiceServer::new(Self { control, types: types.to_vec(), admission })
    }

    fn start<Q, R>(&self, mode: Mode, peer: Peer, requests: Streaming<Q>) -> Outgoing<R>
    where
        Q: Wire + Send + 'static,
        R: From<Response> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(4);
        let session = Session::new(mode, &self.types);
        let admission = self.admission.clone();
        let stream = StreamTask { control: self.control.clone(), session, mode, sender, peer, admission };
        tokio::spawn(stream.run(requests));
        Box::pin(ReceiverStream::new(receiver))
    }
}

type Outgoing<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// A request message of either variant.
trait Wire {
    fn node(&self) -> Option<Node>;
    fn into_request(self) -> Request;
}

struct StreamTask<C, R> {
    control: Arc<C>,
    session: Session,
    mode: Mode,
    sender: mpsc::Sender<Result<R, Status>>,
    peer: Peer,
    admission: Arc<Semaphore>,
}

impl<C: Control, R: From<Response> + Send + 'static> StreamTask<C, R> {
    async fn run<Q: Wire + Send + 'static>(mut self, mut requests: Streaming<Q>) {
        let Some(Ok(first)) = requests.next().await else { return };
        let admitted = self.admission.clone().acquire_owned().await.ok();
        let client = Client { node: first.node().unwrap_or_default(), peer: self.peer.clone(), mode: self.mode };
        let control = self.control.clone();
        let feed = match tokio::task::spawn_blocking(move || control.connect(&client)).await {
            Ok(Ok(feed)) => feed,
            Ok(Err(reason)) => {
                tracing::warn!(peer = %self.peer.address, "{reason}");
                let _ = self.sender.send(Err(Status::invalid_argument(reason.to_string()))).await;
                return;
            }
            Err(failed) => {
                tracing::error!(peer = %self.peer.address, "a client cannot be served: {failed}");
                return;
            }
        };
        let stream = feed.stream;
        self.serve(first.into_request(), feed, requests, admitted).await;
        self.control.disconnect(stream);
    }

    async fn serve<Q: Wire + Send + 'static>(
        &mut self,
        first: Request,
        mut feed: Feed,
        mut requests: Streaming<Q>,
        mut admitted: Option<OwnedSemaphorePermit>,
    ) {
        let until = Instant::now() + FIRST_CONFIGURATION;
        self.session.set_resources(feed.resources.borrow_and_update().clone());
        self.session.on_request(&first);
        loop {
            while let Some(response) = self.session.poll(Instant::now()) {
                if self.sender.send(Ok(response.into())).await.is_err() {
                    return;
                }
            }
            if admitted.is_some() && (self.session.is_complete() || Instant::now() >= until) {
                admitted = None;
            }
            self.control.status(feed.stream, self.session.version(), self.session.status());
            let wait = self.session.deadline().into_iter().chain(admitted.as_ref().map(|_| until)).min();
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => self.session.on_request(&request.into_request()),
                    Some(Err(error)) => {
                        tracing::debug!(peer = %self.peer.address, %error, "discovery stream failed");
                        return;
                    }
                    None => return,
                },
                changed = feed.resources.changed() => match changed {
                    Ok(()) => self.session.set_resources(feed.resources.borrow_and_update().clone()),
                    Err(_) => return,
                },
                () = sleep_until(wait) => {}
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl<C: Control> AggregatedDiscoveryService for Discovery<C> {
    type StreamAggregatedResourcesStream = Outgoing<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamAggregatedResourcesStream>, Status> {
        let peer = peer(&request);
        Ok(tonic::Response::new(self.start(Mode::Sotw, peer, request.into_inner())))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = peer(&request);
        Ok(tonic::Response::new(self.start(Mode::Delta, peer, request.into_inner())))
    }
}

fn peer<T>(request: &tonic::Request<T>) -> Peer {
    let address = request.remote_addr().map_or_else(|| "unknown".to_owned(), |a| a.to_string());
    Peer { address, spiffe_id: None }
}

impl Wire for pb::DiscoveryRequest {
    fn node(&self) -> Option<Node> {
        self.node.as_ref().map(Node::from)
    }

    fn into_request(self) -> Request {
        Request {
            type_url: self.type_url,
            nonce: self.response_nonce,
            error: self.error_detail.map(|e| e.message),
            names: self.resource_names,
            ..Request::default()
        }
    }
}

impl Wire for pb::DeltaDiscoveryRequest {
    fn node(&self) -> Option<Node> {
        self.node.as_ref().map(Node::from)
    }

    fn into_request(self) -> Request {
        Request {
            type_url: self.type_url,
            nonce: self.response_nonce,
            error: self.error_detail.map(|e| e.message),
            subscribe: self.resource_names_subscribe,
            unsubscribe: self.resource_names_unsubscribe,
            initial_versions: self.initial_resource_versions.into_iter().collect(),
            ..Request::default()
        }
    }
}

fn any(type_url: &str, resource: &Resource) -> Any {
    Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }
}

impl From<Response> for pb::DiscoveryResponse {
    fn from(response: Response) -> Self {
        Self {
            resources: response.resources.iter().map(|r| any(&response.type_url, r)).collect(),
            version_info: response.version,
            nonce: response.nonce,
            type_url: response.type_url,
            ..Self::default()
        }
    }
}

impl From<Response> for pb::DeltaDiscoveryResponse {
    fn from(response: Response) -> Self {
        let resources = response.resources.iter().map(|r| pb::Resource {
            name: r.name.to_string(),
            version: r.version.clone(),
            resource: Some(any(&response.type_url, r)),
            ..Default::default()
        });
        Self {
            resources: resources.collect(),
            system_version_info: response.version,
            nonce: response.nonce,
            type_url: response.type_url,
            removed_resources: response.removed,
            ..Self::default()
        }
    }
}
