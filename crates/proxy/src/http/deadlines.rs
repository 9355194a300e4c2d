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
    /// When all of the request must have come.
    request: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self { answer: limits.answer, stream: limits.stream.map(|d| now + d), request: None, began: now }
    }

    /// The same, where all of the request must have come by then.
    pub(crate) fn with_request(self, until: Option<Instant>) -> Self {
        Self { request: until, ..self }
    }

    /// Since when a response is waited for: the request has come, and its filters let it go on.
    pub(crate) fn since(self, timers: &Timers) -> Option<Instant> {
        Some(timers.received()?.max(self.began))
    }

    /// The earlier of the two, as far as it is known (Envoy: the route's timeout begins when the downstream request is complete).
    pub(crate) fn first(self, timers: &Timers) -> Option<Instant> {
        let answer = self.answer.zip(self.since(timers)).map(|(limit, since)| since + limit);
        answer.into_iter().chain(self.stream).chain(self.request_limit(timers)).min()
    }

    fn request_limit(self, timers: &Timers) -> Option<Instant> {
        self.request.filter(|_| timers.received().is_none())
    }

    /// Returns true when the end of the time for the request comes first.
    pub(crate) fn ends_request(self, timers: &Timers) -> bool {
        self.request.is_some() && self.first(timers) == self.request_limit(timers)
    }

    /// Returns true when the stream's end comes first.
    pub(crate) fn ends_stream(self, timers: &Timers) -> bool {
        self.stream.is_some() && self.first(timers) == self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    /// The time for a response begins when the request has come and its filters let it go on, whichever is later; that of a stream when
    /// the request began.
    #[test]
    fn each_limit_has_its_own_beginning() {
        let timers = Timers::new();
        let began = timers.last();
        let deadlines = Deadlines::new(Limits { answer: after(5), stream: after(60) }, began);
        timers.set_received(None);
        assert_eq!(deadlines.first(&timers), Some(began + Duration::from_secs(60)));
        assert!(deadlines.ends_stream(&timers), "a client that uploads is limited by its stream's time alone");
        let received = began + Duration::from_secs(10);
        timers.set_received(Some(received));
        assert_eq!(deadlines.first(&timers), Some(received + Duration::from_secs(5)));
        assert!(!deadlines.ends_stream(&timers));
        timers.set_received(Some(began - Duration::from_secs(1)));
        assert_eq!(deadlines.since(&timers), Some(began));
    }

    #[test]
    fn no_limit_is_no_deadline() {
        let timers = Timers::new();
        timers.set_received(Some(timers.last()));
        let deadlines = Deadlines::new(Limits { answer: None, stream: None }, timers.last());
        assert_eq!(deadlines.first(&timers), None);
        assert!(!deadlines.ends_stream(&timers));
    }
}
