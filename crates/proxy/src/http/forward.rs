//! The way of a response's body to the client, while the rest of the request still goes up.

use serin_traffic::grpc::GrpcStatus;
use std::pin::pin;
use std::time::Duration;

use super::alter::{BodyTransform, PacedChunk};
use super::attempt::Answer;
use super::body::RequestBody;
use super::compare::Tap;
use super::finish::StreamInfo;
use super::held::{self, Held};
use super::upload::{PumpError, Side, pump, upload};
use crate::wire::{BodyError, BodySink, BodySource, Frame, Take};

/// The result of moving a response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Whole, and the request too.
    Complete,
    /// Whole, but the client had not sent its whole request.
    Early,
    /// The upstream broke off.
    UpstreamGone,
    /// The upstream broke the protocol.
    Malformed,
    /// The client went away.
    ClientGone,
    /// The time for the whole request is up.
    TimedOut,
    /// Nothing moved for too long.
    Idle,
}

/// Moves the response's body to the client while the rest of the request still goes up.
pub(crate) async fn stream(
    answer: &mut Answer,
    mut alter: Option<Box<BodyTransform>>,
    body: &mut RequestBody<'_>,
    client: &mut BodySink<'_>,
    record: &mut StreamInfo,
) -> Moved {
    loop {
        let taken = match (answer.exchange.sides().0, &mut *client) {
            (BodySource::H1(reader), BodySink::H1(writer)) if alter.is_none() => reader.pour(writer, &mut record.sent),
            (mut reader, _) => reader.take(),
        };
        match taken {
            Ok(Take::Frame(frame)) if alter.is_some() => {
                let Some(pieces) = alter.as_mut().map(|alter| alter.frame(frame)) else { continue };
                if !altered(answer, pieces, body, client, record).await {
                    return Moved::ClientGone;
                }
            }
            Ok(Take::Frame(frame)) => {
                match &frame {
                    Frame::Data(data) => record.sent += data.len() as u64,
                    Frame::Trailers(trailers) => record.ended_with(trailers),
                }
                client.push(frame);
                if !held::is_full(record.context(), record.chain(), client) {
                    continue;
                }
                if !flush(answer, body, client, record).await {
                    return Moved::ClientGone;
                }
                // A client that takes what there is is not silent, however much there is.
                body.timers.tick();
            }
            Ok(Take::End) => {
                if let Some(pieces) = alter.as_mut().map(|alter| alter.end())
                    && !altered(answer, pieces, body, client, record).await
                {
                    return Moved::ClientGone;
                }
                client.finish();
                if !flush(answer, body, client, record).await {
                    return Moved::ClientGone;
                }
                return if answer.request_done { Moved::Complete } else { Moved::Early };
            }
            Ok(Take::Wait) => {
                if !held::is_full(record.context(), record.chain(), client) && answer.exchange.sides().0.fill_more() {
                    continue;
                }
                if !flush(answer, body, client, record).await {
                    return Moved::ClientGone;
                }
                let (timers, idle) = (body.timers, body.idle);
                let filled = timers.within(idle, pin!(fill(answer, body, client))).await;
                match filled.unwrap_or(Filled::Idle) {
                    Filled::More => {
                        body.timers.tick();
                    }
                    Filled::UpstreamGone => return Moved::UpstreamGone,
                    Filled::ClientGone => return Moved::ClientGone,
                    Filled::Idle => return Moved::Idle,
                }
            }
            Err(error) => {
                // What came before belongs to the client.
                if !flush(answer, body, client, record).await {
                    return Moved::ClientGone;
                }
                return if error == BodyError::Aborted { Moved::UpstreamGone } else { Moved::Malformed };
            }
        }
    }
}

/// Reads a response to its end past a tap and throws it away, while the rest of the request still goes up: how that ended, and the
/// gRPC status of its trailers, if they have one.
pub(super) async fn discard(
    answer: &mut Answer,
    body: &mut RequestBody<'_>,
    tap: Option<&Tap>,
) -> (Moved, Option<GrpcStatus>) {
    let mut status = None;
    loop {
        match answer.exchange.sides().0.take() {
            Ok(Take::Frame(Frame::Data(data))) => tap.into_iter().for_each(|tap| tap.put(&data)),
            Ok(Take::Frame(Frame::Trailers(trailers))) => {
                status = GrpcStatus::of(&trailers);
            }
            Ok(Take::End) if answer.request_done => return (Moved::Complete, status),
            Ok(Take::End) => return (Moved::Early, status),
            Ok(Take::Wait) => {
                let (mut reader, mut upstream) = answer.exchange.sides();
                tokio::select! {
                    biased;
                    filled = reader.fill() => {
                        if filled.is_err() {
                            return (Moved::UpstreamGone, status);
                        }
                    }
                    pumped = pump(body, &mut upstream), if !answer.request_done => {
                        answer.request_done = true;
                        if pumped.is_err_and(|e| e.side() == Side::Client) {
                            return (Moved::ClientGone, status);
                        }
                    }
                }
            }
            Err(_) => return (Moved::UpstreamGone, status),
        }
    }
}

