//! Lets in as many requests at once as the upstream answers about as quickly as when it has little to do
//! (`envoy.filters.http.adaptive_concurrency`, gradient controller).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serin_resources::http_filter::AdaptiveConcurrency;

use super::{FilterState, Now};

/// The limit and what it follows from, shared by all workers.
#[derive(Debug)]
pub struct Concurrency {
    /// Its configuration.
    pub config: AdaptiveConcurrency,
    active: AtomicU32,
    limit: AtomicU32,
    state: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    samples: Vec<Duration>,
    shortest: Option<Duration>,
    /// True when the shortest time is being measured.
    measuring: bool,
    /// The end of the current window, and the time of the next measurement.
    ends: Option<Now>,
    measure_at: Option<Now>,
    /// Windows in a row at the least limit.
    low: u32,
}

impl FilterState for Concurrency {
    type Config = AdaptiveConcurrency;

    fn new(config: &AdaptiveConcurrency) -> Self {
        let measuring = config.fixed.is_none();
        let limit = if measuring { config.least } else { config.least.max(1) };
        let state = Window { measuring, shortest: config.fixed, ..Window::default() };
        Self {
            config: config.clone(),
            active: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            state: Mutex::new(state),
        }
    }
}

impl Concurrency {
    /// Takes a place, unless as many are taken as may be; give it back with [`end`](Self::end).
    pub fn begin(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.active.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
    }

    /// Gives a place back; `took` is how long a response took, if there was one.
    pub fn end(&self, took: Option<Duration>, now: Now) {
        self.active.fetch_sub(1, Relaxed);
        let Some(took) = took else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.samples.push(took);
        let config = &self.config;
        if state.measuring {
            if state.samples.len() >= config.samples as usize {
                state.shortest = Some(quantile(&mut state.samples, config.percentile));
                state.samples.clear();
                state.measuring = false;
                state.ends = Some(now + config.update);
                state.measure_at = config.measure_every.map(|every| now + every);
            }
            return;
        }
        if now < *state.ends.get_or_insert(now + config.update) {
            return;
        }
        state.ends = Some(now + config.update);
        let sample = quantile(&mut state.samples, config.percentile);
        state.samples.clear();
        let shortest = state.shortest.unwrap_or(sample);
        let limit = next_limit(config, self.limit.load(Relaxed), shortest, sample);
        self.limit.store(limit, Relaxed);
        state.low = if limit <= config.floor { state.low + 1 } else { 0 };
        let due = state.measure_at.is_some_and(|at| now >= at) || state.low >= 5;
        if due && config.fixed.is_none() {
            state.measuring = true;
            state.low = 0;
            self.limit.store(config.least, Relaxed);
        }
    }

    /// The limit as it is.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }
}

/// limit × gradient + √limit, the gradient being the shortest time with its buffer by the sample, from ½ to 2.
fn next_limit(config: &AdaptiveConcurrency, limit: u32, shortest: Duration, sample: Duration) -> u32 {
    let buffered = shortest.as_secs_f64() * (1.0 + f64::from(config.buffer) / 100.0);
    let gradient = (buffered / sample.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.5, 2.0);
    let scaled = f64::from(limit) * gradient;
    let next = scaled + scaled.sqrt();
    let floor = config.floor.max(1);
    (next as u32).clamp(floor, config.most.max(floor))
}

fn quantile(samples: &mut [Duration], percent: u32) -> Duration {
    samples.sort_unstable();
    let place = (samples.len().saturating_sub(1) * percent as usize) / 100;
    samples.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AdaptiveConcurrency {
        AdaptiveConcurrency {
            enabled: true,
            percentile: 50,
            most: 1000,
            update: Duration::from_millis(100),
            measure_every: Some(Duration::from_secs(60)),
            fixed: None,
            samples: 10,
            jitter: 0,
            least: 3,
            floor: 3,
            buffer: 25,
            status: 503,
        }
    }

    #[test]
    fn the_gradient_is_clamped() {
        let ms = Duration::from_millis;
        assert_eq!(next_limit(&config(), 100, ms(10), ms(1)), 214, "twice, and the root of that");
        assert_eq!(next_limit(&config(), 100, ms(10), ms(1000)), 57, "half");
        assert_eq!(next_limit(&config(), 4, ms(1), ms(1000)), 3, "never below the least");
        assert_eq!(next_limit(&config(), 900, ms(10), ms(1)), 1000, "never above the most");
    }

    #[test]
    fn it_measures_then_grows_then_shrinks() {
        let control = Concurrency::new(&config());
        let mut now = Duration::ZERO;
        let mut run = |took: u64, count: u32| {
            for _ in 0..count {
                assert!(control.begin());
                now += Duration::from_millis(20);
                control.end(Some(Duration::from_millis(took)), now);
            }
            control.limit()
        };
        assert_eq!(run(10, 10), 3);
        let grown = run(10, 60);
        assert!(grown > 10, "{grown}");
        assert!(run(100, 60) < grown);
        assert!((0..control.limit()).all(|_| control.begin()) && !control.begin(), "exactly the limit");
    }
}
