//! Time limits that cost nothing unless they run out.
//!
//! A request has several limits and almost never reaches one. A timer of the runtime, made and dropped for each, would
//! take the timer wheel's lock twice every time. An [`Alarm`] stays in the wheel instead: setting it to a later time
//! does nothing, and when it goes off too early it is set anew. So with a limit of 15 s a busy connection touches the
//! wheel every 15 s, not with every request. (nginx and HAProxy keep their timers lazily in the same way.)

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

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

/// One lazily kept timer.
#[derive(Default)]
struct Alarm(RefCell<Option<Pin<Box<Sleep>>>>);

/// Timers that are kept for later; more come and go with a burst.
const KEPT: usize = 256;

thread_local! {
    /// Timers that nobody needs now. They stay in the wheel: an HTTP/2 stream takes one and gives it back without
    /// touching it. One that goes off meanwhile wakes a task that has ended.
    static SPARE: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some(sleep) = self.0.take() else { return };
        // When the thread ends, so may the list.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(sleep);
            }
        });
    }
}

fn sleep(until: Instant) -> Pin<Box<Sleep>> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Box::pin(sleep_until(until)))
}

impl Alarm {
    /// The output, or `None` when `until`, which may change, passes first. Waits may be nested, as long as they belong to
    /// one task: each sets the alarm to its own time when that is the earlier one.
    fn race<F: Future>(
        &self,
        until: impl Fn() -> Option<Instant>,
        mut future: Pin<&mut F>,
    ) -> impl Future<Output = Option<F::Output>> {
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let Some(until) = until() else { return Poll::Pending };
            let mut slot = self.0.borrow_mut();
            let sleep = slot.get_or_insert_with(|| sleep(until));
            loop {
                if sleep.is_elapsed() || sleep.deadline() > until {
                    sleep.as_mut().reset(until);
                }
                match sleep.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if sleep.deadline() >= until => return Poll::Ready(None),
                    Poll::Ready(()) => sleep.as_mut().reset(until),
                }
            }
        })
    }
}
