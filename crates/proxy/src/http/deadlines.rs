//! The time limits of a request.

use std::time::Duration;

use serin_traffic::timeout::Limits;
use tokio::time::Instant;

use crate::timer::Timers;

/// The limits of a request that began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// The time until the response is complete, from when nothing more is waited for from the client.
    pub(crate) answer: Option<Duration>,
    /// The time at which its stream ends, however lively it is.
    stream: Option<Instant>,
    /// The time at which its filters let it go on.
    began: Instant,
}

impl Deadlines {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self { answer: limits.answer, stream: limits.stream.map(|d| now + d), began: now }
    }

    /// Since when a response is waited for: the request has come, and its filters let it go on.
    pub(crate) fn since(self, timers: &Timers) -> Option<Instant> {
        Some(timers.received()?.max(self.began))
    }

    /// The earlier of the two, as far as it is known (Envoy: the route's timeout begins when the downstream request is complete).
    pub(crate) fn first(self, timers: &Timers) -> Option<Instant> {
        let answer = self.answer.zip(self.since(timers)).map(|(limit, since)| since + limit);
        answer.into_iter().chain(self.stream).min()
    }

    /// Returns true when the stream's end comes first.
    pub(crate) fn ends_stream(self, timers: &Timers) -> bool {
        self.stream.is_some() && self.first(timers) == self.stream
    }
}
