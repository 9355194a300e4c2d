//! One try: choose an endpoint, get a connection, send the request, wait for the head of the answer.

use std::sync::Arc;
use std::time::Duration;

use serin_http1::encode::{self, Connection};
use serin_http1::framing::{self, Declared, Framing};
use serin_http1::{Limits, RequestHead, ResponseHead, Scan, parse_response};
use serin_traffic::balance;
use serin_traffic::outcome::Outcome;

use super::body::RequestBody;
use super::forward::{Side, upload};
use crate::metric;
use crate::runtime::{Choice, ClusterRuntime, Host};
use crate::upstream::{ConnectError, H1Connection, H1Parts, H2Connection, H2Stream, Upstream, connect};
use crate::wire::{H1Reader, H2Reader, H2Writer, Sink, request_to_h2, response_from_h2};
use crate::worker::Worker;

/// What a try needs.
pub(crate) struct Attempt<'a> {
    pub(crate) worker: &'a std::rc::Rc<Worker>,
    pub(crate) cluster: &'a Arc<ClusterRuntime>,
    pub(crate) head: &'a RequestHead,
    /// How the body is framed towards an HTTP/1 upstream.
    pub(crate) framing: Framing,
    pub(crate) websocket: bool,
    pub(crate) h2: bool,
}

/// An answer whose body is still to come.
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) framing: Framing,
    pub(crate) declared: Declared,
    pub(crate) reader: AnswerReader,
    /// Where the rest of the request goes.
    pub(crate) request_sink: Sink<'static>,
    pub(crate) request_done: bool,
    pub(crate) in_flight: InFlight,
    pub(crate) keep_alive: bool,
    /// The connection's other parts, for the pool.
    pub(crate) connection: Option<H1Parts>,
}

/// Where an answer's body comes from.
pub(crate) enum AnswerReader {
    H1(H1Reader),
    H2(H2Reader),
}

/// Counts a request as in flight on its host and cluster until dropped.
pub(crate) struct InFlight {
    pub(crate) host: Arc<Host>,
    cluster: Arc<ClusterRuntime>,
    worker: usize,
    stream: Option<H2Stream>,
}

impl InFlight {
    fn new(worker: usize, cluster: &Arc<ClusterRuntime>, host: &Arc<Host>) -> Self {
        host.stats.add(worker, metric::host::RQ_TOTAL, 1);
        host.stats.add(worker, metric::host::RQ_ACTIVE, 1);
        cluster.state.stats.add(worker, metric::cluster::RQ_TOTAL, 1);
        cluster.state.stats.add(worker, metric::cluster::RQ_ACTIVE, 1);
        Self { host: host.clone(), cluster: cluster.clone(), worker, stream: None }
    }

    /// Counts how the try ended.
    pub(crate) fn outcome(&self, outcome: Outcome) {
        let (stats, host) = (&self.cluster.state.stats, &self.host.stats);
        match outcome {
            Outcome::Response { status, .. } => {
                stats.add(self.worker, metric::cluster::RQ_COMPLETED, 1);
                stats.add(self.worker, metric::class(metric::cluster::RQ_1XX, status), 1);
                let index = if status < 500 { metric::host::RQ_SUCCESS } else { metric::host::RQ_ERROR };
                host.add(self.worker, index, 1);
            }
            Outcome::Timeout => {
                host.add(self.worker, metric::host::RQ_TIMEOUT, 1);
                host.add(self.worker, metric::host::RQ_ERROR, 1);
            }
            Outcome::Reset { .. } | Outcome::Protocol => {
                stats.add(self.worker, metric::cluster::RQ_RX_RESET, 1);
                host.add(self.worker, metric::host::RQ_ERROR, 1);
            }
            Outcome::ConnectFailure => host.add(self.worker, metric::host::RQ_ERROR, 1),
        }
    }

