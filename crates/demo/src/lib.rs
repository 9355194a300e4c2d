//! Bookinfo's services written small, and the script that stands the mesh up on one machine.
//!
//! The demo uses Serin as a user would: it starts processes and talks to their public ports. It shares no code
//! with the pilot or the proxy.

mod app;
mod client;
mod envoy;
mod orchestra;

pub use app::{AppOptions, run as app};
pub use envoy::{EnvoyOptions, run as envoy};
pub use orchestra::{DataPlane, DemoOptions, run};

use std::time::Duration;

/// `30s`, `5m`, `1h`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration such as 30s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs_f64(number * factor))
}
