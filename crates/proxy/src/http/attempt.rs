//! One attempt: choose an endpoint, get a connection, send the request, wait for the head of the response.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serin_http1::body::BodyDecoder;
use serin_http1::encode::{self, Connection, Style};
use serin_http1::framing::{self, Declared, Framing};
use serin_http1::{Codec, Limits, RequestHead, ResponseHead, Scan, parse_response};
use serin_resources::upgrade::ConnectConfig;
use serin_traffic::balance::LbContext;
use serin_traffic::outcome::Outcome;
use serin_traffic::router::is_grpc;
use serin_transport::tls::TlsInfo;

use super::body::RequestBody;
use super::upgrade::UpgradeRequest;
use super::upload::{PumpError, Side, upload};
use crate::metric;
use crate::runtime::Permit;
use crate::upstream::{H1Connection, HostPool, Place, Upstream, connect, multiplexed};
use crate::wire::{BodySink, BodySource, H1Reader, H2Reader, H2Writer, WireBytes};
use crate::worker::{LocalCluster, LocalHost, Worker};

mod exchange_h2;
mod in_flight;
mod place;
mod style;
mod terminate;

pub(crate) use in_flight::InFlight;
use in_flight::Pending;
use style::RESPONSE_TRAILERS;
use style::with_url;
pub(crate) use style::{names, request_style, trailer_style};

/// One attempt: a request to one endpoint.
pub(crate) struct Attempt<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) cluster: &'a Rc<LocalCluster>,
    pub(crate) head: &'a RequestHead,
    /// The framing of the body towards an HTTP/1 upstream.
    pub(crate) framing: Framing,
    /// The protocol that is asked for.
    pub(crate) upgrade: Option<&'a UpgradeRequest>,
    /// How the request ends here, with bytes alone for the endpoint.
    pub(crate) terminated: Option<&'a ConnectConfig>,
    /// The codec that the endpoint gets; `None` when it has a say.
    pub(crate) codec: Option<Codec>,
    /// True when the breakers of high priority count.
    pub(crate) high: bool,
    /// How the head is written for HTTP/1.
    pub(crate) style: Style,
    /// Silence of the upstream after which the attempt is given up.
    pub(crate) idle: Option<Duration>,
}

/// A response whose body is still to come.
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) framing: Framing,
    pub(crate) declared: Declared,
    pub(crate) exchange: Exchange,
    pub(crate) request_done: bool,
    pub(crate) in_flight: InFlight,
    pub(crate) keep_alive: bool,
    /// True when both sides go on with another protocol.
    pub(crate) is_tunnel: bool,
    /// True when its endpoint sent bytes, and no response.
    pub(crate) is_raw: bool,
    /// The properties of the upstream's TLS.
    pub(crate) tls: Option<Arc<TlsInfo>>,
}

/// The upstream's side of a request: where the response's body comes from and the rest of the request goes.
pub(crate) enum Exchange {
    H1(Box<H1Connection>),
    H2(Box<(H2Reader, H2Writer)>),
}

impl Exchange {
    /// Bytes on the wire so far; of HTTP/2 they are not told apart by streams.
    pub(crate) fn wire(&self) -> WireBytes {
        match self {
            Self::H1(connection) => WireBytes {
                received: connection.reader.taken,
                received_head: connection.reader.head_bytes,
                sent: connection.writer.left,
                sent_head: connection.writer.head_bytes,
            },
            Self::H2(_) => WireBytes::default(),
        }
    }

    /// Counts what was on the wire, and that nothing is going on any more if it is over.
    pub(crate) fn note(&self, is_over: bool) {
        if let Self::H1(connection) = self {
            connection.gauge.moved(connection.reader.taken, connection.writer.left);
            connection.gauge.set_busy(!is_over);
        }
    }

    /// Our end of the connection.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::H1(connection) => connection.reader.socket.local_addr().ok(),
            Self::H2(_) => None,
        }
    }

    /// Its protocol.
    pub(crate) fn codec(&self) -> Codec {
        match self {
            Self::H1(_) => Codec::Http1,
            Self::H2(_) => Codec::Http2,
        }
    }

    /// Both directions.
    pub(crate) fn sides(&mut self) -> (BodySource<'_>, BodySink<'_>) {
        match self {
            Self::H1(connection) => {
                let H1Connection { reader, writer, .. } = &mut **connection;
                (BodySource::H1(reader), BodySink::H1(writer))
            }
            Self::H2(both) => (BodySource::H2(&mut both.0), BodySink::H2(&mut both.1)),
        }
    }
}

