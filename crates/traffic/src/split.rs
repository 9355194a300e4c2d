//! Chooses one of several weighted clusters.
//!
//! Weights are relative and need not add up to anything. The cumulative sums are made once; a draw costs one
//! multiplication and a scan of a short array. Source: Envoy `weighted_clusters`.

/// Cumulative weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    cumulative: Vec<u64>,
}

impl Split {
    /// A split by these weights, which must not all be zero unless there is only one.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = 0u64;
        let cumulative = weights
            .into_iter()
            .map(|w| {
                sum += u64::from(w);
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// The index that a number given from outside stands for, as Envoy reads it: its remainder by the sum of weights. With
    /// an unchanged sum, whoever is in the last share stays there when it grows.
    #[must_use]
    pub fn at(&self, number: u64) -> usize {
        match self.cumulative.last() {
            Some(total @ 1..) => self.cumulative.iter().position(|end| number % total < *end).unwrap_or(0),
            _ => 0,
        }
    }

    /// The index that a uniform 64-bit random number draws.
    #[must_use]
    pub fn pick(&self, random: u64) -> usize {
        let total = match self.cumulative.as_slice() {
            [] | [_] => return 0,
            [.., total] => *total,
        };
        // Multiply-shift maps the draw to 0..total with a bias below total / 2^64.
        let point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        self.cumulative.iter().position(|end| point < *end).unwrap_or(0)
    }
}

/// Returns true when a draw falls into a share of a million.
#[must_use]
pub fn drawn(share: u32, random: u64) -> bool {
    ((u128::from(random) * 1_000_000) >> 64) < u128::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_over_the_whole_range() {
        let split = Split::new([900_000, 0, 99_999, 1]);
        let mut counts = [0u32; 4];
        let steps = 1_000_000u64;
        for i in 0..steps {
            counts[split.pick(u64::MAX / (2 * steps) * (2 * i + 1))] += 1;
        }
        assert_eq!(counts, [900_000, 0, 99_999, 1]);
    }

    #[test]
    fn a_single_cluster_gets_everything_whatever_its_weight() {
        assert_eq!(Split::new([0]).pick(u64::MAX), 0);
        assert_eq!(Split::new([0, 5]).pick(0), 1);
    }

    #[test]
    fn shares_at_the_limits() {
        assert!(drawn(1_000_000, u64::MAX));
        assert!(!drawn(0, 0));
        assert!(drawn(1, 0));
        assert!(!drawn(1, u64::MAX / 1_000_000 + 1));
    }
}