    /// Counts a try that ended because its client did.
    pub(crate) fn cancelled(&self) {
        self.cluster.state.stats.add(self.worker, metric::cluster::RQ_CANCELLED, 1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.host.stats.sub(self.worker, metric::host::RQ_ACTIVE);
        self.cluster.state.stats.sub(self.worker, metric::cluster::RQ_ACTIVE);
    }
}

/// Why a try has no answer.
pub(crate) enum Failure {
    /// It ended like this.
    Outcome(Outcome),
    /// The client's body is broken or the client is gone.
    Client,
    /// One side was silent for too long: the client with its body, or the upstream with its answer.
    Stalled(Side),
    /// The request cannot be said in the upstream's protocol.
    Unsendable,
}

impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

/// Chooses an endpoint, avoiding those in `tried` for a number of draws.
pub(crate) fn choose<'a>(
    worker: &Worker,
    cluster: &'a ClusterRuntime,
    tried: &[u64],
    draws: u32,
) -> Option<&'a Choice> {
    let mut balancers = worker.balancers.borrow_mut();
    let state = balancers.entry(cluster.state.id).or_default();
    let mut chosen = None;
    for _ in 0..draws.max(1) {
        let index = balance::pick(cluster.config.balancer, &cluster.choices, state, &mut || worker.random())?;
        chosen = cluster.choices.get(index);
        if chosen.is_none_or(|c| !tried.contains(&c.host.id)) {
            break;
        }
    }
    chosen
}

