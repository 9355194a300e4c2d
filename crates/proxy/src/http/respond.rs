//! The response's way to the client.

use serin_http1::encode::{self, Connection, Names, Style, decimal};
use serin_http1::framing::{self, Declared, Framing};
use serin_http1::{RequestHead, ResponseHead, Version};
use serin_http2::{Reason, StreamHandle};
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::header::HeaderEdits;
use serin_resources::protocol::{Http1Options, NameCase};
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::header_edit;
use serin_traffic::outcome::Outcome;
use serin_traffic::response_flag::ResponseFlag;
use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

use super::alter::BodyTransform;
use super::attempt::{Answer, Exchange, names};
use super::body::RequestBody;
use super::compare::Tap;
use super::date;
use super::filters::{ActiveFilters, ResponseParts};
use super::finish::StreamInfo;
use super::forward::{self, Moved};
use super::local_reply::LocalReply;
use super::request;
use super::stage::{Forwarded, MatchedRoute, RouteCommands};
use super::upgrade::UpgradeRequest;
use crate::metric;
use crate::runtime::ClusterRuntime;
use crate::wire::{BodySink, Frame, H1Writer, H2Writer};

/// The end of a request, as its connection sees it.
pub(crate) enum Disposition {
    /// The connection may carry another request.
    Keep,
    /// It must close, after what was written has left.
    Close,
    /// It must break off: the response is not whole.
    Abort,
}

/// The destination of the response.
pub(crate) enum Responder<'a> {
    /// An HTTP/1 connection.
    H1 {
        writer: &'a mut H1Writer,
        version: Version,
        /// True when client and proxy want to go on with the connection.
        keep_alive: bool,
        /// How the head is written, and whether trailers may follow.
        style: Style,
        trailers: bool,
    },
    /// An HTTP/2 stream.
    H2(Rc<StreamHandle>),
}

impl<'a> Responder<'a> {
    /// Starts a response after which another protocol follows.
    fn start_tunnel(self, head: &mut ResponseHead, slot: &'a mut Option<H2Writer>) -> Option<(BodySink<'a>, bool)> {
        match self {
            Self::H1 { writer, style, .. } => {
                let framing = (Framing::Empty, Declared::Nothing);
                writer.begin(|out| encode::response(head, framing, Connection::Default, style, out));
                writer.is_tunnel = true;
                Some((BodySink::H1(writer), false))
            }
            Self::H2(stream) => {
                if head.status == 101 {
                    head.status = 200;
                }
                head.fields.remove("connection");
                stream.respond(head, None, false).ok()?;
                Some((BodySink::H2(slot.insert(H2Writer::new(stream, false))), true))
            }
        }
    }

    /// The same responder for a response of that cluster.
    fn of_upstream(self, manager: &Http1Options, cluster: &Http1Options) -> Self {
        match self {
            Self::H1 { writer, version, keep_alive, style, trailers } => {
                let keeps_reason = matches!(cluster.names, NameCase::Kept { reason: true, .. });
                let style = Style { names: names(cluster.names, manager.names), keeps_reason, ..style };
                Self::H1 { writer, version, keep_alive, style, trailers }
            }
            other @ Self::H2(_) => other,
        }
    }

    /// The same responder, whose connection ends after the response, if so it must.
    pub(super) fn closing_if(self, must: bool) -> Self {
        match self {
            _ if !must => self,
            Self::H1 { writer, version, style, trailers, .. } => {
                Self::H1 { writer, version, keep_alive: false, style, trailers }
            }
            other => other,
        }
    }

    /// Starts the response; yields where its body goes and whether the connection stays.
    fn start(
        self,
        head: &ResponseHead,
        framing: Framing,
        declared: Declared,
        slot: &'a mut Option<H2Writer>,
    ) -> Option<(BodySink<'a>, bool)> {
        match self {
            Self::H1 { writer, version, keep_alive, style, trailers } => {
                let framing = match framing {
                    Framing::Chunked | Framing::UntilClose if version == Version::Http10 => Framing::UntilClose,
                    Framing::UntilClose => Framing::Chunked,
                    other => other,
                };
                let keep = keep_alive && framing != Framing::UntilClose;
                let announce = match (keep, version) {
                    (false, _) => Connection::Close,
                    (true, Version::Http10) => Connection::KeepAlive,
                    (true, _) => Connection::Default,
                };
                let declared = match declared {
                    Declared::Unknown if version == Version::Http10 => Declared::Nothing,
                    other => other,
                };
                writer.begin(|out| encode::response(head, (framing, declared), announce, style, out));
                writer.chunked = framing == Framing::Chunked;
                // Names of trailers are left as they are (Envoy: `StreamEncoderImpl::encodeTrailersBase`).
                let of_trailers = if style.names == Names::Proper { Style::default() } else { style };
                writer.trailers = trailers.then_some(of_trailers);
                Some((BodySink::H1(writer), keep))
            }
            Self::H2(stream) => {
                let length = match (framing, declared) {
                    (Framing::Length(n), _) | (Framing::Empty, Declared::Length(n)) => Some(n),
                    _ => None,
                };
                let ended = framing == Framing::Empty;
                stream.respond(head, length, ended).ok()?;
                Some((BodySink::H2(slot.insert(H2Writer::new(stream, ended))), true))
            }
        }
    }
}

