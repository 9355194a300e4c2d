//! Tests whether a candidate is worse than the stable version; they may be looked at after every event, for ever.
//!
//! An *event* is a failed request, or one that took longer than a threshold. If the candidate is no worse, an event belongs
//! to it with the probability of its share of the requests, whatever the overall rate: traffic that comes and goes, and faults
//! that both share, cancel. What is kept is the wealth of somebody who bets against that (an e-process): it exceeds 1/alpha with
//! probability alpha at most, however often it is looked at (Ville). Sources: Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567);
//! Howard, Ramdas et al. (arXiv 1810.08240); Waudby-Smith & Ramdas (arXiv 2010.09686).

pub mod boundaries;
pub mod kayenta;

use serde::{Deserialize, Serialize};

/// The ratios by which a candidate might be worse; the bet is spread evenly.
pub const RATIOS: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// Ratios that the estimate is measured against, on both sides of 1.
const AROUND: [f64; 13] = [0.1, 0.2, 1.0 / 3.0, 0.5, 2.0 / 3.0, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0];

/// The candidate's share of the events when it has `ratio` times the others' rate of them and this share of the requests.
#[must_use]
pub fn shifted(ratio: f64, share: f64) -> f64 {
    share * ratio / (share * ratio + 1.0 - share)
}

/// Events of the candidate and of the others while the candidate had this share of the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The candidate's events.
    pub candidate: f64,
    /// The others'.
    pub others: f64,
    /// The candidate's share of the requests.
    pub share: f64,
}

impl Window {
    /// Returns true when it can say anything: both had requests.
    fn is_telling(self) -> bool {
        self.share > 0.0 && self.share < 1.0 && self.candidate + self.others > 0.0
    }
}

/// ln of the mean of exponentials.
pub(crate) fn ln_mean_exp(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    let count = logs.clone().count().max(1) as f64;
    if most.is_finite() { most + (logs.map(|l| (l - most).exp()).sum::<f64>() / count).ln() } else { most }
}

/// Evidence that the candidate has more events than its share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    /// By ratio, the logarithm of what a bet on it has become.
    bets: [f64; 7],
    /// The same for bets on windows instead of events.
    windows: [f64; 7],
}

impl Regression {
    /// Takes a window in.
    pub fn add(&mut self, window: Window) {
        if !window.is_telling() {
            return;
        }
        let Window { candidate, others, share } = window;
        let part = candidate / (candidate + others);
        for ((bet, window), ratio) in self.bets.iter_mut().zip(&mut self.windows).zip(RATIOS) {
            let expected = shifted(ratio, share);
            *bet += candidate * (expected / share).ln() + others * ((1.0 - expected) / (1.0 - share)).ln();
            // Of a window with one event this makes the same; of one with many, what they have in common.
            let lambda = (ratio - 1.0) / (share * (ratio - 1.0) + 1.0);
            *window += robust(part, share, lambda).ln();
        }
    }

    /// ln E of the events alone.
    #[must_use]
    pub fn ln_events(&self) -> f64 {
        ln_mean_exp(self.bets.iter().copied())
    }

    /// ln E of the windows: what decides. Failures come in clusters, of one user or one second, and a cluster that falls on the
    /// candidate whole is one piece of bad luck, not many; bets on single events would take it for many.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        ln_mean_exp(self.windows.iter().copied())
    }
}

/// The factor of a bet of size `lambda` on a window in which the candidate had `part` of the events.
#[must_use]
pub fn robust(part: f64, share: f64, lambda: f64) -> f64 {
    1.0 + lambda * (part - share)
}

/// Evidence that the candidate is not worse by a margin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NoWorse {
    ln: f64,
}

impl NoWorse {
    /// Takes a window in; `margin` is the ratio that is to be refuted.
    pub fn add(&mut self, window: Window, margin: f64) {
        if window.is_telling() {
            let Window { candidate, others, share } = window;
            let worse = shifted(margin, share);
            self.ln += candidate * (share / worse).ln() + others * ((1.0 - share) / (1.0 - worse)).ln();
        }
    }

