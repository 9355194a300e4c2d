//! Histograms of durations, exact to 1 %.
//!
//! Buckets are log-linear: every power of two of microseconds is cut into 64, so that a bucket's middle is at most 0.8 %
//! from anything in it (as in HdrHistogram and in the circllhist that Envoy uses). As with counters, a worker writes
//! only its own copy, without locks; the buckets of a power of two are made when the first value falls there.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets in a power of two.
const CUTS: usize = 64;

/// Powers of two that are told apart: up to 2^39 µs, six days.
const POWERS: usize = 34;

/// Upper ends of the buckets that Prometheus sees, in milliseconds: Envoy's defaults.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles that `/stats` shows, in per cent: Envoy's.
pub const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// A histogram of times, one copy for each worker.
#[derive(Debug)]
pub struct Histogram(Box<[Copied]>);

#[derive(Debug)]
struct Copied {
    sum: AtomicU64,
    powers: [OnceLock<Box<[AtomicU64; CUTS]>>; POWERS],
}

impl Copied {
    fn new() -> Self {
        Self { sum: AtomicU64::new(0), powers: [const { OnceLock::new() }; POWERS] }
    }
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Copied::new()).collect())
    }

    /// Takes note of a duration, as `worker`. A worker that does not exist is nobody's and is dropped.
    pub fn record(&self, worker: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (power, cut) = place(micros);
        let Some(copy) = self.0.get(worker) else { return };
        let Some(cuts) = copy.powers.get(power) else { return };
        let cuts = cuts.get_or_init(|| Box::new([const { AtomicU64::new(0) }; CUTS]));
        add(&copy.sum, micros);
        if let Some(cell) = cuts.get(cut) {
            add(cell, 1);
        }
    }

    /// The values of all workers.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let mut all = Distribution::default();
        for copy in &self.0 {
            all.sum += copy.sum.load(Relaxed) as f64 / 1000.0;
            for (power, cuts) in copy.powers.iter().enumerate().filter_map(|(power, cuts)| Some((power, cuts.get()?))) {
                all.counts.resize(all.counts.len().max((power + 1) * CUTS), 0);
                let counts = all.counts.iter_mut().skip(power * CUTS);
                counts.zip(cuts.iter()).for_each(|(count, cell)| *count += cell.load(Relaxed));
            }
        }
        all
    }
}

/// A worker's own cell needs no locked instruction.
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// The power and the cut of a value: those below 64 µs have cuts of their own, then every power has 64.
fn place(micros: u64) -> (usize, usize) {
    let micros = micros.min((1 << (POWERS + 5)) - 1);
    let power = ((micros | 63).ilog2() - 5) as usize;
    (power, (micros >> power.saturating_sub(1)) as usize % CUTS)
}

/// The first value of a bucket and the first behind it, in milliseconds.
fn ends(bucket: usize) -> (f64, f64) {
    let (power, cut) = (bucket / CUTS, bucket % CUTS);
    let end = |cut: usize| match power {
        0 => cut as f64,
        power => (CUTS + cut) as f64 * f64::powi(2.0, power as i32 - 1),
    };
    (end(cut) / 1000.0, end(cut + 1) / 1000.0)
}

/// The values at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    counts: Vec<u64>,
    /// All of it, in milliseconds.
    pub sum: f64,
}

impl Distribution {
    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The number of values up to that many milliseconds; a bucket counts where its middle is.
    #[must_use]
    pub fn at_most(&self, millis: f64) -> u64 {
        let within = |bucket: usize| {
            let (first, behind) = ends(bucket);
            f64::midpoint(first, behind) <= millis
        };
        self.counts.iter().enumerate().take_while(|(bucket, _)| within(*bucket)).map(|(_, count)| count).sum()
    }

    /// The values after `before`, an earlier look at the same histogram; the sum is only as exact as the buckets.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(earlier).map(|(now, then)| now.saturating_sub(then)).collect();
        Self { counts, sum: self.sum - before.sum }
    }

    /// Eight buckets for each power of two: the value in milliseconds that is above all of it, how many there were, and
    /// the sum of their times, for those that are not empty.
    pub fn coarse(&self) -> impl Iterator<Item = (f64, u64, f64)> + '_ {
        const MERGED: usize = CUTS / 8;
        self.counts.chunks(MERGED).enumerate().filter_map(|(at, counts)| {
            let count: u64 = counts.iter().sum();
            let middle = |bucket: usize| {
                let (first, behind) = ends(bucket);
                f64::midpoint(first, behind)
            };
            let times = counts.iter().enumerate().map(|(i, count)| middle(at * MERGED + i) * *count as f64);
            (count > 0).then(|| (ends(at * MERGED + counts.len() - 1).1, count, times.sum()))
        })
    }

    /// The time, in milliseconds, that so many per cent did not exceed; `None` when there were none.
    #[must_use]
    pub fn quantile(&self, percent: f64) -> Option<f64> {
        let rank = ((self.count() as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let (first, behind) = ends(bucket);
        Some(f64::midpoint(first, behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_what_falls_there() {
        let values = (0..100_000).chain((17..39).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 77]));
        for micros in values {
            let (power, cut) = place(micros);
            let (first, behind) = ends(power * CUTS + cut);
            let millis = micros as f64 / 1000.0;
            assert!(first <= millis && millis < behind, "{micros} is not in {first}..{behind}");
        }
        assert_eq!(place(u64::MAX), (POWERS - 1, CUTS - 1));
    }

    #[test]
    fn quantiles_are_right_to_one_per_cent() {
        let histogram = Histogram::new(2);
        for micros in 1..=100_000_u64 {
            histogram.record((micros % 2) as usize, Duration::from_micros(micros));
        }
        histogram.record(7, Duration::from_secs(1));
        let all = histogram.read();
        assert_eq!(all.count(), 100_000);
        assert!((all.sum - 5_000_050.0).abs() < 1e-6);
        for percent in QUANTILES.into_iter().skip(1) {
            let (found, right) = (all.quantile(percent).unwrap(), percent);
            assert!((found - right).abs() <= right * 0.01, "{percent} %: {found} instead of {right}");
        }
        for bound in [0.5, 1.0, 5.0, 10.0, 25.0, 50.0] {
            let (found, right) = (all.at_most(bound) as f64, bound * 1000.0);
            assert!((found - right).abs() <= right * 0.01, "{bound} ms: {found} instead of {right}");
        }
        assert_eq!(Distribution::default().quantile(50.0), None);
        histogram.record(0, Duration::from_micros(700));
        let later = histogram.read();
        let new: Vec<(f64, u64, f64)> = later.since(&all).coarse().collect();
        assert!(
            matches!(new[..], [(above, 1, sum)] if above > 0.7 && above < 0.8 && (sum - 0.7).abs() < 0.01),
            "{new:?}"
        );
        assert_eq!(all.coarse().map(|(_, count, _)| count).sum::<u64>(), 100_000);
    }
}
