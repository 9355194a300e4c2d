//! Durations as Go writes them.

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration such as 500ms, 30s, 5m or 1h30m")]
pub struct InvalidDuration(pub String);

/// Reads a duration as people write it: Go's form, or a number of seconds.
///
/// # Errors
/// When it is neither.
pub fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    let seconds = || text.bytes().all(|b| b.is_ascii_digit()).then(|| parse_duration(&format!("{text}s")))?;
    parse_duration(text).or_else(seconds).ok_or_else(|| InvalidDuration(text.to_owned()))
}

/// Seconds that a duration lasts less than: what fits Go's, and so Istio's and Envoy's, 64 bits of nanoseconds.
const LONGEST: f64 = 9_223_372_036.0;

/// Go's `time.ParseDuration` without signs.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match rest.get(..unit_end)? {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += value * seconds;
        rest = rest.get(unit_end..)?;
    }
    (!text.is_empty() && total.is_finite() && total < LONGEST)
        .then(|| Duration::from_nanos((total * 1e9).round() as u64))
}