impl Attempt<'_> {
    /// Makes the try on `host`. A pooled connection that turns out to be dead is replaced by a new one: if nothing of
    /// the request went out, always; if it died before it answered anything, when the request may be repeated
    /// (RFC 9112 §9.3.1): its other end had closed it already.
    pub(crate) async fn run(&self, host: &Arc<Host>, body: &mut RequestBody<'_>) -> Result<Answer, Failure> {
        let pooled = self.worker.pools.borrow_mut().checkout(host.id, self.h2);
        if let Some(connection) = pooled {
            let in_flight = InFlight::new(self.worker.id, self.cluster, host);
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
        }
        let in_flight = InFlight::new(self.worker.id, self.cluster, host);
        let connection = match connect(self.worker.id, self.cluster, host, self.h2).await {
            Ok(connection) => connection,
            Err(ConnectError::Refused | ConnectError::Timeout) => {
                in_flight.outcome(Outcome::ConnectFailure);
                return Err(Outcome::ConnectFailure.into());
            }
        };
        if let Upstream::H2(connection) = &connection {
            self.worker.pools.borrow_mut().share(host.id, connection.clone());
        }
        self.exchange(connection, in_flight, body).await
    }

    async fn exchange(
        &self,
        connection: Upstream,
        in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        match connection {
            Upstream::H1(connection) => self.exchange_h1(connection, in_flight, body).await,
            Upstream::H2(connection) => self.exchange_h2(connection, in_flight, body).await,
        }
    }

    async fn exchange_h1(
        &self,
        connection: H1Connection,
        in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        let (mut reader, mut writer, parts) = connection.dismantle();
        let announce = if self.websocket { Connection::Upgrade } else { Connection::Default };
        encode::request(self.head, self.framing, announce, &mut writer.out);
        writer.chunked = self.framing == Framing::Chunked;
        let mut sink = Sink::OwnH1(writer);
        let mut request_done = body.is_empty();
        if request_done {
            sink.finish();
        }
        if sink.flush().await.is_err() {
            let outcome = Outcome::Reset { sent: false, refused: false };
            in_flight.outcome(outcome);
            return Err(outcome.into());
        }
        let mut head = ResponseHead::default();
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let silence = tokio::time::sleep(patience(body, request_done));
            let outcome = tokio::select! {
                biased;
                read = read_head(&mut reader, &mut scan, &mut head) => read,
                pumped = upload(body, &mut sink, request_done) => {
                    // An upstream that stops reading may have answered already: its answer decides.
                    pumped.or_else(|e| e.unless_upstream(&in_flight))?;
                    request_done = true;
                    continue;
                }
                () = silence => return Err(Failure::Stalled(Side::Upstream)),
            };
            if let Err(outcome) = outcome {
                in_flight.outcome(outcome);
                return Err(outcome.into());
            }
            if head.status >= 200 || (head.status == 101 && self.websocket) {
                break;
            }
            interim += 1;
            if head.status == 101 || interim > 10 {
                in_flight.outcome(Outcome::Protocol);
                return Err(Outcome::Protocol.into());
            }
            scan = Scan::default();
        }
        let keep_alive = framing::keeps_alive(&head.fields, head.version);
        let to_head = self.head.method() == b"HEAD";
        let (framing, declared) = framing::of_response(&mut head, to_head).map_err(|_| {
            in_flight.outcome(Outcome::Protocol);
            Failure::Outcome(Outcome::Protocol)
        })?;
        reader.decoder = serin_http1::body::BodyDecoder::new(framing);
        Ok(Answer {
            head,
            framing,
            declared,
            reader: AnswerReader::H1(reader),
            request_sink: sink,
            request_done,
            in_flight,
            keep_alive,
            connection: Some(parts),
        })
    }

    async fn exchange_h2(
        &self,
        connection: H2Connection,
        mut in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        let fail = |in_flight: &InFlight, outcome: Outcome| {
            in_flight.outcome(outcome);
            Failure::Outcome(outcome)
        };
        let unsent = |in_flight: &InFlight, _| {
            connection.usage.retire();
            fail(in_flight, Outcome::Reset { sent: false, refused: false })
        };
        let request = request_to_h2(self.head).ok_or(Failure::Unsendable)?;
        let mut send = connection.send.clone().ready().await.map_err(|e| unsent(&in_flight, e))?;
        in_flight.stream = Some(H2Stream::open(&connection));
        let mut request_done = body.is_empty();
        let sent = send.send_request(self.with_length(request), request_done);
        let (mut response, stream) = sent.map_err(|e| unsent(&in_flight, e))?;
        let mut sink = Sink::H2(H2Writer::new(stream, request_done));
        let response = loop {
            let silence = tokio::time::sleep(patience(body, request_done));
            tokio::select! {
                biased;
                answered = &mut response => {
                    break answered.map_err(|e| fail(&in_flight, stream_error(&connection, &e)))?;
                }
                pumped = upload(body, &mut sink, request_done) => {
                    pumped.or_else(|e| e.unless_upstream(&in_flight))?;
                    request_done = true;
                }
                () = silence => return Err(Failure::Stalled(Side::Upstream)),
            }
        };
        let (parts, stream) = response.into_parts();
        let mut head = ResponseHead::default();
        response_from_h2(&parts, &mut head);
        let mut reader = H2Reader::new(stream);
        let to_head = self.head.method() == b"HEAD";
        let (framing, declared) =
            framing::of_response(&mut head, to_head).map_err(|_| fail(&in_flight, Outcome::Protocol))?;
        let framing = match framing {
            Framing::UntilClose if reader.is_ended() => Framing::Empty,
            Framing::UntilClose => Framing::Chunked,
            other => other,
        };
        if framing == Framing::Empty {
            reader.discard();
        }
        Ok(Answer {
            head,
            framing,
            declared,
            reader: AnswerReader::H2(reader),
            request_sink: sink,
            request_done,
            in_flight,
            keep_alive: true,
            connection: None,
        })
    }

    /// HTTP/2 upstreams are told the length when it is known.
    fn with_length(&self, mut request: http::Request<()>) -> http::Request<()> {
        if let Framing::Length(length) = self.framing {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
        }
        request
    }
}

/// How long an upstream may be silent: as long as the request still goes up, the sending keeps the time.
fn patience(body: &RequestBody<'_>, request_done: bool) -> Duration {
    const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
    if request_done && !body.idle.is_zero() { body.idle } else { FOR_EVER }
}

/// What an error on a stream means. An error of the whole connection may have hit a request that the other end never
/// saw; one of the stream alone is its answer to this request.
fn stream_error(connection: &H2Connection, error: &h2::Error) -> Outcome {
    let of_connection = error.is_io() || error.is_go_away();
    if of_connection {
        connection.usage.retire();
    }
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Outcome::Reset { sent: false, refused: true },
        _ if of_connection || error.is_reset() => Outcome::Reset { sent: true, refused: false },
        _ => Outcome::Protocol,
    }
}

/// Reads until a head is complete. Progress is kept in `scan` and the reader, so it can be dropped and called again.
async fn read_head(reader: &mut H1Reader, scan: &mut Scan, head: &mut ResponseHead) -> Result<(), Outcome> {
    loop {
        match parse_response(&reader.buffer, scan, &Limits::default(), head) {
            Ok(Some(used)) => {
                let _ = reader.buffer.split_to(used);
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
