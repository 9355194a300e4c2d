//! A time limit that costs nothing unless it runs out.
//!
//! A request has several limits and almost never reaches one. A timer of the runtime, made and dropped for each, would
//! take the timer wheel's lock twice every time. An [`Alarm`] stays in the wheel instead: setting it to a later time
//! does nothing, and when it goes off too early it is set anew. So with a limit of 15 s a busy connection touches the
//! wheel every 15 s, not with every request. (nginx and HAProxy keep their timers lazily in the same way.)
//!
//! It does not know what a limit is for, and does not look at the clock: whoever waits says until when.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// A lazily kept timer of one task.
#[derive(Debug, Default)]
pub struct Alarm(RefCell<Option<Pin<Box<Sleep>>>>);

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
    /// Returns the output, or `None` when `until`, which may change, passes first; it is asked anew after each poll of the
    /// future. Waits may be nested, as long as they belong to one task: each sets the alarm to its own time when that is
    /// the earlier one.
    pub fn race<F: Future>(
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

#[cfg(test)]
mod tests;
