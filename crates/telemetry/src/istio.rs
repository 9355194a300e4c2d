//! Istio's standard metrics: `istio_requests_total` and `istio_request_duration_milliseconds`, by who asked whom.
//!
//! Source: Istio, "Istio Standard Metrics". What is told apart is kept as long as the process lives: a series that went
//! away with its endpoint would look like a counter that began anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exposition::{Filter, histogram, label};
use crate::histogram::Histogram;

/// Label names with values; a value that is empty is shown as `unknown`.
pub type Labels = Vec<(&'static str, String)>;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    /// Status; 0 when the client left before it.
    pub status: u16,
    /// Envoy's response flag, `-` for none.
    pub flag: &'static str,
    /// Whether gRPC is spoken.
    pub grpc: bool,
    /// Its status, when it came.
    pub grpc_status: Option<u16>,
}

/// Requests between the same two.
#[derive(Debug)]
pub struct Tally(Box<[Mutex<Series>]>);

/// What one worker saw.
type Series = Vec<(Ending, Histogram)>;

impl Tally {
    /// Counts a request, as `worker`, which is alone in taking its lock but for somebody who looks.
    pub fn count(&self, worker: usize, ending: Ending, took: Duration) {
        let Some(series) = self.0.get(worker) else { return };
        let mut series = locked(series);
        if let Some((_, histogram)) = series.iter().find(|(e, _)| *e == ending) {
            return histogram.record(0, took);
        }
        let histogram = Histogram::new(1);
        histogram.record(0, took);
        series.push((ending, histogram));
    }
}

/// All tallies of a process.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<BTreeMap<Labels, Arc<Tally>>>);

impl Tallies {
    /// The tally with these labels, a new one when there is none.
    #[must_use]
    pub fn of(&self, labels: Labels, workers: usize) -> Arc<Tally> {
        let new = || Arc::new(Tally((0..workers.max(1)).map(|_| Mutex::default()).collect()));
        locked(&self.0).entry(labels).or_insert_with(new).clone()
    }

    /// In Prometheus's text format.
    #[must_use]
    pub fn prometheus(&self, filter: &Filter) -> String {
        let (mut totals, mut durations) = (String::new(), String::new());
        for (labels, tally) in locked(&self.0).iter() {
            let mut endings: BTreeMap<Ending, Vec<_>> = BTreeMap::new();
            for series in &tally.0 {
                for (ending, histogram) in locked(series).iter() {
                    endings.entry(*ending).or_default().push(histogram.read());
                }
            }
            for (ending, parts) in endings {
                let labels = written(labels, ending);
                let count: u64 = parts.iter().map(crate::Distribution::count).sum();
                let _ = writeln!(totals, "istio_requests_total{{{labels}}} {count}");
                histogram("istio_request_duration_milliseconds", &labels, &parts, &mut durations);
            }
        }
        let typed = |name: &str, kind: &str, text: &str| match text {
            text if text.is_empty() || !filter.shows(name, 1) => String::new(),
            text => format!("# TYPE {name} {kind}\n{text}"),
        };
        typed("istio_requests_total", "counter", &totals)
            + &typed("istio_request_duration_milliseconds", "histogram", &durations)
    }
}

fn written(labels: &Labels, ending: Ending) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let value = if value.is_empty() { "unknown" } else { value };
        let _ = write!(out, "{},", label(name, value));
    }
    let protocol = if ending.grpc { "grpc" } else { "http" };
    let grpc = ending.grpc_status.map(|code| code.to_string()).unwrap_or_default();
    let Ending { status, flag, .. } = ending;
    let _ = write!(out, "request_protocol=\"{protocol}\",response_code=\"{status}\",grpc_response_status=\"{grpc}\",");
    let _ = write!(out, "response_flags=\"{flag}\",connection_security_policy=\"none\"");
    out
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_workers_stand_under_istios_names() {
        let tallies = Tallies::default();
        let labels = || vec![("reporter", "source".to_owned()), ("destination_version", String::new())];
        let ending = Ending { status: 200, flag: "-", grpc: false, grpc_status: None };
        tallies.of(labels(), 2).count(0, ending, Duration::from_millis(3));
        tallies.of(labels(), 2).count(1, ending, Duration::from_millis(40));
        tallies.of(labels(), 2).count(1, Ending { status: 503, ..ending }, Duration::from_millis(1));
        let text = tallies.prometheus(&Filter::default());
        let series =
            "reporter=\"source\",destination_version=\"unknown\",request_protocol=\"http\",response_code=\"200\"";
        let rest = "grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"none\"";
        for line in [
            format!("istio_requests_total{{{series},{rest}}} 2\n"),
            format!("istio_request_duration_milliseconds_bucket{{{series},{rest},le=\"5\"}} 1\n"),
            format!("istio_request_duration_milliseconds_bucket{{{series},{rest},le=\"50\"}} 2\n"),
            format!("istio_request_duration_milliseconds_sum{{{series},{rest}}} 43\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
