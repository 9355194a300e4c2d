//! Istio's standard metrics: `istio_requests_total` and `istio_request_duration_milliseconds`, by who asked whom.
//!
//! Source: Istio, "Istio Standard Metrics". What is told apart is bounded, because backends choose statuses and platforms choose
//! names: statuses that gRPC does not define are one, as are endings beyond [`MOST_ENDINGS`] and pairs beyond [`MOST_PAIRS`]. Series
//! of an endpoint that is gone stay for [`KEPT`], so that their last requests are scraped, and go then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::exposition::{Filter, histogram, label};
use crate::histogram::Histogram;

/// Endings of requests between the same two that are told apart, by one worker.
pub const MOST_ENDINGS: usize = 100;
/// Pairs that are told apart.
pub const MOST_PAIRS: usize = 10_000;
/// The time that series stay whose endpoint is gone.
pub const KEPT: Duration = Duration::from_secs(300);
/// Most of them that stay.
const MOST_GONE: usize = 1000;
/// Pairs from which on those that are gone are looked for when one comes.
const SEARCHED_FROM: usize = 2048;

/// The value that stands for everything that is not told apart.
const OTHER: &str = "other";
/// The highest status that gRPC defines.
const LAST_GRPC: u16 = 16;

/// Label names with values; a value that is empty is shown as `unknown`.
pub type Labels = Vec<(&'static str, String)>;

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    /// Status; 0 when the client left before it.
    pub status: u16,
    /// Envoy's response flag, `-` for none.
    pub flag: &'static str,
    /// True when gRPC is spoken.
    pub grpc: bool,
    /// Its status, when it came.
    pub grpc_status: Option<u16>,
}

impl Ending {
    /// Replaces what is not told apart.
    fn known(self) -> Self {
        let grpc_status = self.grpc_status.map(|code| if code > LAST_GRPC { u16::MAX } else { code });
        let status = if self.status > 599 { u16::MAX } else { self.status };
        Self { status, grpc_status, ..self }
    }

    /// The ending that stands for those that are too many.
    const REST: Self = Self { status: u16::MAX, flag: OTHER, grpc: false, grpc_status: None };
}

/// Requests between the same two.
#[derive(Debug)]
pub struct Tally {
    workers: Box<[Mutex<Series>]>,
    folded: Arc<AtomicU64>,
}

/// The series of one worker.
type Series = Vec<(Ending, Histogram)>;

impl Tally {
    fn new(workers: usize, folded: Arc<AtomicU64>) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| Mutex::default()).collect(), folded }
    }

    /// Counts a request, as `worker`, which is alone in taking its lock but for somebody who looks.
    pub fn count(&self, worker: usize, ending: Ending, took: Duration) {
        let Some(series) = self.workers.get(worker) else { return };
        let mut series = locked(series);
        let mut ending = ending.known();
        if let Some((_, histogram)) = series.iter().find(|(e, _)| *e == ending) {
            return histogram.record(0, took);
        }
        if series.len() >= MOST_ENDINGS {
            self.folded.fetch_add(1, Relaxed);
            ending = Ending::REST;
            if let Some((_, histogram)) = series.iter().find(|(e, _)| *e == ending) {
                return histogram.record(0, took);
            }
        }
        let histogram = Histogram::new(1);
        histogram.record(0, took);
        series.push((ending, histogram));
    }

    /// All endings with what every worker saw.
    fn endings(&self) -> BTreeMap<Ending, Vec<crate::Distribution>> {
        let mut endings: BTreeMap<Ending, Vec<_>> = BTreeMap::new();
        for series in &self.workers {
            for (ending, histogram) in locked(series).iter() {
                endings.entry(*ending).or_default().push(histogram.read());
            }
        }
        endings
    }
}

/// A tally, and since when nobody counts in it.
#[derive(Debug)]
struct Held {
    tally: Arc<Tally>,
    gone: Option<Instant>,
}

type Pairs = BTreeMap<Arc<Labels>, Held>;

/// All tallies of a process.
#[derive(Debug, Default)]
pub struct Tallies {
    pairs: Mutex<Pairs>,
    folded: Arc<AtomicU64>,
}

impl Tallies {
    /// The tally with these labels, a new one when there is none. Where there are too many, one that stands for all others.
    #[must_use]
    pub fn of(&self, labels: Labels, workers: usize) -> Arc<Tally> {
        let mut pairs = locked(&self.pairs);
        if let Some(held) = pairs.get(&labels) {
            return held.tally.clone();
        }
        if pairs.len() >= SEARCHED_FROM && pairs.len().is_power_of_two() || pairs.len() >= MOST_PAIRS {
            prune(&mut pairs, Instant::now());
        }
        let mut labels = labels;
        if pairs.len() >= MOST_PAIRS {
            self.folded.fetch_add(1, Relaxed);
            labels.iter_mut().filter(|(name, _)| *name != "reporter").for_each(|(_, value)| OTHER.clone_into(value));
        }
        let new = || Held { tally: Arc::new(Tally::new(workers, self.folded.clone())), gone: None };
        pairs.entry(Arc::new(labels)).or_insert_with(new).tally.clone()
    }