/// The changes to a response on its way.
pub(crate) struct Shape<'a> {
    pub(crate) edits: [&'a HeaderEdits; 4],
    pub(crate) http: &'a HttpConnectionManager,
    pub(crate) place: MatchedRoute<'a>,
    pub(crate) request: &'a RequestHead,
    /// The protocol that was asked for.
    pub(crate) upgrade: Option<&'a UpgradeRequest>,
    /// The filters that get the response.
    pub(super) filters: ActiveFilters<'a>,
}

/// Sends a local reply.
pub(crate) async fn local(
    reply: LocalReply,
    request: &RequestHead,
    body: &RequestBody<'_>,
    responder: Responder<'_>,
    record: &mut StreamInfo,
) -> Disposition {
    let LocalReply { mut head, body: text, flag, close, details, .. } = reply;
    record.flag = flag;
    if flag == ResponseFlag::StreamIdleTimeout {
        record.count(metric::http::RQ_IDLE_TIMEOUT);
    }
    record.details = details;
    let http = record.manager();
    let server = http.and_then(|h| h.server_name.as_deref());
    match (server, http) {
        (Some(name), _) => head.fields.set("server", name.as_bytes()),
        (None, Some(_)) => {}
        (None, None) => head.fields.set("server", b"serin"),
    }
    if !head.fields.contains("date") {
        date::with(body.timers.last(), |date| head.fields.append(b"date", date));
    }
    if let Some(via) = http.map(|h| h.via.as_str()).filter(|via| !via.is_empty()) {
        request::add_via(via, &mut head.fields);
    }
    if http.is_some_and(|h| h.request_id_in_response)
        && let Some(id) = request.fields.get("x-request-id")
    {
        head.fields.set("x-request-id", id);
    }
    let length = text.len() as u64;
    let to_head = request.method() == b"HEAD";
    let (framing, declared) = match head.status {
        ..200 | 204 | 304 => (Framing::Empty, Declared::AsFramed),
        // A response to HEAD does not say that its body is empty (Envoy: `ResponseEncoderImpl::encodeHeaders`).
        _ if text.is_empty() && to_head => (Framing::Empty, Declared::Unknown),
        _ if text.is_empty() => (Framing::Empty, Declared::AsFramed),
        _ if to_head => (Framing::Empty, Declared::Length(length)),
        _ => (Framing::Length(length), Declared::AsFramed),
    };
    record.response(&head);
    record.framed(framing, declared);
    let responder = responder.closing_if(close);
    let mut slot = None;
    let started = responder.start(&head, framing, declared, &mut slot);
    let Some((mut sink, keep)) = started else { return Disposition::Abort };
    if framing != Framing::Empty {
        record.sent = length;
        sink.push(Frame::Data(text.into()));
    }
    sink.finish();
    let flushed = body.timers.within(body.idle, pin!(sink.flush())).await;
    record.wires(body, &sink);
    match flushed {
        Some(Ok(())) if keep => Disposition::Keep,
        Some(Ok(())) => Disposition::Close,
        Some(Err(_)) | None => Disposition::Abort,
    }
}

