//! Tests and bounds that hold at every look, for sums, counts, shares and quantiles.
//!
//! The names and forms are those of Howard, Ramdas, McAuliffe & Sekhon (arXiv 1810.08240) and Howard & Ramdas (1906.09712);
//! reference values come from their `confseq`. `s` is a sum, `v` its variance process; a test rejects when its `ln` reaches
//! ln(1/alpha), and a bound is the sum at which it does.

use statrs::function::beta::{beta_reg, ln_beta};
use statrs::function::erf::erfc;
use statrs::function::gamma::{gamma_lr, gamma_ur, ln_gamma};

/// The standard normal distribution function.
fn normal(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// The tuning of a normal mixture so that it is tightest when the variance is `best`; one-sided tests double `alpha`.
#[must_use]
pub fn tuned(best: f64, alpha: f64, one_sided: bool) -> f64 {
    let level = 2.0 * (1.0 / if one_sided { 2.0 * alpha } else { alpha }).ln();
    best / (level + level.ln_1p())
}

/// The normal mixture: ln M of a sub-Gaussian sum.
#[must_use]
pub fn normal_mixture(s: f64, v: f64, rho: f64, one_sided: bool) -> f64 {
    let main = s * s / (2.0 * (v + rho));
    if one_sided {
        0.5 * (4.0 * rho / (v + rho)).ln() + main + normal(s / (v + rho).sqrt()).ln()
    } else {
        0.5 * (rho / (v + rho)).ln() + main
    }
}

/// The gamma-exponential mixture: sums with a heavy right tail of that scale.
#[must_use]
pub fn gamma_exponential(s: f64, v: f64, rho: f64, scale: f64) -> f64 {
    let square = scale * scale;
    let r = rho / square;
    let lead = r * r.ln() - ln_gamma(r) - gamma_lr(r, r).ln();
    let (u, w) = ((scale * s + v) / square, (v + rho) / square);
    lead + ln_gamma(w) + gamma_lr(w, u + r).ln() - w * (u + r).ln() + u
}

/// The gamma-Poisson mixture: counts above what was expected.
#[must_use]
pub fn gamma_poisson(s: f64, v: f64, rho: f64, scale: f64) -> f64 {
    let square = scale * scale;
    let r = rho / square;
    let lead = r * r.ln() - ln_gamma(r) - gamma_ur(r, r).ln();
    let w = (v + rho) / square;
    let u = s / scale + w;
    lead + ln_gamma(u) + gamma_ur(u, w).ln() - u * w.ln() + v / square
}

/// The range of the increments of a sum: from `-g` to `h`, as `confseq` names them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Increments {
    /// The distance of the lowest increment below zero.
    pub g: f64,
    /// The highest increment.
    pub h: f64,
}

impl Increments {
    /// The increments of a sum of hits of probability `p`, less `p` each.
    #[must_use]
    pub fn of_probability(p: f64) -> Self {
        Self { g: p, h: 1.0 - p }
    }
}

/// The beta-binomial mixture, for increments of a limited range.
#[must_use]
pub fn beta_binomial(s: f64, v: f64, rho: f64, range: Increments, one_sided: bool) -> f64 {
    let Increments { g, h } = range;
    let r = (rho - g * h).max(1e-3 * g * h);
    let x = if one_sided { h / (g + h) } else { 1.0 };
    let incomplete = |a: f64, b: f64| ln_beta(a, b) + if x < 1.0 { beta_reg(a, b, x).ln() } else { 0.0 };
    let (a, b) = (g * (g + h), h * (g + h));
    v / (g * h) * (g + h).ln() - (v + h * s) / b * g.ln() - (v - g * s) / a * h.ln()
        + incomplete((r + v - g * s) / a, (r + v + h * s) / b)
        - incomplete(r / a, r / b)
}