/// The reason why an attempt has no response.
pub(crate) enum Failure {
    /// It ended like this.
    Outcome(Outcome),
    /// The client's body is broken or the client is gone.
    Client,
    /// One side was silent for too long: the client with its body, or the upstream with its response.
    Stalled(Side),
    /// The client's body is not framed as it should be.
    Malformed,
    /// The client's trailers are more than they may be.
    TooLarge,
    /// The client's trailers have more fields than they may have.
    TooMany,
    /// The client's trailers have a name that is refused.
    Underscore,
}

impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl PumpError {
    /// A client's failure ends the request; an upstream that is gone may have answered before.
    fn unless_upstream(self, in_flight: &InFlight) -> Result<(), Failure> {
        match self {
            Self::Gone(Side::Upstream) => Ok(()),
            Self::Gone(Side::Client) => {
                in_flight.cancelled();
                Err(Failure::Client)
            }
            Self::Stalled(side) => {
                in_flight.cancelled();
                Err(Failure::Stalled(side))
            }
            Self::Malformed => {
                in_flight.cancelled();
                Err(Failure::Malformed)
            }
            Self::TooLarge => {
                in_flight.cancelled();
                Err(Failure::TooLarge)
            }
            Self::TooMany => {
                in_flight.cancelled();
                Err(Failure::TooMany)
            }
            Self::Underscore => {
                in_flight.cancelled();
                Err(Failure::Underscore)
            }
        }
    }
}

/// Chooses an endpoint, by its number, avoiding those in `tried` for a number of draws.
pub(crate) fn choose(
    worker: &Worker,
    cluster: &LocalCluster,
    wish: &LbContext<'_>,
    tried: &[u64],
    draws: u32,
) -> Option<usize> {
    let mut state = cluster.balancer.borrow_mut();
    let mut chosen = None;
    for attempt in 0..draws.max(1) {
        let index = cluster.pick(&mut state, &LbContext { attempt, ..*wish }, cluster, &mut || worker.random())?;
        chosen = Some(index);
        if tried.is_empty() || cluster.hosts.get(index).is_none_or(|local| !tried.contains(&local.host.id)) {
            break;
        }
    }
    chosen
}