/// Sends what became of a part of the response, each piece after its pause; false when the client is gone.
async fn altered(
    answer: &mut Answer,
    pieces: Vec<PacedChunk>,
    body: &mut RequestBody<'_>,
    client: &mut BodySink<'_>,
    record: &mut StreamInfo,
) -> bool {
    for PacedChunk { after, frame } in pieces {
        if !after.is_zero() && !pause(answer, body, client, after).await {
            return false;
        }
        match &frame {
            Frame::Data(data) => record.sent += data.len() as u64,
            Frame::Trailers(trailers) => record.ended_with(trailers),
        }
        client.push(frame);
        if (client.is_full() || !after.is_zero()) && !flush(answer, body, client, record).await {
            return false;
        }
        body.timers.tick();
    }
    true
}

/// Waits while the rest of the request still goes up; false when the client is gone.
async fn pause(answer: &mut Answer, body: &mut RequestBody<'_>, client: &mut BodySink<'_>, time: Duration) -> bool {
    let (_, mut upstream) = answer.exchange.sides();
    let mut pausing = pin!(tokio::time::sleep(time));
    loop {
        tokio::select! {
            biased;
            () = pausing.as_mut() => return true,
            pumped = upload(body, &mut upstream, answer.request_done) => {
                answer.request_done = true;
                if pumped.is_err_and(|e| e.side() == Side::Client) {
                    return false;
                }
            }
            () = client.given_up() => return false,
        }
    }
}

/// Flushes to the client; false when it is gone.
async fn flush(
    answer: &mut Answer,
    body: &mut RequestBody<'_>,
    client: &mut BodySink<'_>,
    record: &StreamInfo,
) -> bool {
    let pending = client.pending();
    if pending == 0 {
        // What is left to say, if anything, does not wait.
        return client.flush().await.is_ok();
    }
    let timers = body.timers;
    let (_, mut upstream) = answer.exchange.sides();
    let mut flushing = pin!(client.flush());
    let mut held = None;
    let context = record.context();
    let idle = if body.idle.is_zero() { Duration::MAX } else { body.idle };
    let mut patience = idle.min(held::SHORT_PATIENCE);
    loop {
        tokio::select! {
            biased;
            flushed = timers.within(patience, flushing.as_mut()) => match flushed {
                Some(flushed) => return flushed.is_ok(),
                None if patience >= idle || held::is_exhausted(context) => return false,
                None => patience = idle.min(patience + held::SHORT_PATIENCE),
            },
            // Only what does not leave at once is counted.
            () = std::future::ready(()), if held.is_none() => {
                held = Some(Held::new(context, record.chain().clone(), pending));
            }
            pumped = pump(body, &mut upstream), if !answer.request_done => {
                answer.request_done = true;
                if pumped.is_err_and(|e| e.side() == Side::Client) {
                    return false;
                }
            }
        }
    }
}

/// The result of waiting for more of a response.
enum Filled {
    More,
    UpstreamGone,
    ClientGone,
    Idle,
}

/// Waits for more of the response.
async fn fill(answer: &mut Answer, body: &mut RequestBody<'_>, client: &mut BodySink<'_>) -> Filled {
    let (mut reader, mut upstream) = answer.exchange.sides();
    loop {
        tokio::select! {
            biased;
            filled = reader.fill() => return if filled.is_ok() { Filled::More } else { Filled::UpstreamGone },
            pumped = upload(body, &mut upstream, answer.request_done) => {
                answer.request_done = true;
                match pumped {
                    Err(PumpError::Stalled(Side::Client)) => return Filled::Idle,
                    Err(error) if error.side() == Side::Client => return Filled::ClientGone,
                    _ => {}
                }
            }
            () = client.given_up() => return Filled::ClientGone,
        }
    }
}