/// Passes an upstream's response on.
pub(crate) async fn answer(
    forwarded: Forwarded<'_>,
    mut shape: Shape<'_>,
    body: &mut RequestBody<'_>,
    responder: Responder<'_>,
    record: &mut StreamInfo,
) -> Disposition {
    let Forwarded { mut answer, cluster, deadlines, permit, cookies, pairs, .. } = forwarded;
    let responder = responder.of_upstream(&shape.http.http1, &cluster.config.http1);
    let responder = responder.closing_if(note_early(&answer, record) || answer.is_raw);
    let compared: Vec<_> = pairs.iter().map(|pair| (pair, pair.head(&answer.head))).collect();
    record.details = Some(Cow::Borrowed("via_upstream"));
    let took = body.timers.tick() - record.started();
    record.first_byte(took, body.timers);
    record.upstream(&mut answer);
    let is_tunnel = answer.is_tunnel;
    let is_complete = body.timers.received().is_some() && !record.is_upgrade() && !answer.is_raw;
    prepare(&mut answer.head, Arrival { took, is_tunnel, is_complete }, &shape, record);
    // Most responses pass no filter: they do without the future.
    let mut alter = match shape.filters.is_idle() {
        true => None,
        false => filter(&mut answer, &mut shape, record).await,
    };
    if alter.as_ref().is_some_and(|a| a.changes_length()) {
        answer.framing = Framing::Chunked;
        answer.declared = Declared::AsFramed;
    }
    if !is_tunnel && shape.upgrade.is_some_and(|upgrade| upgrade.is_missed(&answer.head)) {
        record.details = Some(Cow::Borrowed("websocket_handshake_unsuccessful"));
        return without_body(answer, responder, record).await;
    }
    let tap = (!pairs.is_empty()).then(Rc::<Tap>::default);
    if let Some(tap) = &tap {
        alter = Some(Box::new(alter.unwrap_or_default().tapped(tap)));
    }
    cookies.iter().for_each(|cookie| answer.head.fields.append(b"set-cookie", cookie.as_bytes()));
    record.is_call = answer.in_flight.is_call;
    record.response(&answer.head);
    record.framed(answer.framing, answer.declared);
    let grpc = GrpcStatus::of(&answer.head.fields);
    answer.in_flight.outcome(Outcome::Response { status: answer.head.status, grpc });
    let mut slot = None;
    let started = match is_tunnel {
        true => {
            body.open();
            record.tunnel_begins();
            answer.request_done = false;
            responder.start_tunnel(&mut answer.head, &mut slot)
        }
        false => responder.start(&answer.head, answer.framing, answer.declared, &mut slot),
    };
    let Some((mut sink, keep)) = started else { return Disposition::Abort };
    let timers = body.timers;
    let deadlines = deadlines.with_request(None);
    let moved = {
        let moving = pin!(forward::stream(&mut answer, alter, body, &mut sink, record));
        timers.limited(|| deadlines.first(timers), moving).await.unwrap_or(Moved::TimedOut)
    };
    drop(permit);
    record.wires(body, &sink);
    note_end(moved, &answer, record);
    let took = timers.last() - record.started();
    record.took = Some(took);
    cluster.state.times.record(record.worker().id, took);
    match moved {
        Moved::Complete => {
            for ((pair, seen), tap) in compared.into_iter().zip(tap.iter().cycle()) {
                pair.complete(false, seen, tap);
            }
            recycle(answer, &cluster, timers.last());
            if keep { Disposition::Keep } else { Disposition::Close }
        }
        Moved::Early => Disposition::Close,
        Moved::UpstreamGone | Moved::Malformed | Moved::TimedOut | Moved::Idle => {
            broken_off(moved, deadlines.ends_stream(timers), &cluster, record);
            if let BodySink::H2(writer) = &mut sink {
                writer.reset(Reason::INTERNAL_ERROR);
            }
            Disposition::Abort
        }
        Moved::ClientGone => {
            record.flag = ResponseFlag::DownstreamConnectionTermination;
            record.details = Some(Cow::Borrowed("downstream_remote_disconnect"));
            Disposition::Abort
        }
    }
}

/// Counts a response that came before all of its request had; true when its connection must end, so that what is still to come
/// of the request is not waited for.
fn note_early(answer: &Answer, record: &StreamInfo) -> bool {
    if !answer.request_done {
        record.count(metric::http::RQ_EARLY_RESPONSE);
    }
    !answer.request_done && record.version() != Version::Http2
}

/// Tells those who count how a response has ended.
fn note_end(moved: Moved, answer: &Answer, record: &mut StreamInfo) {
    record.upstream_wire = answer.exchange.wire();
    answer.exchange.note(matches!(moved, Moved::Complete | Moved::Early));
    match moved {
        Moved::Complete | Moved::Early => answer.in_flight.ended(record.grpc_status()),
        Moved::UpstreamGone | Moved::Malformed | Moved::TimedOut | Moved::Idle => answer.in_flight.ended(None),
        Moved::ClientGone => {}
    }
    if answer.is_tunnel {
        tunnel_ended(moved, matches!(answer.exchange, Exchange::H1(_)), record);
    }
}

/// Passes the head of a response on, and ends it there.
async fn without_body(answer: Answer, responder: Responder<'_>, record: &mut StreamInfo) -> Disposition {
    let Answer { mut head, in_flight, .. } = answer;
    head.fields.remove("content-length");
    record.response(&head);
    in_flight.outcome(Outcome::Response { status: head.status, grpc: None });
    let mut slot = None;
    let Some((mut sink, _)) = responder.start(&head, Framing::Empty, Declared::AsFramed, &mut slot) else {
        return Disposition::Abort;
    };
    sink.finish();
    if sink.flush().await.is_ok() { Disposition::Close } else { Disposition::Abort }
}

