//! Limits that run out, that move, that are nested, and timers that are used again. Only lower bounds of time are asserted.

use std::cell::Cell;
use std::future::{pending, ready};
use std::pin::pin;
use std::time::Duration;

use super::*;

const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_secs(3600);

/// Waits for nothing, for that long at most.
async fn wait(alarm: &Alarm, limit: Duration) -> Option<()> {
    let until = Instant::now() + limit;
    let output = alarm.race(|| Some(until), pin!(pending())).await;
    assert!(Instant::now() >= until);
    output
}

#[tokio::test]
async fn an_output_comes_before_the_limit() {
    let alarm = Alarm::default();
    let past = Instant::now() - SOON;
    assert_eq!(alarm.race(|| Some(past), pin!(ready(1))).await, Some(1));
    assert_eq!(alarm.race(|| Some(Instant::now() + LATE), pin!(tokio::task::yield_now())).await, Some(()));
    assert_eq!(alarm.race(|| None, pin!(tokio::task::yield_now())).await, Some(()));
    assert_eq!(alarm.race(|| Some(past), pin!(pending::<()>())).await, None);
}

#[tokio::test]
async fn a_limit_can_move() {
    let alarm = Alarm::default();
    let (until, polls) = (Cell::new(Instant::now() + SOON), Cell::new(0));
    let later = Instant::now() + 4 * SOON;
    let future = std::future::poll_fn(|_| {
        polls.set(polls.get() + 1);
        if polls.get() == 2 {
            until.set(later);
        }
        Poll::<()>::Pending
    });
    assert_eq!(alarm.race(|| Some(until.get()), pin!(future)).await, None);
    assert!(Instant::now() >= until.get());
    assert!(polls.get() <= 3, "it is woken once at each of the two times");
}

#[tokio::test]
async fn the_earlier_of_nested_limits_counts() {
    let alarm = Alarm::default();
    let inner = async { wait(&alarm, SOON).await };
    let late = Instant::now() + LATE;
    assert_eq!(alarm.race(|| Some(late), pin!(inner)).await, Some(None));
    let inner = async { wait(&alarm, LATE).await };
    let soon = Instant::now() + SOON;
    assert_eq!(alarm.race(|| Some(soon), pin!(inner)).await, None);
}

#[tokio::test]
async fn a_timer_serves_one_alarm_after_the_other() {
    let spare = || SPARE.with_borrow(Vec::len);
    let first = Alarm::default();
    assert!(wait(&first, SOON).await.is_none());
    drop(first);
    assert_eq!(spare(), 1);
    // It has gone off already, which means nothing for who takes it next.
    let second = Alarm::default();
    let late = Instant::now() + LATE;
    assert_eq!(second.race(|| Some(late), pin!(tokio::time::sleep(SOON))).await, Some(()));
    assert_eq!(spare(), 0);
    drop(second);
    // It is set to a time long after the next limit.
    assert!(wait(&Alarm::default(), SOON).await.is_none());
    assert_eq!(spare(), 1);
}

#[test]
fn an_alarm_that_was_never_set_leaves_no_timer() {
    drop(Alarm::default());
    assert_eq!(SPARE.with_borrow(Vec::len), 0);
}
