//! Keeps one aggregated stream to one of several servers, for ever.
//!
//! Reconnects wait up to 100 ms, doubling to 2 s, with full jitter, and start over after a stream that answered. A peer that
//! stays silent is found out by HTTP/2 pings. While nothing answers, what was received before stays in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::discovery::v3 as pb;
use envoy_types::pb::google::rpc;
use pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};

use crate::client::secure::{Connector, Secure};
use crate::client::session::{Session, Update, Wanted};
use crate::error::Error;
use crate::server::{Mode, Request};

/// Where to connect and as whom.
#[derive(Clone)]
pub struct Config {
    /// `host:port` of the servers, tried in turn.
    pub servers: Vec<String>,
    /// The encoded `envoy.config.core.v3.Node`.
    pub node: Vec<u8>,
    /// Which variant to speak.
    pub mode: Mode,
    /// Where the connection is found by those who share it.
    pub connections: Connections,
}

/// What becomes of configuration.
pub trait Handler {
    /// What to ask for, in the order in which to ask.
    fn wanted(&self) -> Vec<(&'static str, Wanted)>;
    /// Applies a response.
    ///
    /// # Errors
    /// [`Error::Rejected`] with the text of the rejection. Good resources of the response may have been applied.
    fn apply(&mut self, update: &Update) -> Result<(), Error>;
    /// Tells whether a stream is up; the text says to whom, or why not.
    fn connected(&mut self, up: bool, text: &str);
    /// Called from time to time while nothing arrives; true to begin the stream anew, because what was refused can be used now.
    fn tick(&mut self) -> bool;
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);

/// Runs until the task is dropped.
pub async fn run<H: Handler>(config: Config, mut handler: H) {
    let node = core::Node::decode(config.node.as_slice()).unwrap_or_default();
    let mut session = Session::new(config.mode);
    let mut wait = FIRST_WAIT;
    for attempt in 0usize.. {
        let Some(server) = config.servers.get(attempt % config.servers.len().max(1)) else { return };
        let to = Server { name: server, node: &node, mode: config.mode, connections: &config.connections };
        let outcome = connect_and_serve(&to, &mut session, &mut handler).await;
        config.connections.set(server, None);
        let (answered, reason) = match outcome {
            Ok(answered) => (answered, "the stream ended".to_owned()),
            Err(Failure { answered, reason }) => (answered, reason),
        };
        handler.connected(false, &format!("{server}: {reason}"));
        if answered {
            wait = FIRST_WAIT;
        }
        tokio::time::sleep(jitter(wait)).await;
        handler.tick();
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

struct Failure {
    answered: bool,
    reason: String,
}

/// Returns a time between nothing and `wait` (full jitter: clients that lost their server together come back apart).
pub(crate) fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(fastrand::f64())
}

/// Connections to servers, shared by everything that one node asks of them: a server believes load reports that come over the
/// connection by which the node takes its configuration.
#[derive(Clone, Default)]
pub struct Connections {
    /// The servers that configuration is taken from.
    servers: Vec<String>,
    /// Those that are spoken to over TLS.
    secured: Arc<HashMap<String, Secure>>,
    open: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Connections {
    /// Connections to the servers that configuration is taken from.
    #[must_use]
    pub fn to(servers: &[String]) -> Self {
        Self { servers: servers.to_vec(), ..Self::default() }
    }

    /// The same, with TLS to these servers.
    #[must_use]
    pub fn secured(self, servers: HashMap<String, Secure>) -> Self {
        Self { secured: Arc::new(servers), ..self }
    }

    /// A connection to a server: the one that configuration comes by, or a new one to a server that gives none.
    pub(crate) async fn get(&self, server: &str) -> Result<Channel, Error> {
        if !self.servers.iter().any(|s| s == server) {
            return self.connect(server).await;
        }
        let open = self.lock().get(server).cloned();
        open.ok_or_else(|| Error::Unreachable("no configuration is taken from it now".to_owned()))
    }

    async fn connect(&self, server: &str) -> Result<Channel, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .map_err(|e| Error::Unreachable(format!("'{server}' is no HOST:PORT: {e}")))?
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let connected = match self.secured.get(server) {
            Some(secure) => endpoint.connect_with_connector(Connector(secure.clone())).await,
            None => endpoint.connect().await,
        };
        connected.map_err(|e| match std::error::Error::source(&e) {
            Some(source) => Error::Unreachable(format!("cannot connect: {source}")),
            None => Error::Unreachable(format!("cannot connect: {e}")),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, server: &str, channel: Option<&Channel>) {
        match channel {
            Some(channel) => self.lock().insert(server.to_owned(), channel.clone()),
            None => self.lock().remove(server),
        };
    }
}

/// A server, and how to speak to it.
struct Server<'a> {
    name: &'a str,
    node: &'a core::Node,
    mode: Mode,
    connections: &'a Connections,
}

async fn connect_and_serve<H: Handler>(
    to: &Server<'_>,
    session: &mut Session,
    handler: &mut H,
) -> Result<bool, Failure> {
    let Server { name: server, node, mode, connections } = *to;
    let early = |error: Error| Failure { answered: false, reason: error.to_string() };
    let channel = connections.connect(server).await.map_err(early)?;
    connections.set(server, Some(&channel));
    let client = Client::new(channel).max_decoding_message_size(256 << 20);
    session.on_connect();
    let link = Link { server, node, session, handler };
    match mode {
        Mode::Sotw => link.sotw(client).await,
        Mode::Delta => link.delta(client).await,
    }
}

struct Link<'a, H> {
    server: &'a str,
    node: &'a core::Node,
    session: &'a mut Session,
    handler: &'a mut H,
}

impl<H: Handler> Link<'_, H> {
    async fn delta(self, mut client: Client<Channel>) -> Result<bool, Failure> {
        let (sender, receiver) = mpsc::channel(64);
        let node = self.node.clone();
        let encode = move |request: Request, first: bool, _version: String| pb::DeltaDiscoveryRequest {
            node: first.then(|| node.clone()),
            type_url: request.type_url,
            resource_names_subscribe: request.subscribe,
            resource_names_unsubscribe: request.unsubscribe,
            initial_resource_versions: request.initial_versions.into_iter().collect(),
            response_nonce: request.nonce,
            error_detail: request.error.map(status),
            ..Default::default()
        };
        let stream = client.delta_aggregated_resources(ReceiverStream::new(receiver));
        self.exchange(sender, encode, stream).await
    }

    async fn sotw(self, mut client: Client<Channel>) -> Result<bool, Failure> {
        let (sender, receiver) = mpsc::channel(64);
        let node = self.node.clone();
        let encode = move |request: Request, first: bool, version: String| pb::DiscoveryRequest {
            node: first.then(|| node.clone()),
            version_info: version,
            type_url: request.type_url,
            resource_names: request.names,
            response_nonce: request.nonce,
            error_detail: request.error.map(status),
            ..Default::default()
        };
        let stream = client.stream_aggregated_resources(ReceiverStream::new(receiver));
        self.exchange(sender, encode, stream).await
    }

    async fn exchange<Q, R, E, F>(self, sender: mpsc::Sender<Q>, encode: E, stream: F) -> Result<bool, Failure>
    where
        E: Fn(Request, bool, String) -> Q,
        R: Into<Update>,
        F: Future<Output = Result<tonic::Response<tonic::Streaming<R>>, tonic::Status>>,
    {
        let mut first = true;
        let mut answered = false;
        let fail = |answered, reason: &str| Failure { answered, reason: reason.to_owned() };
        for request in self.session.subscribe(&self.handler.wanted()) {
            let version = self.session.version(&request.type_url);
            sender.try_send(encode(request, first, version)).map_err(|_| fail(false, "too many types"))?;
            first = false;
        }
        let opened = stream.await.map_err(|e| fail(false, e.message()))?;
        let mut responses = opened.into_inner();
        self.handler.connected(true, self.server);
        let mut ticked = Instant::now();
        loop {
            let next = tokio::time::timeout(TICK, responses.next()).await;
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                if self.handler.tick() {
                    return Err(fail(true, "what was refused can be used now"));
                }
            }
            let response = match next {
                Err(_elapsed) => continue,
                Ok(None) => return Ok(answered),
                Ok(Some(Err(error))) => return Err(fail(answered, error.message())),
                Ok(Some(Ok(response))) => response,
            };
            answered = true;
            let mut update: Update = response.into();
            self.session.on_response(&mut update);
            let outcome = self.handler.apply(&update);
            let answer = self.session.answer(&update, outcome);
            let more = self.session.subscribe(&self.handler.wanted());
            for request in std::iter::once(answer).chain(more) {
                let version = self.session.version(&request.type_url);
                let sent = sender.send(encode(request, first, version)).await;
                sent.map_err(|_| fail(answered, "the stream closed"))?;
                first = false;
            }
        }
    }
}

fn status(message: String) -> rpc::Status {
    rpc::Status { code: 3, message, ..Default::default() }
}

impl From<pb::DeltaDiscoveryResponse> for Update {
    fn from(response: pb::DeltaDiscoveryResponse) -> Self {
        let changed = response.resources.into_iter().map(|r| {
            let body = r.resource.map(|any| any.value).unwrap_or_default();
            (r.name, r.version, body.into())
        });
        Self {
            type_url: response.type_url,
            changed: changed.collect(),
            removed: response.removed_resources,
            full: false,
            nonce: response.nonce,
            version: response.system_version_info,
        }
    }
}

impl From<pb::DiscoveryResponse> for Update {
    fn from(response: pb::DiscoveryResponse) -> Self {
        let version = response.version_info.clone();
        Self {
            type_url: response.type_url,
            changed: response
                .resources
                .into_iter()
                .map(|any| (String::new(), version.clone(), any.value.into()))
                .collect(),
            removed: Vec::new(),
            full: true,
            nonce: response.nonce,
            version: response.version_info,
        }
    }
}
