//! The aggregated discovery service: one session a stream, which the body of the response polls.
//!
//! The service speaks gRPC over HTTP/2 itself, with tonic's decoder for requests: a session is polled by the task of its stream, without
//! a task and a queue between them, and a response is encoded as the connection takes it ([`Outgoing`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream as _, StreamExt as _};
use tonic::codec::Codec as _;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::error::Error;
use crate::message::{Node, Peer, ResourceMap};
use crate::server::session::{Mode, Request, Session, TypeStatus};
use crate::server::wire::Outgoing;
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
    /// Tells how a client stands with the resources of the version `known`: the types for which that changed. It is called for every
    /// new version, even if nothing of it is for the client.
    fn status(&self, stream: u64, known: &Arc<str>, changed: Vec<TypeStatus>);
    /// A stream ended.
    fn disconnect(&self, stream: u64);
}

/// The service; one for the whole process.
pub struct Discovery<C> {
    control: Arc<C>,
    types: Arc<[TypeSpec]>,
    /// Clients that may get their first configuration at the same time.
    admission: Arc<Semaphore>,
}

impl<C> Clone for Discovery<C> {
    fn clone(&self) -> Self {
        Self { control: self.control.clone(), types: self.types.clone(), admission: self.admission.clone() }
    }
}

/// The time that a client may take with its first configuration until others no longer wait for it.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(1);

impl<C: Control> Discovery<C> {
    /// Makes the service for these types. When many clients connect at once, `admitted` of them get their first configuration at a
    /// time: the first are ready soon, instead of all at the end. A client has its place until it has confirmed what it asked for.
    #[must_use]
    pub fn new(control: Arc<C>, types: &[TypeSpec], admitted: usize) -> Self {
        Self { control, types: types.into(), admission: Arc::new(Semaphore::new(admitted.max(1))) }
    }

    fn start<Q: Wire>(&self, mode: Mode, request: http::Request<tonic::body::Body>) -> tonic::body::Body {
        let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let peer = Peer { address, spiffe_id: None };
        let decoder = ProstCodec::<Q, Q>::default().decoder();
        let requests = Streaming::new_request(decoder, request.into_body(), None, None);
        let greeting = greet(self.clone(), mode, peer, requests);
        tonic::body::Body::new(StreamBody { state: State::Greeting(Box::pin(greeting)), outgoing: None, mode })
    }
}

impl<C> NamedService for Discovery<C> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<C: Control> Service<http::Request<tonic::body::Body>> for Discovery<C> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let encoding = request.headers().get("grpc-encoding");
        let is_compressed = encoding.is_some_and(|encoding| encoding != "identity");
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let body = match method.as_str() {
            _ if is_compressed => Err(Status::unimplemented("compressed requests are not supported")),
            "DeltaAggregatedResources" => Ok(self.start::<pb::DeltaDiscoveryRequest>(Mode::Delta, request)),
            "StreamAggregatedResources" => Ok(self.start::<pb::DiscoveryRequest>(Mode::Sotw, request)),
            _ => Err(Status::unimplemented(format!("there is no method {method}"))),
        };
        let response = match body {
            Ok(body) => {
                let mut response = http::Response::new(body);
                let grpc = http::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        };
        std::future::ready(Ok(response))
    }
}

/// A request message of either variant.
trait Wire: prost::Message + Default + Send + 'static {
    fn node(&self) -> Option<Node>;
    fn into_request(self) -> Request;
}

/// Waits for the first request of a client and admits it; `None` when it leaves before.
async fn greet<C: Control, Q: Wire>(
    service: Discovery<C>,
    mode: Mode,
    peer: Peer,
    mut requests: Streaming<Q>,
) -> Result<Option<Box<Serving<C, Q>>>, Status> {
    let Some(Ok(first)) = requests.next().await else { return Ok(None) };
    let admitted = service.admission.acquire_owned().await.ok();
    let client = Client { node: first.node().unwrap_or_default(), peer: peer.clone(), mode };
    let control = service.control.clone();
    let mut feed = match tokio::task::spawn_blocking(move || control.connect(&client)).await {
        Ok(Ok(feed)) => feed,
        Ok(Err(reason)) => {
            tracing::warn!(peer = %peer.address, "{reason}");
            return Err(Status::invalid_argument(reason.to_string()));
        }
        Err(failed) => {
            tracing::error!(peer = %peer.address, "a client cannot be served: {failed}");
            return Err(Status::internal("the client cannot be served"));
        }
    };
    let mut session = Session::new(mode, &service.types);
    session.set_resources(feed.resources.borrow_and_update().clone());
    session.on_request(&first.into_request());
    Ok(Some(Box::new(Serving {
        control: service.control,
        session,
        requests,
        stream: feed.stream,
        resources: WatchStream::from_changes(feed.resources),
        admitted,
        until: Instant::now() + FIRST_CONFIGURATION,
        alarm: None,
        told: Arc::default(),
        peer,
    })))
}

