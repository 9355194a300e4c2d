//! What proxies report of the requests they sent: sums since this pilot began, by who sent them and to which endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serin_delivery::Arm;
use serin_xds::Node;
use serin_xds::load::{Clocked, Collect, Load, Part, Times, Wanted};

/// How often proxies report: what a release is judged by must not be old.
const EVERY: Duration = Duration::from_millis(500);

/// Who sent requests where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    /// The reporting proxy's node id.
    pub(crate) node: String,
    pub(crate) cluster: String,
    /// `None` from a reporter that does not tell endpoints apart.
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) locality: String,
}

/// Requests that were sent some way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) issued: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) active: u64,
    /// Requests that were sent there first, and how many of them failed there.
    pub(crate) first: u64,
    pub(crate) first_failed: u64,
    /// First attempts by upper bounds of their times in microseconds.
    pub(crate) times: BTreeMap<u64, u64>,
}

/// All sums.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    sums: Mutex<BTreeMap<Way, Sum>>,
    /// How long requests took, by node and cluster, of proxies that tell it another way.
    times: Mutex<BTreeMap<(String, String), BTreeMap<u64, u64>>>,
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Way, Sum>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the times of every cluster that were told another way: upper bounds in microseconds.
    pub(crate) fn each_clock(&self, mut look: impl FnMut(&str, &BTreeMap<u64, u64>)) {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().for_each(|((_, cluster), times)| look(cluster, times));
    }

    /// Looks at every sum.
    pub(crate) fn each<T>(&self, mut look: impl FnMut(&Way, &Sum) -> T) -> Vec<T> {
        self.lock().iter().map(|(way, sum)| look(way, sum)).collect()
    }
}

impl Sum {
    /// As one version's requests. Serin's proxies tell first attempts from retries, and times; others tell neither.
    pub(crate) fn arm(&self) -> Arm {
        if self.first > 0 {
            return Arm { requests: self.first, failed: self.first_failed, times: self.times.clone() };
        }
        Arm { requests: self.succeeded + self.failed, failed: self.failed, times: BTreeMap::new() }
    }

    fn add(&mut self, part: &Part) {
        self.issued += part.issued;
        self.succeeded += part.succeeded;
        self.failed += part.failed;
        self.active = part.active;
        for named in &part.named {
            if named.name == "first_attempts" {
                self.first += named.count;
                self.first_failed += named.total as u64;
            } else if let Some(bound) = named.name.strip_prefix("first_attempt_ms_le_")
                && let Ok(millis) = bound.parse::<f64>()
            {
                *self.times.entry((millis * 1000.0) as u64).or_default() += named.count;
            }
        }
    }
}

impl Clocked for Loads {
    fn times(&self, node: &Node, all: Vec<Times>) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for Times { cluster, buckets } in all {
            let mut before = 0;
            let own = buckets.into_iter().map(|(bound, count)| {
                let new = count.saturating_sub(before);
                before = count;
                ((bound * 1000.0) as u64, new)
            });
            times.insert((node.id.clone(), cluster), own.filter(|(_, count)| *count > 0).collect());
        }
    }
}

impl Collect for Loads {
    fn wanted(&self, _: &Node) -> Wanted {
        Wanted { clusters: None, every: EVERY, endpoints: true }
    }

    fn report(&self, node: &Node, _: &str, loads: Vec<Load>) {
        let mut sums = self.lock();
        for load in loads {
            for part in &load.parts {
                let way = Way {
                    node: node.id.clone(),
                    cluster: load.cluster.clone(),
                    endpoint: part.address,
                    locality: part.locality.clone(),
                };
                sums.entry(way).or_default().add(part);
            }
        }
    }
}