    /// ln E.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        self.ln
    }
}

/// ln E of a Beta(1, 1) mixture over the candidate's part of the events, two-sided: B(c+1, b+1) / (share^c (1-share)^b).
#[must_use]
pub fn ln_beta_mixture(window: Window) -> f64 {
    let Window { candidate: c, others: b, share } = window;
    statrs::function::beta::ln_beta(c + 1.0, b + 1.0) - c * share.ln() - b * (1.0 - share).ln()
}

/// The ratio of the candidate's rate of events to the others' rate, with an interval that holds at every look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The likeliest ratio.
    pub ratio: f64,
    /// The interval.
    pub low: f64,
    /// See above; [`BOUNDLESS`] when there is no upper end.
    pub high: f64,
}

/// Stands for no upper end, because JSON has no infinity.
pub const BOUNDLESS: f64 = 1e9;

/// Estimates the ratio from windows, with error level `alpha`; `None` when there were no events.
#[must_use]
pub fn estimate(windows: &[Window], alpha: f64) -> Option<Estimate> {
    let telling: Vec<Window> = windows.iter().copied().filter(|w| w.is_telling()).collect();
    if telling.is_empty() {
        return None;
    }
    let likelihood = |ratio: f64| -> f64 {
        let one = |w: &Window| {
            let part = shifted(ratio, w.share);
            w.candidate * part.ln() + w.others * (1.0 - part).ln()
        };
        telling.iter().map(one).sum()
    };
    // The derivative by ln r falls from the candidate's events to minus the others'.
    let slope = |ln: f64| -> f64 {
        telling.iter().map(|w| w.candidate - (w.candidate + w.others) * shifted(ln.exp(), w.share)).sum()
    };
    const FAR: f64 = 14.0;
    let peak = root(-FAR, FAR, slope);
    let mixture = ln_mean_exp(AROUND.iter().map(|r| likelihood(*r)));
    let inside = |ln: f64| mixture - likelihood(ln.exp()) - (1.0 / alpha).ln();
    let low = if inside(-FAR) < 0.0 { 0.0 } else { root(-FAR, peak, inside).exp() };
    let high = if inside(FAR) < 0.0 { BOUNDLESS } else { root(peak, FAR, inside).exp() };
    Some(Estimate { ratio: peak.exp(), low, high })
}

/// The place at which a function changes its sign.
fn root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let sign = f(low) > 0.0;
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if (f(middle) > 0.0) == sign {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The number of events, of both together, until a rollback in half of all cases when the candidate has `ratio` times the
/// rate; right to about a tenth.
#[must_use]
pub fn events_until_rollback(ratio: f64, share: f64, alpha: f64) -> f64 {
    let part = shifted(ratio, share);
    let growth = |bet: f64| {
        let expected = shifted(bet, share);
        part * (expected / share).ln() + (1.0 - part) * ((1.0 - expected) / (1.0 - share)).ln()
    };
    let best = RATIOS.iter().map(|r| growth(*r)).fold(f64::MIN, f64::max);
    // The bet that suits pays for the others, but less than all of them: half a unit, by simulation.
    if best > 0.0 { ((1.0 / alpha).ln() + 0.5) / best } else { f64::INFINITY }
}

/// The number of events, of both together, that is expected until the margin is refuted when the candidate is equal.
#[must_use]
pub fn events_until_promotion(margin: f64, share: f64, alpha: f64) -> f64 {
    let worse = shifted(margin, share);
    let growth = share * (share / worse).ln() + (1.0 - share) * ((1.0 - share) / (1.0 - worse)).ln();
    (1.0 / alpha).ln() / growth
}

/// Requests without a failure after which a rate of `most` is refuted.
#[must_use]
pub fn clean_requests(most: f64, alpha: f64) -> f64 {
    (1.0 / alpha).ln() / most
}

#[cfg(test)]
#[path = "judge/tests.rs"]
mod tests;