/// The sum at which a test of level `alpha` rejects, by bisection below `most`.
#[must_use]
pub fn bound(alpha: f64, most: f64, ln: impl Fn(f64) -> f64) -> f64 {
    let level = (1.0 / alpha).ln();
    let (mut low, mut high) = (0.0, most);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if ln(middle) < level {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// A confidence sequence for a probability after `hits` of `n`; `best` is the number of trials at which it is tightest.
#[must_use]
pub fn bernoulli(hits: f64, n: f64, alpha: f64, best: f64) -> (f64, f64) {
    let level = (1.0 / alpha).ln();
    let outside = |p: f64| {
        let rho = tuned(best * p * (1.0 - p), alpha, false);
        beta_binomial(hits - n * p, n * p * (1.0 - p), rho, Increments::of_probability(p), false) >= level
    };
    let search = |mut inside: f64, mut out: f64| {
        for _ in 0..100 {
            let middle = f64::midpoint(inside, out);
            if outside(middle) {
                out = middle;
            } else {
                inside = middle;
            }
        }
        f64::midpoint(inside, out)
    };
    const EDGE: f64 = 1e-9;
    let mean = (hits / n).clamp(EDGE, 1.0 - EDGE);
    let low = if outside(EDGE) { search(mean, EDGE) } else { 0.0 };
    let high = if outside(1.0 - EDGE) { search(mean, 1.0 - EDGE) } else { 1.0 };
    (low, high)
}

/// The exponent of polynomial stitching, and what follows from it for eta = 2: ln(zeta(s) / ln(eta)^s).
const S: f64 = 1.4;
const ZETA: f64 = 3.105_547_265_120_648_6;
const ETA: f64 = 2.0;

fn stitch_factors() -> (f64, f64) {
    let k1 = (ETA.powf(0.25) + ETA.powf(-0.25)) / std::f64::consts::SQRT_2;
    (k1, f64::midpoint(ETA.sqrt(), 1.0))
}

/// Polynomial stitching: a bound on a sum of scale `c` whose variance is `v`, from `least` on.
#[must_use]
pub fn stitched(v: f64, alpha: f64, least: f64, c: f64) -> f64 {
    let (k1, k2) = stitch_factors();
    let v = v.max(least);
    let l = S * (ETA * v / least).ln().ln() + (ZETA / ETA.ln().powf(S)).ln() + (1.0 / alpha).ln();
    (k1 * k1 * v * l + (k2 * c * l).powi(2)).sqrt() + k2 * c * l
}

/// The largest distance between an empirical distribution function and the true one, everywhere and for all n from `first` on.
#[must_use]
pub fn distribution_band(n: f64, alpha: f64, first: f64) -> f64 {
    const A: f64 = 0.85;
    let level = |c: f64| {
        let at = |eta: f64| {
            let gamma2 = 2.0 / eta * (A - (2.0 * (eta - 1.0) / c).sqrt()).max(0.0).powi(2);
            if gamma2 <= 1.0 {
                return f64::INFINITY;
            }
            4.0 * (-gamma2 * c).exp() * (1.0 + 1.0 / ((gamma2 - 1.0) * eta.ln()))
        };
        (1..4000).map(|i| at(1.0 + f64::from(i) * 1e-4)).fold(f64::INFINITY, f64::min)
    };
    let (mut low, mut high) = (1.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if level(middle) > alpha { low = middle } else { high = middle }
    }
    A * (((n / first).ln().ln_1p() + high) / n).sqrt()
}

/// Double stitching: a bound on the count below the quantile of order `p`, tightest at `best`.
#[must_use]
pub fn double_stitched(n: f64, alpha: f64, p: f64, best: f64) -> f64 {
    const DELTA: f64 = 0.5;
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let m = n.max(best);
    let r = if p >= 0.5 {
        p
    } else {
        let moved = logit(p) + 2.0 * DELTA * (ETA * best / m).sqrt();
        (1.0 / (1.0 + (-moved).exp())).min(0.5)
    };
    let variance = r * (1.0 - r);
    let j = (m / best).sqrt() * logit(p).abs() / (2.0 * DELTA) + 1.0;
    let l = S * (ETA * m / best).ln().ln()
        + S * j.ln()
        + (2.0 * ZETA * (2.0 * ZETA + 1.0) / (alpha * ETA.ln().powf(S))).ln();
    let c = (1.0 - 2.0 * p) / 3.0;
    let (k1, k2) = stitch_factors();
    DELTA * (ETA * m * variance / best).sqrt() + (k1 * k1 * variance * m * l + (k2 * c * l).powi(2)).sqrt() + k2 * c * l
}

/// ln of the evidence that counts do not follow the shares they should (sample-ratio mismatch), with a Dirichlet prior; the
/// prior becomes the posterior. Source: Lindon & Malek (arXiv 2011.03567), Optimizely's `ssrm`.
pub fn ratio_mismatch(counts: &[f64], shares: &[f64], prior: &mut [f64]) -> f64 {
    let (dirichlet, multinomial) = ln_marginals(counts, shares, prior);
    prior.iter_mut().zip(counts).for_each(|(a, n)| *a += n);
    dirichlet - multinomial
}

/// ln of the probability of counts under a Dirichlet prior and under fixed shares.
fn ln_marginals(counts: &[f64], shares: &[f64], prior: &[f64]) -> (f64, f64) {
    let n: f64 = counts.iter().sum();
    let all: f64 = prior.iter().sum();
    let ways = ln_gamma(n + 1.0) - counts.iter().map(|c| ln_gamma(c + 1.0)).sum::<f64>();
    let grown: f64 = counts.iter().zip(prior).map(|(c, a)| ln_gamma(c + a) - ln_gamma(*a)).sum();
    let fixed: f64 = counts.iter().zip(shares).filter(|(c, _)| **c > 0.0).map(|(c, p)| c * p.ln()).sum();
    (ways + ln_gamma(all) - ln_gamma(all + n) + grown, ways + fixed)
}

/// Half the width of an asymptotic confidence sequence for a mean with this standard deviation (of one observation).
#[must_use]
pub fn asymptotic(deviation: f64, n: f64, alpha: f64, best: f64) -> f64 {
    let rho = ((-2.0 * alpha.ln() + (-2.0 * alpha.ln() + 1.0).ln()) / best).sqrt();
    let spread = n * rho * rho + 1.0;
    deviation * (2.0 * spread * (spread.sqrt() / alpha).ln() / (n * rho).powi(2)).sqrt()
}

/// The mixture sequential probability ratio of a difference of means `d` of n each, with variance and prior variance.
#[must_use]
pub fn msprt(n: f64, d: f64, variance: f64, prior: f64) -> f64 {
    let both = 2.0 * variance;
    (both / (both + n * prior)).sqrt() * ((n * d).powi(2) * prior / (2.0 * both * (both + n * prior))).exp()
}

/// Wald's limits ln A and ln B for errors of the first and second kind.
#[must_use]
pub fn wald(alpha: f64, beta: f64) -> (f64, f64) {
    (((1.0 - beta) / alpha).ln(), (beta / (1.0 - alpha)).ln())
}

/// The numbers of the tests that reject when that share of rejections may be wrong, whatever their dependence (e-BH).
#[must_use]
pub fn many(evidence: &[f64], alpha: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..evidence.len()).collect();
    let of = |i: usize| evidence.get(i).copied().unwrap_or(0.0);
    order.sort_by(|a, b| of(*b).total_cmp(&of(*a)));
    let all = evidence.len() as f64;
    let rejected =
        (1..=order.len()).rev().find(|k| order.get(k - 1).is_some_and(|i| of(*i) >= all / (alpha * *k as f64)));
    order.truncate(rejected.unwrap_or(0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, right: f64) {
        let allowed = 1e-5_f64.max(right.abs() * 1e-5);
        assert!((found - right).abs() <= allowed, "{found} instead of {right}");
    }

    #[test]
    fn normal_mixtures() {
        let (two, one) = (tuned(100.0, 0.05, false), tuned(100.0, 0.05, true));
        near(two, 12.60056);
        near(normal_mixture(10.0, 100.0, two, false), -0.651_005_2);
        near(bound(0.05, 1000.0, |s| normal_mixture(s, 100.0, two, false)), 30.35209);
        near(one, 15.80063);
        near(normal_mixture(10.0, 100.0, one, true), -0.065_023_91);
        near(bound(0.05, 1000.0, |s| normal_mixture(s, 100.0, one, true)), 27.66071);
    }

    #[test]
    fn gamma_and_beta_mixtures() {
        let rho = tuned(100.0, 0.05, true);
        near(gamma_exponential(10.0, 100.0, rho, 2.0), -0.249_016_5);
        near(bound(0.05, 1000.0, |s| gamma_exponential(s, 100.0, rho, 2.0)), 33.02017);
        near(gamma_poisson(10.0, 100.0, rho, 2.0), -0.069_912_19);
        near(bound(0.05, 1000.0, |s| gamma_poisson(s, 100.0, rho, 2.0)), 30.1949);
        let two = tuned(100.0, 0.05, false);
        let range = Increments { g: 0.2, h: 0.8 };
        near(beta_binomial(10.0, 100.0, two, range, false), -0.694_101_2);
        near(beta_binomial(10.0, 100.0, rho, range, true), -0.071_340_19);
        near(bound(0.05, 400.0, |s| beta_binomial(s, 100.0, two, range, false)), 31.4308);
        near(bound(0.05, 400.0, |s| beta_binomial(s, 100.0, rho, range, true)), 28.41238);
    }

    #[test]
    fn probabilities() {
        for (hits, n, best, low, high) in [
            (700.0, 1000.0, 100.0, 0.651_629, 0.745_949),
            (15.0, 50.0, 50.0, 0.129_556, 0.511_896),
            (5.0, 50.0, 50.0, 0.013_021, 0.269_264),
            (1.0, 50.0, 50.0, 0.0, 0.134_89),
            (1.0, 2.0, 50.0, 0.0, 1.0),
            (0.0, 1.0, 50.0, 0.0, 1.0),
            (1.0, 1.0, 50.0, 0.0, 1.0),
            (100.0, 200.0, 1.0, 0.328_923, 0.671_076),
        ] {
            let found = bernoulli(hits, n, 0.05, best);
            near(found.0, low);
            near(found.1, high);
        }
    }

    #[test]
    fn stitching_and_bands() {
        near(stitched(100.0, 0.05, 10.0, 3.0), 64.48755);
        near(stitched(100.0, 0.05, 10.0, -1.0), 28.99389);
        near(distribution_band(1000.0, 0.05, 100.0), 0.082_047_69);
        for (p, right) in [(0.5, 68.62803), (0.9, 43.72119), (0.1, 59.96521)] {
            near(double_stitched(1000.0, 0.05, p, 100.0), right);
        }
    }

    #[test]
    fn sample_ratios() {
        let mut prior = [1.0; 3];
        let shares = [0.4, 0.4, 0.2];
        let (mut one, mut zero) = (0.0, 0.0);
        let mut evidence = 0.0;
        for batch in [[20.0, 17.0, 9.0], [18.0, 21.0, 8.0], [4.0, 6.0, 4.0], [18.0, 19.0, 11.0]] {
            let (m1, m0) = ln_marginals(&batch, &shares, &prior);
            (one, zero) = (one + m1, zero + m0);
            evidence += ratio_mismatch(&batch, &shares, &mut prior);
        }
        near(one, -19.964_845_21);
        near(zero, -15.781_031_23);
        near(evidence, one - zero);
    }

    #[test]
    fn means_and_ratios() {
        // 1396/3000 against 2422/3461: the uplift, its deviation and its interval.
        let (a, b) = (1396.0 / 3000.0, 2422.0 / 3461.0);
        let (va, vb) = (a * (1.0 - a) / 3000.0, b * (1.0 - b) / 3461.0);
        let uplift = b / a - 1.0;
        let deviation = (vb / (a * a) + va * b * b / f64::powi(a, 4)).sqrt();
        near(uplift, 0.503_86);
        assert!((deviation - 0.033_86).abs() < 1e-5);
        let n = 6461.0_f64;
        let half = asymptotic(deviation * n.sqrt(), n, 0.05, 5000.0);
        assert!((uplift - half - 0.400_98).abs() < 2e-5 && (uplift + half - 0.606_75).abs() < 2e-5, "{half}");
        near(msprt(1000.0, 5.0, 2500.0, 25.0), 3.278_72);
        let v = (0.01 * 0.99 + 0.015 * 0.985) / 2.0;
        near(msprt(10_000.0, 0.005, v, 1e-4), 21.7736);
        assert!((msprt(10_000.0, 0.005, v, 1e-6) - 3.6358).abs() < 1e-4);
        let (a, b) = wald(0.05, 0.2);
        near(a, 2.772_59);
        near(b, -1.558_14);
        let (a, b) = wald(0.01, 0.1);
        near(a, 4.499_81);
        near(b, -2.292_53);
    }

    #[test]
    fn the_best_of_many_are_rejected() {
        assert_eq!(many(&[100.0, 1.0, 30.0, 25.0], 0.1), [0, 2, 3]);
        assert_eq!(many(&[1.0, 2.0], 0.05), Vec::<usize>::new());
    }
}
