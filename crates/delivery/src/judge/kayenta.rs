//! The rank test and the score of Kayenta's `NetflixACAJudge`, for those who know its numbers.
//!
//! It compares series of points, one for each interval: Mann and Whitney's test with normal approximation at 98 %, and a
//! tolerance of a quarter of its own estimate. It is not corrected for repeated looks, nor for points that depend on each
//! other; Serin's own judge is. <https://spinnaker.io/docs/guides/user/canary/judge/>

use statrs::distribution::{ContinuousCDF as _, Normal};

/// The result of the test of two series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Hodges and Lehmann's estimate: the median of all differences.
    pub estimate: f64,
    /// Lower end of the confidence interval; minus infinity when the points are too few for one.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The comparison of a metric of the candidate with the other version's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Higher.
    High,
    /// Lower.
    Low,
    /// Neither.
    Pass,
}

/// Kayenta's confidence, and its tolerance as a share of the estimate: both are fixed there.
const CONFIDENCE: f64 = 0.98;
const TOLERANCE: f64 = 0.25;

/// By how much `x` is above `y`, at this confidence: R's `wilcox.test(exact = FALSE, conf.int = TRUE)`.
#[must_use]
pub fn shift(x: &[f64], y: &[f64], confidence: f64) -> Option<Shift> {
    let mut differences: Vec<f64> = x.iter().flat_map(|x| y.iter().map(move |y| x - y)).collect();
    differences.sort_by(f64::total_cmp);
    let (first, last) = (*differences.first()?, *differences.last()?);
    let middle = differences.len() / 2;
    let (a, b) = (differences.get((differences.len() - 1) / 2)?, differences.get(middle)?);
    let z = Normal::standard().inverse_cdf(0.5 + confidence / 2.0);
    let limit = |wanted: f64, unreached: f64| {
        if first >= last {
            return first;
        }
        let reached =
            if wanted > 0.0 { standardised(x, y, first) >= wanted } else { standardised(x, y, last) <= wanted };
        if reached { crossing(|d| standardised(x, y, d) >= wanted, first, last) } else { unreached }
    };
    Some(Shift { estimate: f64::midpoint(*a, *b), low: limit(z, f64::NEG_INFINITY), high: limit(-z, f64::INFINITY) })
}

/// The place at which a condition changes that holds below and not above.
fn crossing(holds: impl Fn(f64) -> bool, mut below: f64, mut above: f64) -> f64 {
    for _ in 0..200 {
        let middle = f64::midpoint(below, above);
        if holds(middle) { below = middle } else { above = middle }
    }
    f64::midpoint(below, above)
}

/// The rank sum of `x - d` among `y`, standardised, with corrections for ties and for continuity.
fn standardised(x: &[f64], y: &[f64], d: f64) -> f64 {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let mut all: Vec<(f64, bool)> = x.iter().map(|x| (x - d, true)).chain(y.iter().map(|y| (*y, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let size = group.len() as f64;
        let own = group.iter().filter(|(_, of_x)| *of_x).count() as f64;
        sum += own * (before + (size + 1.0) / 2.0);
        ties += size * size * size - size;
        before += size;
    }
    let centred = sum - m * (m + 1.0) / 2.0 - m * n / 2.0;
    let total = m + n;
    let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let correction = if centred == 0.0 { 0.0 } else { 0.5 * centred.signum() };
    if variance > 0.0 { (centred - correction) / variance.sqrt() } else { 0.0 }
}

/// Classifies a metric whose rise or fall counts, by the test and by the ratio of the means, which must be at least
/// `allowed` (1 in Kayenta) for a rise, and at most its inverse for a fall. Kayenta passes whatever has a mean of 0 on
/// one side; here such a metric is judged by the test alone, or failures would never count beside none.
#[must_use]
pub fn classify(candidate: &[f64], other: &[f64], allowed: f64) -> Class {
    let Some(shift) = shift(candidate, other, CONFIDENCE) else { return Class::Pass };
    let mean = |series: &[f64]| series.iter().sum::<f64>() / series.len() as f64;
    let ratio = Some(mean(candidate) / mean(other)).filter(|r| r.is_finite() && *r > 0.0);
    let tolerance = TOLERANCE * shift.estimate.abs();
    if shift.low > tolerance && ratio.is_none_or(|r| r >= allowed) {
        Class::High
    } else if shift.high < -tolerance && ratio.is_none_or(|r| r <= 1.0 / allowed) {
        Class::Low
    } else {
        Class::Pass
    }
}

/// The score of metrics that must not be higher: the share that is not, of 100.
#[must_use]
pub fn score(classes: &[Class]) -> f64 {
    let passed = classes.iter().filter(|c| **c != Class::High).count();
    if classes.is_empty() { 100.0 } else { 100.0 * passed as f64 / classes.len() as f64 }
}