    /// Requests and endpoints that were counted under `other`, because a bound was reached.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.folded.load(Relaxed)
    }

    /// In Prometheus's text format, piece by piece: a page of all series would need memory for all of them.
    pub fn prometheus(&self, filter: &Filter) -> impl Iterator<Item = String> + Send + use<> {
        let mut pairs = locked(&self.pairs);
        prune(&mut pairs, Instant::now());
        let all: Vec<_> = pairs.iter().map(|(labels, held)| (labels.clone(), held.tally.clone())).collect();
        drop(pairs);
        let families: [Family; 2] = [(REQUESTS, "counter", total), (DURATIONS, "histogram", duration)];
        let shown = families.map(|family| filter.shows(family.0, 1).then_some(family));
        shown.into_iter().flatten().flat_map(move |(name, kind, write)| {
            let mut first = true;
            all.clone().into_iter().map(move |(labels, tally)| {
                let mut out = String::new();
                for (ending, parts) in tally.endings() {
                    if std::mem::take(&mut first) {
                        let _ = writeln!(out, "# TYPE {name} {kind}");
                    }
                    write(&written(&labels, ending), &parts, &mut out);
                }
                out
            })
        })
    }
}

/// Its name, its type, and what writes the lines of some requests.
type Family = (&'static str, &'static str, fn(&str, &[crate::Distribution], &mut String));

const REQUESTS: &str = "istio_requests_total";
const DURATIONS: &str = "istio_request_duration_milliseconds";

fn total(labels: &str, parts: &[crate::Distribution], out: &mut String) {
    let count: u64 = parts.iter().map(crate::Distribution::count).sum();
    let _ = writeln!(out, "{REQUESTS}{{{labels}}} {count}");
}

fn duration(labels: &str, parts: &[crate::Distribution], out: &mut String) {
    histogram(DURATIONS, labels, parts, out);
}

/// Forgets pairs that nobody has counted for long, and the oldest of them where they are too many.
fn prune(pairs: &mut Pairs, now: Instant) {
    for held in pairs.values_mut() {
        let used = Arc::strong_count(&held.tally) > 1;
        held.gone = if used { None } else { held.gone.or(Some(now)) };
    }
    pairs.retain(|_, held| held.gone.is_none_or(|gone| now.duration_since(gone) < KEPT));
    let mut gone: Vec<Instant> = pairs.values().filter_map(|held| held.gone).collect();
    if gone.len() > MOST_GONE {
        gone.sort_unstable();
        let mut surplus = gone.len() - MOST_GONE;
        let newest = gone.get(surplus).copied().unwrap_or(now);
        pairs.retain(|_, held| {
            let goes = surplus > 0 && held.gone.is_some_and(|at| at <= newest);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn written(labels: &Labels, ending: Ending) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let value = if value.is_empty() { "unknown" } else { value };
        let _ = write!(out, "{},", label(name, value));
    }
    let code = |code: u16| if code == u16::MAX { OTHER.to_owned() } else { code.to_string() };
    let protocol = if ending.grpc { "grpc" } else { "http" };
    let grpc = ending.grpc_status.map(code).unwrap_or_default();
    let Ending { status, flag, .. } = ending;
    let status = code(status);
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
        let text: String = tallies.prometheus(&Filter::default()).collect();
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

    /// F2: whatever a backend answers, and however many names come and go, the page stays as large as what is told apart.
    #[test]
    fn what_is_told_apart_is_bounded() {
        let tallies = Tallies::default();
        let page = || tallies.prometheus(&Filter::default()).collect::<String>();
        let tally = tallies.of(vec![("reporter", "source".to_owned())], 1);
        let mut ending = Ending { status: 200, flag: "-", grpc: true, grpc_status: None };
        for code in 0..=u16::MAX {
            ending.grpc_status = Some(code);
            tally.count(0, ending, Duration::from_millis(1));
        }
        let lines = page().lines().filter(|l| l.starts_with(REQUESTS)).count();
        assert_eq!(lines, 18, "17 that gRPC defines, and one");
        assert!(page().contains(
            "grpc_response_status=\"other\",response_flags=\"-\",connection_security_policy=\"none\"} 65519\n"
        ));
        assert_eq!(tallies.folded(), 0);
        for status in 100..600 {
            tally.count(0, Ending { status, grpc: false, grpc_status: None, ..ending }, Duration::from_millis(1));
        }
        assert_eq!(page().lines().filter(|l| l.starts_with(REQUESTS)).count(), MOST_ENDINGS + 1);
        assert_eq!(tallies.folded(), 500 - (MOST_ENDINGS as u64 - 18));
        for name in 0..6000 {
            drop(tallies.of(vec![("reporter", "source".to_owned()), ("destination_workload", name.to_string())], 1));
        }
        assert!(!page().is_empty());
        assert!(locked(&tallies.pairs).len() <= MOST_GONE + 1, "{}", locked(&tallies.pairs).len());
        let later = Instant::now() + KEPT;
        prune(&mut locked(&tallies.pairs), later);
        assert_eq!(locked(&tallies.pairs).len(), 1, "what is in use stays");
    }
}