/// Says why a response is not whole.
fn broken_off(moved: Moved, ends_stream: bool, cluster: &ClusterRuntime, record: &mut StreamInfo) {
    let (flag, details) = match moved {
        Moved::Idle => {
            record.count(metric::http::RQ_IDLE_TIMEOUT);
            (ResponseFlag::StreamIdleTimeout, "stream_idle_timeout")
        }
        Moved::Malformed => {
            cluster.state.stats.add(record.worker().id, metric::cluster::CX_PROTOCOL_ERROR, 1);
            (ResponseFlag::UpstreamProtocolError, "upstream_reset_after_response_started{protocol_error}")
        }
        Moved::TimedOut if ends_stream => {
            record.count(metric::http::RQ_MAX_DURATION);
            (ResponseFlag::None, "max_duration_timeout")
        }
        Moved::TimedOut => {
            cluster.state.stats.add(record.worker().id, metric::cluster::RQ_TIMEOUT, 1);
            (ResponseFlag::UpstreamRequestTimeout, "response_timeout")
        }
        _ => (
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_after_response_started{connection_termination}",
        ),
    };
    record.flag = flag;
    record.details = Some(Cow::Borrowed(details));
}

/// Says which side has ended another protocol. (Envoy ends both sides with the first that ends.)
fn tunnel_ended(moved: Moved, is_http1: bool, record: &mut StreamInfo) {
    match moved {
        Moved::Complete if record.version() != Version::Http2 => {
            record.flag = ResponseFlag::DownstreamConnectionTermination;
            record.details = Some(Cow::Borrowed("downstream_remote_disconnect"));
        }
        Moved::Complete | Moved::Early if is_http1 && record.status == 101 => {
            record.flag = ResponseFlag::UpstreamConnectionTermination;
            record.details = Some(Cow::Borrowed("upstream_reset_after_response_started{connection_termination}"));
        }
        _ => {}
    }
}

/// Takes the head of a response through the filters; yields what its body passes.
async fn filter(answer: &mut Answer, shape: &mut Shape<'_>, record: &StreamInfo) -> Option<Box<BodyTransform>> {
    let body = Some((answer.framing, answer.declared));
    let mut response = ResponseParts { head: &mut answer.head, request: shape.request, record, body };
    shape.filters.response_head(&mut response).await;
    if answer.framing == Framing::Empty { None } else { shape.filters.response_body() }
}

/// How the head of a response came.
#[derive(Clone, Copy)]
struct Arrival {
    /// The time since the request.
    took: Duration,
    /// True when another protocol follows.
    is_tunnel: bool,
    /// True when all of the request had come.
    is_complete: bool,
}

fn prepare(head: &mut ResponseHead, arrival: Arrival, shape: &Shape<'_>, record: &mut StreamInfo) {
    let Arrival { took, is_tunnel, is_complete } = arrival;
    if !is_tunnel {
        framing::strip_hop_by_hop(&mut head.fields);
    }
    if !head.fields.contains("date") {
        date::with(record.started() + took, |date| head.fields.append(b"date", date));
    }
    let mut digits = [0u8; 20];
    // It counts from the end of the request (Envoy: `Filter::onUpstreamHeaders`).
    if is_complete && !shape.http.suppress_envoy_headers {
        head.fields.set("x-envoy-upstream-service-time", decimal(took.as_millis() as u64, &mut digits));
    }
    if let Some(server) = &shape.http.server_name
        && !(shape.http.server_if_absent && head.fields.contains("server"))
    {
        head.fields.set("server", server.as_bytes());
    }
    if !shape.http.via.is_empty() {
        request::add_via(&shape.http.via, &mut head.fields);
    }
    if shape.place.host.config.include_attempt_count_in_response {
        head.fields.set("x-envoy-attempt-count", decimal(record.attempts.into(), &mut digits));
    }
    record.status = head.status;
    let here = RouteCommands { record, place: shape.place };
    for edits in shape.edits {
        header_edit::to_response(edits, head, shape.request, &here);
    }
    if shape.http.request_id_in_response
        && let Some(id) = shape.request.fields.get("x-request-id")
    {
        head.fields.set("x-request-id", id);
    }
}

/// Gives the connection back to the pool when both ends have finished and want to go on.
pub(crate) fn recycle(answer: Answer, cluster: &ClusterRuntime, now: Instant) {
    let Answer { head, exchange: Exchange::H1(mut connection), in_flight, keep_alive: true, .. } = answer else {
        return;
    };
    let more = cluster.config.max_requests_per_connection.is_none_or(|max| connection.requests < max);
    let reader = &connection.reader;
    let sent = connection.writer.is_flushed();
    if !reader.buffer.is_empty() {
        in_flight.broke_protocol();
    }
    if more && sent && reader.decoder.is_done() && reader.buffer.is_empty() && !reader.ended {
        connection.head = head;
        connection.idle_since = now.into_std();
        in_flight.put(connection);
    }
}
