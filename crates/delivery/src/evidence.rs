//! The evidence about a release, and the verdicts that may follow from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_model::Failing;

use crate::Millis;
use crate::queries::Reading;

/// Requests to one version, since somebody began to count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Requests that ended.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were not answered with 2xx, by what they were answered with, see [`Failing::means`]; empty where nobody tells.
    #[serde(default)]
    pub answers: BTreeMap<u32, u64>,
    /// All by their times: upper bounds in microseconds, and how many were at most that long and longer than the bound before.
    pub times: BTreeMap<u64, u64>,
}

impl Arm {
    /// Requests that took longer than that.
    pub(crate) fn slower(&self, micros: u64) -> u64 {
        self.times.iter().filter(|(bound, _)| **bound > micros).map(|(_, count)| count).sum()
    }

    pub(crate) fn timed(&self) -> u64 {
        self.times.values().sum()
    }

    /// The bound below which this share of the requests is.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.timed() as f64 * share).ceil() as u64;
        let mut seen = 0;
        self.times
            .iter()
            .find(|(_, count)| {
                seen += **count;
                seen >= rank
            })
            .map(|(bound, _)| *bound)
    }

    /// The difference from `before`; counts only grow.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let requests = self.requests.saturating_sub(before.requests);
        let new = |bound: &u64, count: &u64| count.saturating_sub(before.times.get(bound).copied().unwrap_or(0));
        Self {
            requests,
            failed: self.failed.saturating_sub(before.failed).min(requests),
            answers: self
                .answers
                .iter()
                .map(|(key, count)| (*key, count.saturating_sub(before.answers.get(key).copied().unwrap_or(0))))
                .filter(|(_, count)| *count > 0)
                .collect(),
            times: self.times.iter().map(|(b, c)| (*b, new(b, c))).filter(|(_, c)| *c > 0).collect(),
        }
    }

    /// Adds another's requests.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        other.times.iter().for_each(|(bound, count)| *self.times.entry(*bound).or_default() += count);
        other.answers.iter().for_each(|(key, count)| *self.answers.entry(*key).or_default() += count);
    }

    /// Counts as failed what a release calls a failure; without a word of it, what the reporters do.
    pub fn count_failures(&mut self, failures: &Option<Vec<Failing>>) {
        if let Some(list) = failures {
            let means = |key: u32| list.iter().any(|f| f.means(key));
            let failed: u64 = self.answers.iter().filter(|(key, _)| means(**key)).map(|(_, count)| count).sum();
            self.failed = failed.min(self.requests);
        }
    }

    /// Requests that were answered with this class of statuses.
    pub(crate) fn of_class(&self, class: Class) -> u64 {
        self.answers.iter().filter(|(key, _)| class.has(**key)).map(|(_, count)| count).sum()
    }
}

/// Classes of answers whose shares are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// 3xx.
    Redirects,
    /// 4xx.
    ClientErrors,
    /// gRPC statuses but OK.
    GrpcErrors,
    /// 5xx, and none.
    ServerErrors,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Redirects, Self::ClientErrors, Self::GrpcErrors, Self::ServerErrors];

    pub(crate) fn has(self, key: u32) -> bool {
        match self {
            Self::Redirects => key / 100 == 3,
            Self::ClientErrors => key / 100 == 4,
            Self::GrpcErrors => key > Failing::GRPC,
            Self::ServerErrors => key == 0 || key / 100 == 5,
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Redirects => "3xx",
            Self::ClientErrors => "4xx",
            Self::GrpcErrors => "gRPC statuses other than OK",
            Self::ServerErrors => "5xx or not at all",
        }
    }

    /// Returns true when they are what failures are where a release does not say which responses are.
    pub(crate) fn fails(self) -> bool {
        matches!(self, Self::GrpcErrors | Self::ServerErrors)
    }
}

/// Proxies that have confirmed the traffic in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The number of proxies that confirmed it.
    pub done: usize,
    /// Of how many.
    pub of: usize,
    /// The proxies that have not.
    pub laggards: Vec<String>,
    /// The proxies that have never confirmed anything, for so long that nothing waits for them.
    pub silent: Vec<String>,
}

/// The evidence about a release at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The old version.
    pub stable: Arm,
    /// Its baseline, where there is one.
    pub baseline: Arm,
    /// The new one.
    pub candidate: Arm,
    /// The new one's instances, by their address.
    pub instances: BTreeMap<String, Arm>,
    /// The proxies that have confirmed the traffic.
    pub applied: Applied,
    /// Instances that are ready.
    pub stable_ready: usize,
    /// See above.
    pub candidate_ready: usize,
    /// See above.
    pub baseline_ready: usize,
    /// True when there are other releases of the host.
    pub contested: bool,
    /// The last responses to queries, by their names.
    pub readings: BTreeMap<String, Reading>,
    /// The time by the clock on the wall, for freezes; everything else goes by a clock that does not jump.
    pub calendar: Millis,
    /// Requests of the candidate's instances that failed at another release's candidate, by that release.
    pub failed_calls: BTreeMap<String, u64>,
    /// Subsets of destinations that stay with the stable version, because no instance of the candidate is of them.
    pub kept: Vec<String>,
    /// Subsets of destinations of which the stable version has no ready instance.
    pub without_stable: Vec<String>,
}

/// The verdict of the evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "says", content = "reason")]
pub enum Verdict {
    /// No request reached the candidate.
    #[default]
    NoEvidence,
    /// Too few did.
    NotEnough(String),
    /// It is no worse.
    NoWorse(String),
    /// It is worse.
    Regression(String),
    /// Requests are not shared as they should be, or the stable version itself fails, so nothing can be said.
    Void(String),
}

impl Verdict {
    /// Its name for people.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::NoEvidence => "no evidence yet",
            Self::NotEnough(_) => "not enough evidence",
            Self::NoWorse(_) => "no worse",
            Self::Regression(_) => "worse",
            Self::Void(_) => "cannot be judged",
        }
    }
}
