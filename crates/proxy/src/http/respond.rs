//! The response's way to the client.

use serin_http1::encode::{self, Connection, decimal};
use serin_http1::framing::{self, Declared, Framing};
use serin_http1::{RequestHead, ResponseHead, Version};
use serin_http2::{Reason, StreamHandle};
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::header::HeaderEdits;
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
use super::attempt::{Answer, Exchange};
use super::body::RequestBody;
use super::compare::Tap;
use super::date;
use super::filters::{ActiveFilters, ResponseParts};
use super::finish::StreamInfo;
use super::forward::{self, Moved};
use super::local_reply::LocalReply;
use super::request;
use super::stage::{Forwarded, MatchedRoute, RouteCommands};
use super::upgrade::Tunnel;
use crate::metric;
use crate::runtime::{ClusterRuntime, Permit};
use crate::wire::{BodySink, Frame, H1Writer, H2Writer};

/// The end of a request, as its connection sees it.
pub(crate) enum Disposition {
    /// The connection may carry another request.
    Keep,
    /// It must close, after what was written has left.
    Close,
    /// It must break off: the response is not whole.
    Abort,
    /// It carries another protocol from now on.
    Tunnel(Box<Tunnel>),
}

/// The destination of the response.
pub(crate) enum Responder<'a> {
    /// An HTTP/1 connection.
    H1 {
        writer: &'a mut H1Writer,
        version: Version,
        /// True when client and proxy want to go on with the connection.
        keep_alive: bool,
    },
    /// An HTTP/2 stream.
    H2(Rc<StreamHandle>),
}

impl<'a> Responder<'a> {
    /// Starts the response; yields where its body goes and whether the connection stays.
    fn start(
        self,
        head: &ResponseHead,
        framing: Framing,
        declared: Declared,
        slot: &'a mut Option<H2Writer>,
    ) -> Option<(BodySink<'a>, bool)> {
        match self {
            Self::H1 { writer, version, keep_alive } => {
                let framing = match framing {
                    Framing::Chunked | Framing::UntilClose if version == Version::Http10 => Framing::UntilClose,
                    Framing::UntilClose => Framing::Chunked,
                    other => other,
                };
                let keep = keep_alive && framing != Framing::UntilClose;
                let announce = match (head.status, keep, version) {
                    (101, ..) => Connection::Upgrade,
                    (_, false, _) => Connection::Close,
                    (_, true, Version::Http10) => Connection::KeepAlive,
                    (_, true, _) => Connection::Default,
                };
                let declared = match declared {
                    Declared::Unknown if version == Version::Http10 => Declared::Nothing,
                    other => other,
                };
                encode::response(head, framing, declared, announce, &mut writer.out);
                writer.chunked = framing == Framing::Chunked;
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
    if http.is_some_and(|h| h.request_id_in_response)
        && let Some(id) = request.fields.get("x-request-id")
    {
        head.fields.set("x-request-id", id);
    }
    record.response(&head);
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
    let responder = match responder {
        Responder::H1 { writer, version, keep_alive } => {
            Responder::H1 { writer, version, keep_alive: keep_alive && !close }
        }
        other => other,
    };
    let mut slot = None;
    let started = responder.start(&head, framing, declared, &mut slot);
    let Some((mut sink, keep)) = started else { return Disposition::Abort };
    if framing != Framing::Empty {
        record.sent = length;
        sink.push(Frame::Data(text.into()));
    }
    sink.finish();
    match body.timers.within(body.idle, pin!(sink.flush())).await {
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
    let compared: Vec<_> = pairs.iter().map(|pair| (pair, pair.head(&answer.head))).collect();
    let switching = answer.head.status == 101;
    record.details = Some(Cow::Borrowed("via_upstream"));
    let took = body.timers.tick() - record.started();
    record.first_byte(took, body.timers);
    record.upstream_tls = answer.tls.take();
    prepare(&mut answer.head, &shape, took, record);
    // Most responses pass no filter: they do without the future.
    let mut alter = match shape.filters.is_idle() {
        true => None,
        false => filter(&mut answer, &mut shape, record).await,
    };
    if alter.as_ref().is_some_and(|a| a.changes_length()) {
        answer.framing = Framing::Chunked;
        answer.declared = Declared::AsFramed;
    }
    let tap = (!pairs.is_empty()).then(Rc::<Tap>::default);
    if let Some(tap) = &tap {
        alter = Some(Box::new(alter.unwrap_or_default().tapped(tap)));
    }
    cookies.iter().for_each(|cookie| answer.head.fields.append(b"set-cookie", cookie.as_bytes()));
    record.is_call = answer.in_flight.is_call;
    record.response(&answer.head);
    let grpc = GrpcStatus::of(&answer.head.fields);
    answer.in_flight.outcome(Outcome::Response { status: answer.head.status, grpc });
    let mut slot = None;
    let started = responder.start(&answer.head, answer.framing, answer.declared, &mut slot);
    let Some((mut sink, keep)) = started else { return Disposition::Abort };
    if switching {
        return if sink.flush().await.is_ok() { tunnel(answer, permit) } else { Disposition::Abort };
    }
    let timers = body.timers;
    let moved = {
        let moving = pin!(forward::stream(&mut answer, alter, body, &mut sink, record));
        timers.limited(|| deadlines.first(timers), moving).await.unwrap_or(Moved::TimedOut)
    };
    drop(permit);
    match moved {
        Moved::Complete | Moved::Early => answer.in_flight.ended(record.grpc_status()),
        Moved::UpstreamGone | Moved::TimedOut => answer.in_flight.ended(None),
        Moved::ClientGone => {}
    }
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
        Moved::UpstreamGone | Moved::TimedOut => {
            record.flag = ResponseFlag::UpstreamConnectionTermination;
            record.details = Some(Cow::Borrowed("upstream_reset_after_response_started{connection_termination}"));
            if moved == Moved::TimedOut {
                record.flag = ResponseFlag::UpstreamRequestTimeout;
                record.details = Some(Cow::Borrowed("response_timeout"));
                cluster.state.stats.add(record.worker().id, metric::cluster::RQ_TIMEOUT, 1);
            }
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

/// Takes the head of a response through the filters; yields what its body passes.
async fn filter(answer: &mut Answer, shape: &mut Shape<'_>, record: &StreamInfo) -> Option<Box<BodyTransform>> {
    let body = Some((answer.framing, answer.declared));
    let mut response = ResponseParts { head: &mut answer.head, request: shape.request, record, body };
    shape.filters.response_head(&mut response).await;
    if answer.framing == Framing::Empty { None } else { shape.filters.response_body() }
}

fn prepare(head: &mut ResponseHead, shape: &Shape<'_>, took: Duration, record: &mut StreamInfo) {
    if head.status == 101 {
        head.fields.remove("connection");
    } else {
        framing::strip_hop_by_hop(&mut head.fields);
    }
    if !head.fields.contains("date") {
        date::with(record.started() + took, |date| head.fields.append(b"date", date));
    }
    let mut digits = [0u8; 20];
    if !shape.http.suppress_envoy_headers {
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
    if more && sent && reader.decoder.is_done() && reader.buffer.is_empty() && !reader.ended {
        connection.head = head;
        connection.idle_since = now.into_std();
        in_flight.put(connection);
    }
}

fn tunnel(answer: Answer, permit: Permit) -> Disposition {
    let Answer { exchange: Exchange::H1(connection), in_flight, .. } = answer else { return Disposition::Abort };
    Disposition::Tunnel(Box::new(Tunnel { connection, in_flight, permit }))
}