/// The responses of one stream.
struct StreamBody<C: Control, Q> {
    state: State<C, Q>,
    /// The response that is being sent.
    outgoing: Option<Outgoing>,
    mode: Mode,
}

type Greeting<C, Q> = Pin<Box<dyn Future<Output = Result<Option<Box<Serving<C, Q>>>, Status>> + Send>>;

enum State<C: Control, Q> {
    Greeting(Greeting<C, Q>),
    Serving(Box<Serving<C, Q>>),
    Ended,
}

impl<C: Control, Q: Wire> Body for StreamBody<C, Q> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.outgoing.as_mut().and_then(Outgoing::next_piece) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            self.outgoing = None;
            let end = match &mut self.state {
                State::Greeting(greeting) => match ready!(greeting.as_mut().poll(context)) {
                    Ok(Some(serving)) => {
                        self.state = State::Serving(serving);
                        continue;
                    }
                    Ok(None) => Status::ok(""),
                    Err(status) => status,
                },
                State::Serving(serving) => {
                    let response = serving.session.poll(Instant::now());
                    serving.report();
                    if let Some(response) = response {
                        self.outgoing = Some(Outgoing::new(self.mode, response));
                        continue;
                    }
                    match ready!(serving.poll_event(context)) {
                        true => continue,
                        false => Status::ok(""),
                    }
                }
                State::Ended => return Poll::Ready(None),
            };
            self.state = State::Ended;
            let mut trailers = http::HeaderMap::new();
            end.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }
}

/// A stream whose client was admitted.
struct Serving<C: Control, Q> {
    control: Arc<C>,
    session: Session,
    requests: Streaming<Q>,
    /// Identifies the stream towards [`Control`].
    stream: u64,
    resources: WatchStream<Arc<ResourceMap>>,
    /// The place among those who get their first configuration, until it is confirmed or this moment.
    admitted: Option<OwnedSemaphorePermit>,
    until: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    /// The version of which it was told how the client stands.
    told: Arc<str>,
    peer: Peer,
}

impl<C: Control, Q> Drop for Serving<C, Q> {
    fn drop(&mut self) {
        self.control.disconnect(self.stream);
    }
}

impl<C: Control, Q: Wire> Serving<C, Q> {
    /// Tells how the client stands, if that changed, and gives up its place among the admitted when it needs it no longer.
    fn report(&mut self) {
        if self.admitted.is_some() && (self.session.has_confirmed() || Instant::now() >= self.until) {
            self.admitted = None;
        }
        let (version, changed) = (self.session.version().clone(), self.session.take_status());
        if !changed.is_empty() || version != self.told {
            self.control.status(self.stream, &version, changed);
            self.told = version;
        }
    }

    /// Takes in what the client or the control plane says; false when the stream ends.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        match Pin::new(&mut self.requests).poll_next(context) {
            Poll::Ready(Some(Ok(request))) => {
                self.session.on_request(&request.into_request());
                return Poll::Ready(true);
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(peer = %self.peer.address, %error, "discovery stream failed");
                return Poll::Ready(false);
            }
            Poll::Ready(None) => return Poll::Ready(false),
            Poll::Pending => {}
        }
        match Pin::new(&mut self.resources).poll_next(context) {
            Poll::Ready(Some(resources)) => {
                self.session.set_resources(resources);
                return Poll::Ready(true);
            }
            Poll::Ready(None) => return Poll::Ready(false),
            Poll::Pending => {}
        }
        let until = self.admitted.as_ref().map(|_| self.until);
        let Some(at) = self.session.deadline().into_iter().chain(until).min() else {
            self.alarm = None;
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if alarm.deadline() != at.into() {
            alarm.as_mut().reset(at.into());
        }
        alarm.as_mut().poll(context).map(|()| {
            self.alarm = None;
            true
        })
    }
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
