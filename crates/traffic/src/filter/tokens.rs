//! A bucket of tokens that fills as time passes (`envoy.filters.http.local_ratelimit`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serin_resources::http_filter::LocalRateLimit;

use super::{FilterCounter, FilterState, Now};

/// A bucket, shared by all workers.
#[derive(Debug)]
pub struct Bucket {
    /// Its configuration.
    pub config: LocalRateLimit,
    level: Mutex<(f64, Option<Now>)>,
    /// Requests that were looked at, got a token, did not, and were refused.
    counts: [AtomicU64; 4],
}

/// Names of the counts.
const COUNTS: [&str; 4] = ["enabled", "ok", "rate_limited", "enforced"];

impl FilterState for Bucket {
    type Config = LocalRateLimit;

    fn new(config: &LocalRateLimit) -> Self {
        let full = config.most.unwrap_or(0).into();
        Self { config: config.clone(), level: Mutex::new((full, None)), counts: Default::default() }
    }

    fn counters(&self) -> Vec<FilterCounter> {
        let counter = |(name, count): (&'static str, &AtomicU64)| FilterCounter {
            group: "http_local_rate_limit",
            tag: ("envoy_local_http_ratelimit_prefix", self.config.prefix.clone()),
            name,
            value: count.load(Relaxed),
        };
        COUNTS.into_iter().zip(&self.counts).map(counter).collect()
    }
}

impl Bucket {
    /// Takes a token, if there is one.
    pub fn take(&self, now: Now) -> bool {
        let Some(most) = self.config.most else { return true };
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *level;
        let rate = f64::from(self.config.fill) / self.config.interval.as_secs_f64();
        let passed = since.map_or(0.0, |s| now.saturating_sub(s).as_secs_f64());
        let tokens = (tokens + passed * rate).min(most.into());
        let taken = tokens >= 1.0;
        *level = (if taken { tokens - 1.0 } else { tokens }, Some(now));
        taken
    }

    /// Counts one.
    pub fn count(&self, which: usize) {
        if let Some(count) = self.counts.get(which) {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serin_resources::header::HeaderEdits;
    use std::time::Duration;

    #[test]
    fn tokens_come_back_with_time() {
        let bucket = Bucket::new(&LocalRateLimit {
            prefix: "p".to_owned(),
            status: 429,
            most: Some(2),
            fill: 1,
            interval: Duration::from_millis(100),
            enabled: 1_000_000,
            enforced: 1_000_000,
            unenforced_headers: HeaderEdits::NONE,
            response_headers: HeaderEdits::NONE,
            per_connection: false,
            resource_exhausted: false,
        });
        let at = |ms| Duration::from_millis(ms);
        let taken: Vec<bool> =
            [0, 0, 0, 99, 100, 101, 1000, 1000, 1000].iter().map(|ms| bucket.take(at(*ms))).collect();
        assert_eq!(taken, [true, true, false, false, true, false, true, true, false]);
    }
}
