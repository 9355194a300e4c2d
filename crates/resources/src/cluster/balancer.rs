//! The settings by which an endpoint of a cluster is chosen.

use std::collections::BTreeMap;
use std::time::Duration;

/// The load balancer of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balancer {
    /// One after the other, by weight.
    #[default]
    RoundRobin,
    /// At random, whatever the weights.
    Random,
    /// The least busy of so many random ones.
    LeastRequest {
        /// The number of endpoints that are compared, at least 2.
        choices: u32,
        /// The effect of requests in flight on a weight, in thousandths: weight / (active + 1)^bias.
        bias: u32,
    },
    /// By hash, on a ring.
    RingHash {
        /// Fewest places.
        least: u64,
        /// Most places.
        most: u64,
        /// MurmurHash2 instead of xxHash64.
        murmur: bool,
    },
    /// By hash, in a table.
    Maglev {
        /// Its size, a prime.
        size: u64,
    },
    /// One after the other, by weights that follow from what backends report of their load.
    Reported,
    /// The one of two that answered quickest, requests in flight counted: our own extra.
    PeakEwma {
        /// The time for which a measurement counts.
        decay: Duration,
    },
}

impl Balancer {
    /// Returns true when a hash of the request chooses the endpoint.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        match self {
            Self::RingHash { .. } | Self::Maglev { .. } => true,
            Self::RoundRobin | Self::Random | Self::LeastRequest { .. } | Self::Reported | Self::PeakEwma { .. } => {
                false
            }
        }
    }
}

/// The rule by which weights follow from what backends report (Envoy, `ClientSideWeightedRoundRobin`; gRPC A58).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The time for which reports must have come before they count.
    pub blackout: Duration,
    /// The time for which the last report counts.
    pub expiration: Duration,
    /// The load of an error, in thousandths.
    pub penalty: u32,
    /// Metrics that say how busy a backend is, the greatest counts.
    pub metrics: Vec<String>,
    /// The interval at which weights change.
    pub update: Duration,
}

impl Default for Reported {
    /// Envoy's.
    fn default() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            penalty: 1000,
            metrics: Vec::new(),
            update: Duration::from_secs(1),
        }
    }
}

/// The conditions under which endpoints of the own zone are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneAware {
    /// For which share of requests, in parts of a million.
    pub enabled: u32,
    /// Endpoints that there must be.
    pub smallest: u64,
}

/// The share of a new endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// The duration of the slow start.
    pub window: Duration,
    /// In thousandths: 1000 is linear, more is quicker at first.
    pub aggression: u32,
    /// The share at the beginning, in per cent.
    pub least_percent: u32,
}

impl SlowStart {
    /// Returns the share of its weight that an endpoint has which became usable so long ago (Envoy, "Slow start mode").
    #[must_use]
    pub fn share(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let time = age.as_secs_f64().max(1.0) / self.window.as_secs_f64().max(1.0);
        let share = time.min(1.0).powf(1000.0 / f64::from(self.aggression.max(1)));
        share.max(f64::from(self.least_percent) / 100.0).min(1.0)
    }
}

/// The division of endpoints by their metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetConfig {
    /// By which keys.
    pub selectors: Vec<SubsetSelector>,
    /// The endpoints for a request whose subset is not there.
    pub fallback: SubsetFallback,
    /// The metadata of the default subset.
    pub default: BTreeMap<String, String>,
}

/// Keys that make subsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// The keys, sorted.
    pub keys: Vec<String>,
    /// The endpoints for a request whose subset is not there, when not as others.
    pub fallback: Option<SubsetFallback>,
    /// The keys that count then.
    pub fallback_keys: Vec<String>,
}

/// The endpoints for a request whose subset is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubsetFallback {
    /// Nowhere.
    None,
    /// To any endpoint.
    Any,
    /// To the default subset.
    Default,
    /// To the subset of fewer keys.
    Keys,
}
