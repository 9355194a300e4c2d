//! The times from which the limits of a request are measured, and waiting until one has passed.
//!
//! All waits of a connection share one [`Alarm`], which costs nothing unless a limit runs out. It does not know the
//! limits themselves; those are in the configuration.

use std::cell::Cell;
use std::pin::Pin;
use std::time::Duration;

use serin_transport::Alarm;
use tokio::time::Instant;

/// The timers of one connection, or of one HTTP/2 stream.
pub(crate) struct Timers {
    /// The time at which something last happened here. Silence is measured from it, so that waiting needs no look at the clock.
    now: Cell<Instant>,
    /// Since when nothing is waited for from who sends the request at hand: all of it has come, or who gets it holds it up.
    received: Cell<Option<Instant>>,
    /// The time at which its attempt at hand had a connection.
    connected: Cell<Option<Instant>>,
    alarm: Alarm,
}

impl Timers {
    pub(crate) fn new() -> Self {
        let (received, connected) = (Cell::new(None), Cell::new(None));
        Self { now: Cell::new(Instant::now()), received, connected, alarm: Alarm::default() }
    }

    /// Looks at the clock.
    pub(crate) fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time of the last [`tick`](Self::tick).
    pub(crate) fn last(&self) -> Instant {
        self.now.get()
    }

    /// Since when nothing is waited for from who sends the request at hand: all of it has come, or who gets it holds it up.
    pub(crate) fn received(&self) -> Option<Instant> {
        self.received.get()
    }

    /// Something came of the request at hand, or `None`: it is waited for.
    pub(crate) fn set_received(&self, received: Option<Instant>) {
        self.received.set(received);
    }

    /// Since when the attempt at hand waits for its response: it has a connection, and the request has come.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        Some(self.received.get()?.max(self.connected.get()?))
    }

    /// The attempt at hand has a connection, or is looking for one.
    pub(crate) fn set_connected(&self, connected: Option<Instant>) {
        self.connected.set(connected);
    }

    /// The output, or `None` when nothing happened for `limit` (zero is no limit); every tick meanwhile begins the time
    /// anew. Like [`until`](Self::until) it takes a future that lies elsewhere: one that is moved into another takes its
    /// room twice, and waits are nested deeply.
    pub(crate) fn within<F: Future>(
        &self,
        limit: Duration,
        future: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> {
        self.alarm.race(move || (!limit.is_zero()).then(|| self.last() + limit), future)
    }

    /// The output, or `None` when `limit` (zero is no limit) has passed since the last tick, whatever happens until then.
    pub(crate) fn at_most<F: Future>(
        &self,
        limit: Duration,
        future: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> {
        let until = (!limit.is_zero()).then(|| self.last() + limit);
        self.until(until, future)
    }

    /// The output, or `None` when that time passes first.
    pub(crate) fn until<F: Future>(
        &self,
        until: Option<Instant>,
        future: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> {
        self.limited(move || until, future)
    }

    /// The output, or `None` when that time passes first, which what happens meanwhile may set or change.
    pub(crate) fn limited<F: Future>(
        &self,
        until: impl Fn() -> Option<Instant>,
        future: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> {
        self.alarm.race(until, future)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(5);

    /// Waits for nothing; the clock is looked at whenever it is woken. Counts how often it was polled.
    fn busy<'a>(timers: &'a Timers, polls: &'a Cell<u32>, ticks: u32) -> impl Future<Output = ()> + 'a {
        std::future::poll_fn(move |_| {
            polls.set(polls.get() + 1);
            if (2..2 + ticks).contains(&polls.get()) {
                timers.tick();
            }
            Poll::Pending
        })
    }

    #[tokio::test]
    async fn silence_begins_anew_with_each_tick() {
        let (timers, polls) = (Timers::new(), Cell::new(0));
        assert_eq!(timers.within(LIMIT, pin!(busy(&timers, &polls, 2))).await, None);
        assert!(Instant::now() >= timers.last() + LIMIT);
        assert!(polls.get() <= 4, "it is woken once for each tick, and at the end");
    }

    #[tokio::test]
    async fn a_limit_from_the_beginning_does_not_move() {
        let (timers, polls) = (Timers::new(), Cell::new(0));
        let until = timers.last() + LIMIT;
        assert_eq!(timers.at_most(LIMIT, pin!(busy(&timers, &polls, 2))).await, None);
        assert!(Instant::now() >= until);
        assert!(polls.get() <= 2, "it is woken once, at the end");
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let timers = Timers::new();
        assert_eq!(timers.within(Duration::ZERO, pin!(tokio::time::sleep(LIMIT))).await, Some(()));
        assert_eq!(timers.at_most(Duration::ZERO, pin!(tokio::time::sleep(LIMIT))).await, Some(()));
        assert_eq!(timers.until(Some(timers.last()), pin!(pending::<()>())).await, None);
    }

    #[test]
    fn a_response_is_waited_for_when_the_request_has_come_and_has_a_connection() {
        let timers = Timers::new();
        let (first, second) = (timers.last(), timers.last() + LIMIT);
        timers.set_received(Some(first));
        assert_eq!(timers.waits_since(), None);
        timers.set_connected(Some(second));
        assert_eq!(timers.waits_since(), Some(second));
        timers.set_received(Some(second + LIMIT));
        assert_eq!(timers.waits_since(), Some(second + LIMIT));
        timers.set_received(None);
        assert_eq!(timers.waits_since(), None);
    }
}
