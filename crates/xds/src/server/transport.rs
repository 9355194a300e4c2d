//! The aggregated discovery service: one session a stream, polled by the task of its call.
//!
//! A response is encoded as the connection takes it ([`Outgoing`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;

use crate::error::Error;
use crate::grpc::{Call, Code, Failure, Served, Service};
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

/// The service; one for each thread that serves.
pub struct Discovery<C> {
    control: Arc<C>,
    types: Arc<[TypeSpec]>,
    /// Clients that may get their first configuration at the same time.
    admission: Arc<Semaphore>,
}

/// The time that a client may take with its first configuration until others no longer wait for it.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(1);

impl<C: Control> Discovery<C> {
    /// Makes the service for these types. When many clients connect at once, as many as `admission` has places get their first
    /// configuration at a time: the first are ready soon, instead of all at the end. A client has its place until it has confirmed what
    /// it asked for.
    #[must_use]
    pub fn new(control: Arc<C>, types: &[TypeSpec], admission: Arc<Semaphore>) -> Self {
        Self { control, types: types.into(), admission }
    }
}

impl<C: Control> Service for Discovery<C> {
    fn name(&self) -> &'static str {
        "envoy.service.discovery.v3.AggregatedDiscoveryService"
    }

    fn call(&self, method: &str, call: Call) -> Option<Served> {
        let (control, types, admission) = (self.control.clone(), self.types.clone(), self.admission.clone());
        let service = Self { control, types, admission };
        match method {
            "DeltaAggregatedResources" => {
                Some(Box::pin(serve::<_, pb::DeltaDiscoveryRequest>(service, Mode::Delta, call)))
            }
            "StreamAggregatedResources" => Some(Box::pin(serve::<_, pb::DiscoveryRequest>(service, Mode::Sotw, call))),
            _ => None,
        }
    }
}

/// A request message of either variant.
trait Wire: prost::Message + Default + Send + 'static {
    fn node(&self) -> Option<Node>;
    fn into_request(self) -> Request;
}

/// Serves a client from its first request until it leaves.
async fn serve<C: Control, Q: Wire>(service: Discovery<C>, mode: Mode, mut call: Call) -> Result<(), Failure> {
    let Some(first) = call.message::<Q>().await? else { return Ok(()) };
    // One connection has one place at most, however many streams it opens.
    let turn = call.turn().acquire_owned().await.ok();
    let admitted = service.admission.acquire_owned().await.ok().zip(turn);
    let peer = Peer { address: call.peer().to_string(), spiffe_id: None };
    let client = Client { node: first.node().unwrap_or_default(), peer: peer.clone(), mode };
    let control = service.control.clone();
    let mut feed = match tokio::task::spawn_blocking(move || control.connect(&client)).await {
        Ok(Ok(feed)) => feed,
        Ok(Err(reason)) => {
            tracing::warn!(peer = %peer.address, "{reason}");
            return Err(Failure::new(Code::InvalidArgument, reason.to_string()));
        }
        Err(failed) => {
            tracing::error!(peer = %peer.address, "a client cannot be served: {failed}");
            return Err(Failure::new(Code::Internal, "the client cannot be served"));
        }
    };
    let mut session = Session::new(mode, &service.types);
    session.set_resources(feed.resources.borrow_and_update().clone());
    session.on_request(&first.into_request());
    let mut serving = Serving::<C> {
        control: service.control,
        session,
        call,
        stream: feed.stream,
        resources: WatchStream::from_changes(feed.resources),
        admitted: admitted.map(|place| (place, Box::pin(tokio::time::sleep(FIRST_CONFIGURATION)))),
        alarm: None,
        told: Arc::default(),
        outgoing: None,
    };
    std::future::poll_fn(|context| serving.poll::<Q>(context)).await
}

/// A place among all clients, and the one that the streams of a connection share.
type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// A stream whose client was admitted.
struct Serving<C: Control> {
    control: Arc<C>,
    session: Session,
    call: Call,
    /// Identifies the stream towards [`Control`].
    stream: u64,
    resources: WatchStream<Arc<ResourceMap>>,
    /// The place among those who get their first configuration, until it is confirmed or the time is up: a client that does not read
    /// must not hold others up.
    admitted: Option<(Places, Pin<Box<Sleep>>)>,
    alarm: Option<Pin<Box<Sleep>>>,
    /// The version of which it was told how the client stands.
    told: Arc<str>,
    /// The response that is being sent, and the piece of it that is.
    outgoing: Option<(Outgoing, Bytes)>,
}

impl<C: Control> Drop for Serving<C> {
    fn drop(&mut self) {
        self.control.disconnect(self.stream);
    }
}

impl<C: Control> Serving<C> {
    /// Serves the client as far as is possible now; ready when the stream ends.
    fn poll<Q: Wire>(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Some((_, time)) = &mut self.admitted
            && time.as_mut().poll(context).is_ready()
        {
            self.admitted = None;
        }
        loop {
            if !ready!(self.poll_send(context)) {
                return Poll::Ready(Ok(()));
            }
            let response = self.session.poll(Instant::now());
            self.report();
            if let Some(response) = response {
                self.outgoing = Some((Outgoing::new(self.session.mode(), response), Bytes::new()));
            } else if !ready!(self.poll_event::<Q>(context))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what is on its way; false when the client is gone.
    fn poll_send(&mut self, context: &Context<'_>) -> Poll<bool> {
        while let Some((outgoing, piece)) = &mut self.outgoing {
            if !ready!(self.call.poll_send(piece, context)) {
                return Poll::Ready(false);
            }
            match outgoing.next_piece() {
                Some(next) => *piece = next,
                None => self.outgoing = None,
            }
        }
        Poll::Ready(true)
    }

    /// Tells how the client stands, if that changed, and gives up its place among the admitted when it needs it no longer.
    fn report(&mut self) {
        if self.admitted.is_some() && self.session.has_confirmed() {
            self.admitted = None;
        }
        let changed = self.session.take_status();
        let version = self.session.version();
        if !changed.is_empty() || *version != self.told {
            self.control.status(self.stream, version, changed);
            self.told.clone_from(version);
        }
    }

    /// Takes in what the client or the control plane says; false when the stream ends.
    fn poll_event<Q: Wire>(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        if let Poll::Ready(request) = self.call.poll_message::<Q>(context)? {
            let Some(request) = request else { return Poll::Ready(Ok(false)) };
            self.session.on_request(&request.into_request());
            return Poll::Ready(Ok(true));
        }
        match Pin::new(&mut self.resources).poll_next(context) {
            Poll::Ready(Some(resources)) => {
                self.session.set_resources(resources);
                return Poll::Ready(Ok(true));
            }
            Poll::Ready(None) => return Poll::Ready(Ok(false)),
            Poll::Pending => {}
        }
        let Some(at) = self.session.deadline() else {
            self.alarm = None;
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if alarm.deadline() != at.into() {
            alarm.as_mut().reset(at.into());
        }
        alarm.as_mut().poll(context).map(|()| {
            self.alarm = None;
            Ok(true)
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
