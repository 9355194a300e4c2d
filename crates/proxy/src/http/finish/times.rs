//! Times as logs say them.

use std::time::Duration;

/// A time in whole milliseconds.
pub(super) fn milliseconds(time: Option<Duration>) -> Option<String> {
    Some(time?.as_millis().to_string())
}

/// A time in UTC; with an argument, in that `strftime` format (`%f` and the like are fractions of a second).
pub(super) fn start_time(time: jiff::Timestamp, format: Option<&str>) -> Option<String> {
    match format {
        None | Some("") => Some(format!("{time:.3}")),
        Some(format) => jiff::fmt::strtime::format(format, time).ok(),
    }
}