impl Attempt<'_> {
    /// Makes the attempt on the endpoint of that number. A pooled connection that turns out to be dead is replaced by a new
    /// one: if nothing of the request went out, always; if it died before it answered anything, when the request may be
    /// repeated (RFC 9112 §9.3.1): its other end had closed it already.
    pub(crate) async fn run(&self, choice: usize, body: &mut RequestBody<'_>) -> Result<Answer, Failure> {
        let Some(LocalHost { host, pool }) = self.cluster.hosts.get(choice) else {
            return Err(Outcome::ConnectFailure.into());
        };
        let name = self.told_by_request(choice);
        let of_name = name.as_ref().map(|name| pool.named(name));
        let pool = of_name.as_ref().unwrap_or(pool);
        if let Some(config) = self.terminated {
            return self.terminate(config, choice, body).await;
        }
        let codec = self.codec.or_else(|| host.codec());
        let pooled = match codec {
            Some(codec) => pool.checkout(codec),
            None => pool.checkout(Codec::Http2).or_else(|| pool.checkout(Codec::Http1)),
        };
        if let Some(connection) = pooled {
            body.timers.set_connected(Some(body.timers.last()));
            let in_flight = self.in_flight(choice);
            let usage = if let Upstream::H2(c) = &connection { Some(c.usage.clone()) } else { None };
            let outcome = self.exchange(connection, in_flight, body).await;
            let died = usage.is_none_or(|u| !u.is_usable());
            let stale = match outcome {
                Err(Failure::Outcome(Outcome::Reset { sent, .. })) => !sent || (died && self.head.is_idempotent()),
                _ => false,
            };
            if !stale || !body.is_repeatable() {
                return outcome;
            }
            body.rewind();
            body.timers.set_connected(None);
        }
        let in_flight = self.in_flight(choice);
        let place = self.place(choice, host, name);
        let connection = match codec {
            Some(Codec::Http2) => self.shared(&place, pool),
            Some(Codec::Http1) | None => tokio::select! {
                biased;
                connection = self.own(&place, pool) => connection,
                () = body.abandoned() => {
                    in_flight.cancelled();
                    return Err(Failure::Client);
                }
            },
        };
        match connection {
            Ok(connection) => {
                body.timers.set_connected(Some(body.timers.tick()));
                self.exchange(connection, in_flight, body).await
            }
            Err(outcome) => {
                in_flight.outcome(outcome);
                Err(outcome.into())
            }
        }
    }

    fn in_flight(&self, choice: usize) -> InFlight {
        InFlight::new(self.worker.id, self.cluster, choice, is_grpc(self.head))
    }

    /// An HTTP/2 connection that others may use too.
    fn shared(&self, place: &Place, pool: &HostPool) -> Result<Upstream, Outcome> {
        // Another request may have made one since: when a connection with many streams dies, they share the next.
        if let Some(connection) = pool.checkout(Codec::Http2) {
            return Ok(connection);
        }
        let permit = match self.cluster.permit_connection(self.high) {
            Some(permit) => permit,
            None => {
                self.cluster.state.stats.add(self.worker.id, metric::cluster::CX_OVERFLOW, 1);
                match pool.any() {
                    Some(connection) => return Ok(connection),
                    None => Permit::uncounted(),
                }
            }
        };
        let connection = multiplexed(self.worker.id, self.cluster.shared(), place.clone(), permit);
        pool.share(connection.clone());
        Ok(Upstream::H2(connection))
    }

    /// An HTTP/1 connection for this request alone: a new one, or, where breakers let no more be made, the next that
    /// becomes free. (Envoy: where an endpoint has none at all, one is always made.)
    async fn own(&self, place: &Place, pool: &Rc<HostPool>) -> Result<Upstream, Outcome> {
        let (cluster, worker, host) = (self.cluster, self.worker.id, &place.host);
        let _pending = Pending::new(cluster, worker, self.high).ok_or(Outcome::Overflow)?;
        loop {
            let mut freed = pin!(cluster.state.freed.notified());
            freed.as_mut().enable();
            if let Some(connection) = pool.checkout(Codec::Http1) {
                return Ok(connection);
            }
            let open = host.stats.own(worker, metric::host::CX_ACTIVE);
            let permit = match cluster.config.max_host_connections {
                Some(most) if host.stats.get(metric::host::CX_ACTIVE) >= u64::from(most) => None,
                _ => cluster.permit_connection(self.high),
            };
            let permit = permit.or_else(|| {
                cluster.state.stats.add(worker, metric::cluster::CX_OVERFLOW, 1);
                (open == 0).then(Permit::uncounted)
            });
            match permit {
                Some(permit) => {
                    let mut made = connect(worker, &cluster.shared(), place, permit).await;
                    match &mut made {
                        Ok(Upstream::H1(connection)) if self.is_named(place) => {
                            connection.name.clone_from(&place.name);
                        }
                        Ok(Upstream::H2(connection)) => pool.share(connection.clone()),
                        _ => {}
                    }
                    if made.is_err() {
                        cluster.state.stats.add(worker, metric::cluster::RQ_PENDING_EJECT, 1);
                    }
                    return made.map_err(|error| self.failed(error));
                }
                None => freed.await,
            }
        }
    }

    /// The upstream said nothing for too long: another attempt may do better where silence of one is limited.
    fn silent(&self) -> Failure {
        match self.idle {
            Some(_) => {
                self.cluster.state.stats.add(self.worker.id, metric::cluster::RQ_PER_TRY_IDLE_TIMEOUT, 1);
                Failure::Outcome(Outcome::Timeout)
            }
            None => Failure::Stalled(Side::Upstream),
        }
    }

    async fn exchange(
        &self,
        connection: Upstream,
        in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        in_flight.connected(false);
        match connection {
            Upstream::H1(connection) => self.exchange_h1(connection, in_flight, body).await,
            Upstream::H2(connection) => self.exchange_h2(connection, in_flight, body).await,
        }
    }

    async fn exchange_h1(
        &self,
        mut connection: Box<H1Connection>,
        in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        connection.requests += 1;
        connection.gauge.set_busy(true);
        let mut head = std::mem::take(&mut connection.head);
        let H1Connection { reader, writer, .. } = &mut *connection;
        let full = self.cluster.config.http1.full_url.then(|| with_url(self.head));
        let sent = full.as_ref().unwrap_or(self.head);
        writer.begin(|out| encode::request(sent, self.framing, Connection::Default, self.style, out));
        writer.chunked = self.framing == Framing::Chunked;
        let http1 = &self.cluster.config.http1;
        writer.trailers = http1.trailers.then_some(trailer_style(self.style));
        let mut sink = BodySink::H1(writer);
        let mut request_done = body.is_empty();
        if request_done {
            sink.finish();
        }
        if !matches!(body.timers.within(body.idle, pin!(sink.flush())).await, Some(Ok(()))) {
            let outcome = Outcome::Reset { sent: false, refused: false };
            in_flight.outcome(outcome);
            return Err(outcome.into());
        }
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let silence = silence(body, request_done, self.idle);
            let outcome = tokio::select! {
                biased;
                read = read_head(reader, &mut scan, &mut head) => read,
                pumped = upload(body, &mut sink, request_done) => {
                    // An upstream that stops reading may have answered already: its response decides.
                    pumped.or_else(|e| e.unless_upstream(&in_flight))?;
                    request_done = true;
                    continue;
                }
                () = silence => {
                    in_flight.outcome(Outcome::Timeout);
                    return Err(self.silent());
                }
            };
            if let Err(outcome) = outcome {
                in_flight.outcome(outcome);
                return Err(outcome.into());
            }
            if head.status >= 200 || (head.status == 101 && self.upgrade.is_some_and(|u| u.is_agreed(&head))) {
                break;
            }
            interim += 1;
            if head.status == 101 || interim > 10 {
                in_flight.outcome(Outcome::Protocol);
                return Err(Outcome::Protocol.into());
            }
            scan = Scan::default();
        }
        let says_so = in_flight.stays(framing::keeps_alive(&head.fields, head.version));
        let keep_alive = says_so && !framing::is_ambiguous(&head);
        let (framing, declared) = self.framing_of(&mut head).inspect_err(|_| in_flight.outcome(Outcome::Protocol))?;
        let is_tunnel = self.upgrade.is_some_and(|upgrade| upgrade.is_agreed(&head));
        if is_tunnel && !body.may_open() {
            in_flight.outcome(Outcome::Protocol);
            return Err(Outcome::Protocol.into());
        }
        let framing = if is_tunnel { Framing::UntilClose } else { framing };
        let keep_alive = keep_alive && self.upgrade.is_none();
        reader.decoder = BodyDecoder::new(framing).yielding_trailers(http1.trailers);
        reader.trailer_limits = RESPONSE_TRAILERS;
        writer.is_tunnel = is_tunnel;
        let tls = reader.socket.tls().cloned();
        let exchange = Exchange::H1(connection);
        Ok(Answer {
            head,
            framing,
            declared,
            exchange,
            request_done,
            in_flight,
            keep_alive,
            is_tunnel,
            is_raw: false,
            tls,
        })
    }
}

