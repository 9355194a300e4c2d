//! Moving bodies: the request's to the upstream, the answer's to the client, both at once.

use std::time::Duration;

use serin_traffic::outcome::Outcome;

use super::attempt::{Answer, AnswerReader, Failure, InFlight};
use super::body::RequestBody;
use super::finish::Record;
use crate::wire::{BodyError, Frame, Sink, Take};

/// Which side stopped a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpError {
    Client,
    Upstream,
}

impl PumpError {
    /// A client's failure ends the request; an upstream's waits for what the upstream may have answered.
    pub(crate) fn unless_upstream(self, in_flight: &InFlight) -> Result<(), Failure> {
        match self {
            Self::Client => {
                in_flight.outcome(Outcome::Reset { sent: true, refused: false });
                Err(Failure::Client)
            }
            Self::Upstream => Ok(()),
        }
    }
}

/// Moves the request's body until its end. Can be dropped and made anew at any point.
pub(crate) async fn pump(body: &mut RequestBody<'_>, sink: &mut Sink<'_>) -> Result<(), PumpError> {
    loop {
        match body.take().map_err(|_| PumpError::Client)? {
            Take::Frame(frame) => {
                sink.push(frame);
                if sink.is_full() {
                    sink.flush().await.map_err(|_| PumpError::Upstream)?;
                }
            }
            Take::End => {
                sink.finish();
                return sink.flush().await.map_err(|_| PumpError::Upstream);
            }
            Take::Wait => {
                sink.flush().await.map_err(|_| PumpError::Upstream)?;
                body.fill().await.map_err(|_| PumpError::Client)?;
            }
        }
    }
}

/// Moves the request's body, or, when that is done, waits for the client to go away.
pub(crate) async fn upload(body: &mut RequestBody<'_>, sink: &mut Sink<'_>, done: bool) -> Result<(), PumpError> {
    if done {
        body.abandoned().await;
        return Err(PumpError::Client);
    }
    pump(body, sink).await
}

/// How moving an answer's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Whole, and the request too.
    Complete,
    /// Whole, but the client had not sent its whole request.
    Early,
    /// The upstream broke off.
    UpstreamGone,
    /// The client went away.
    ClientGone,
}

/// Moves the answer's body to the client while the rest of the request still goes up.
pub(crate) async fn stream(
    answer: &mut Answer,
    body: &mut RequestBody<'_>,
    client: &mut Sink<'_>,
    (record, idle): (&mut Record, Duration),
) -> Moved {
    loop {
        match answer.reader.take() {
            Ok(Take::Frame(frame)) => {
                if let Frame::Data(data) = &frame {
                    record.sent += data.len() as u64;
                }
                client.push(frame);
                if !client.is_full() {
                    continue;
                }
                if !flush(answer, body, client).await {
                    return Moved::ClientGone;
                }
            }
            Ok(Take::End) => {
                client.finish();
                if !flush(answer, body, client).await {
                    return Moved::ClientGone;
                }
                return if answer.request_done { Moved::Complete } else { Moved::Early };
            }
            Ok(Take::Wait) => {
                if !flush(answer, body, client).await {
                    return Moved::ClientGone;
                }
                match super::within(idle, fill(answer, body)).await.unwrap_or(Some(Err(BodyError::Aborted))) {
                    Some(Ok(())) => {}
                    Some(Err(_)) => return Moved::UpstreamGone,
                    None => return Moved::ClientGone,
                }
            }
            Err(_) => return Moved::UpstreamGone,
        }
    }
}

/// Flushes to the client; false when it is gone.
async fn flush(answer: &mut Answer, body: &mut RequestBody<'_>, client: &mut Sink<'_>) -> bool {
    loop {
        tokio::select! {
            biased;
            flushed = client.flush() => return flushed.is_ok(),
            pumped = pump(body, &mut answer.request_sink), if !answer.request_done => {
                answer.request_done = true;
                if pumped == Err(PumpError::Client) {
                    return false;
                }
            }
        }
    }
}

/// Waits for more of the answer; `None` when the client is gone.
async fn fill(answer: &mut Answer, body: &mut RequestBody<'_>) -> Option<Result<(), BodyError>> {
    loop {
        tokio::select! {
            biased;
            filled = answer.reader.fill() => return Some(filled),
            pumped = upload(body, &mut answer.request_sink, answer.request_done) => {
                answer.request_done = true;
                if pumped == Err(PumpError::Client) {
                    return None;
                }
            }
        }
    }
}

impl AnswerReader {
    fn take(&mut self) -> Result<Take, BodyError> {
        match self {
            Self::H1(reader) => reader.take(),
            Self::H2(reader) => Ok(reader.take()),
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match self {
            Self::H1(reader) => reader.fill().await,
            Self::H2(reader) => reader.fill().await,
        }
    }
}
