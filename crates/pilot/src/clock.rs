//! The time by which releases go: the calendar's when the pilot began, and from then on as much later as has really passed.
//!
//! The machine's clock may be set while the pilot runs. A bake of ten minutes lasts ten minutes all the same; only freezes, which speak of
//! days and hours, go by the clock as it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the clock may differ by before it counts as having been set.
const JUMP: Duration = Duration::from_secs(5);

/// Milliseconds since 1970 by the clock on the wall.
pub(crate) fn calendar() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Milliseconds since 1970 by a clock that nobody sets.
pub(crate) fn now() -> u64 {
    static BEGAN: OnceLock<(Instant, u64)> = OnceLock::new();
    let (instant, millis) = BEGAN.get_or_init(|| (Instant::now(), calendar()));
    millis + instant.elapsed().as_millis() as u64
}

/// Notices that somebody set the machine's clock.
#[derive(Debug, Default)]
pub(crate) struct Jumps {
    /// How far the calendar was ahead when it was looked at last, in milliseconds.
    ahead: i64,
}

impl Jumps {
    /// What is to be said when the clock was set since this was asked last.
    pub(crate) fn look(&mut self, now: u64, calendar: u64) -> Option<String> {
        let ahead = calendar as i64 - now as i64;
        let by = ahead - self.ahead;
        if by.unsigned_abs() < JUMP.as_millis() as u64 {
            return None;
        }
        self.ahead = ahead;
        let direction = if by > 0 { "forward" } else { "back" };
        let seconds = by.unsigned_abs() / 1000;
        Some(format!(
            "the machine's clock was set {direction} by {seconds} s: releases go on by the time that really passes"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_said_once() {
        let mut jumps = Jumps::default();
        assert_eq!(jumps.look(1_000_000, 1_000_900), None);
        assert!(jumps.look(1_001_000, 4_601_000).is_some_and(|text| text.contains("forward by 3600 s")));
        assert_eq!(jumps.look(1_002_000, 4_602_000), None);
        assert!(jumps.look(1_003_000, 1_003_000).is_some_and(|text| text.contains("back by 3600 s")));
    }
}