impl Attempt<'_> {
    /// Reads the framing of a response in HTTP/1. One that agrees to another protocol has none.
    fn framing_of(&self, head: &mut ResponseHead) -> Result<(Framing, Declared), Outcome> {
        if head.status == 101 && head.fields.contains("transfer-encoding") {
            return Err(Outcome::Protocol);
        }
        framing::of_response(head, self.head.method() == b"HEAD").map_err(|_| Outcome::Protocol)
    }
}

/// Returns when an upstream was silent for too long; as long as the request still goes up, the sending keeps the time.
fn silence<'a>(
    body: &RequestBody<'a>,
    request_done: bool,
    per_try: Option<Duration>,
) -> impl Future<Output = ()> + use<'a> {
    let limit = if request_done { per_try.unwrap_or(body.idle) } else { Duration::ZERO };
    let timers = body.timers;
    async move {
        timers.within(limit, pin!(std::future::pending::<()>())).await;
    }
}

/// Reads until a head is complete. Progress is kept in `scan` and the reader, so it can be dropped and called again.
async fn read_head(reader: &mut H1Reader, scan: &mut Scan, head: &mut ResponseHead) -> Result<(), Outcome> {
    loop {
        match parse_response(&reader.buffer, scan, &Limits::default(), head) {
            Ok(Some(used)) => {
                reader.begin(used, head.fields.len());
                return Ok(());
            }
            Ok(None) => {}
            Err(_) => return Err(Outcome::Protocol),
        }
        let started = !reader.buffer.is_empty();
        if reader.ended || reader.fill().await.is_err() {
            return Err(if started { Outcome::Protocol } else { Outcome::Reset { sent: true, refused: false } });
        }
    }
}
