//! The time as RFC 9110 §5.6.7 wants it, written anew only every second.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

thread_local! {
    static WRITTEN: RefCell<Option<(Instant, String)>> = const { RefCell::new(None) };
}

/// Hands the date at `now` to `use_it`; it is at most a second old.
pub(super) fn with(now: Instant, use_it: impl FnOnce(&[u8])) {
    WRITTEN.with_borrow_mut(|written| {
        let age = written.as_ref().map(|(since, _)| now.saturating_duration_since(*since));
        if age.is_none_or(|age| age >= Duration::from_secs(1)) {
            let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
            let text = printer.timestamp_to_rfc9110_string(&jiff::Timestamp::now()).unwrap_or_default();
            *written = Some((now, text));
        }
        use_it(written.as_ref().map(|(_, text)| text.as_bytes()).unwrap_or_default());
    });
}
