//! A request on a stream of an HTTP/2 connection.

use std::rc::Rc;

use serin_http1::framing::{self, Framing};
use serin_http2::StreamError;
use serin_traffic::outcome::Outcome;

use super::super::body::RequestBody;
use super::super::upload::upload;
use super::{Answer, Attempt, Exchange, Failure, InFlight, silence};
use crate::upstream::{H2Connection, H2Stream};
use crate::wire::{BodySink, H2Reader, H2Writer};

impl Attempt<'_> {
    pub(super) async fn exchange_h2(
        &self,
        connection: H2Connection,
        mut in_flight: InFlight,
        body: &mut RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        let fail = |in_flight: &InFlight, outcome: Outcome| {
            in_flight.outcome(outcome);
            Failure::Outcome(outcome)
        };
        let mut request_done = body.is_empty();
        let length = if let Framing::Length(length) = self.framing { Some(length) } else { None };
        let ends = request_done && self.upgrade.is_none();
        let Some(stream) = connection.session.open(self.head, length, ends) else {
            return Err(fail(&in_flight, Outcome::Reset { sent: false, refused: false }));
        };
        in_flight.stream = Some(H2Stream::open(&connection));
        let stream = Rc::new(stream);
        let mut writer = H2Writer::new(stream.clone(), ends);
        let mut sink = BodySink::H2(&mut writer);
        let mut head = loop {
            let silence = silence(body, request_done, self.idle);
            tokio::select! {
                biased;
                answered = std::future::poll_fn(|cx| stream.poll_head(cx)) => {
                    break answered.map_err(|e| {
                        let outcome = stream_error(&connection, e);
                        if outcome == Outcome::ConnectFailure {
                            in_flight.connected(true);
                        }
                        fail(&in_flight, outcome)
                    })?;
                }
                pumped = upload(body, &mut sink, request_done) => {
                    pumped.or_else(|e| e.unless_upstream(&in_flight))?;
                    request_done = true;
                }
                () = silence => {
                    in_flight.outcome(Outcome::Timeout);
                    return Err(self.silent());
                }
            }
        };
        let mut reader = H2Reader::new(stream);
        let to_head = self.head.method() == b"HEAD";
        let (framing, declared) =
            framing::of_response(&mut head, to_head).map_err(|_| fail(&in_flight, Outcome::Protocol))?;
        if let Some(upgrade) = self.upgrade {
            upgrade.agree(&mut head);
        }
        let is_tunnel = self.upgrade.is_some_and(|upgrade| upgrade.is_agreed(&head));
        let framing = match framing {
            _ if is_tunnel => Framing::UntilClose,
            Framing::UntilClose if reader.is_ended() => Framing::Empty,
            Framing::UntilClose => Framing::Chunked,
            other => other,
        };
        if framing == Framing::Empty {
            reader.discard();
        }
        Ok(Answer {
            tls: connection.usage.tls().cloned(),
            head,
            framing,
            declared,
            exchange: Exchange::H2(Box::new((reader, writer))),
            request_done,
            in_flight,
            keep_alive: true,
            is_tunnel,
            is_raw: false,
        })
    }
}

/// The outcome of an error on a stream. The end of the whole connection may have hit a request that the other end never
/// saw; a reset of the stream alone is its response to this request.
fn stream_error(connection: &H2Connection, error: StreamError) -> Outcome {
    match error {
        StreamError::Refused => Outcome::Reset { sent: false, refused: true },
        StreamError::Reset(_) => Outcome::RemoteReset,
        StreamError::Gone if connection.usage.is_unreachable() => Outcome::ConnectFailure,
        StreamError::Gone => {
            connection.usage.retire();
            Outcome::Reset { sent: true, refused: false }
        }
        StreamError::Malformed => Outcome::Protocol,
    }
}
