//! What proxies report of the requests they sent: sums since this pilot began, by who sent them and to which endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fleet::Fleet;
use serin_delivery::Arm;
use serin_xds::Node;
use serin_xds::load::{Clocked, Collect, Load, Part, Times, Wanted};

/// How often proxies report: what a release is judged by must not be old.
const EVERY: Duration = Duration::from_millis(500);

/// Who sent requests where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoadKey {
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
    /// Those that were not answered with 2xx, by what they were answered with.
    pub(crate) answers: BTreeMap<u32, u64>,
}

/// All sums.
#[derive(Default)]
pub(crate) struct Loads {
    inner: Mutex<Inner>,
    /// Who is connected; without it everybody is believed.
    fleet: Option<Arc<Fleet>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is shown.
    sums: BTreeMap<LoadKey, Sum>,
    /// What proxies that tell times another way had counted when they told last, by node and cluster.
    clocks: BTreeMap<String, BTreeMap<String, Told>>,
    news: LoadDelta,
    /// Reports that nobody knows to be of the proxy that they name.
    refused: u64,
}

/// What a proxy had counted of a cluster when it told last.
#[derive(Debug, Default)]
struct Told {
    times: BTreeMap<u64, u64>,
    answers: BTreeMap<u32, u64>,
}

/// What came since somebody asked last.
#[derive(Debug, Default)]
pub(crate) struct LoadDelta {
    /// Requests, by the way they took.
    pub(crate) requests: BTreeMap<LoadKey, Arm>,
    /// Times that were told another way, by cluster.
    pub(crate) times: BTreeMap<String, Arm>,
}

/// Keys of answers are below this, however a proxy reports.
const ANSWERS: u32 = 1_017;

/// Ways that are shown at most; then the page begins anew.
const SHOWN: usize = 50_000;

impl Loads {
    /// Loads of the proxies of a fleet.
    pub(crate) fn of(fleet: Arc<Fleet>) -> Self {
        Self { inner: Mutex::default(), fleet: Some(fleet) }
    }

    /// Whether a report is of the proxy that it names: until proxies have certificates, that which takes its configuration over the
    /// same connection.
    fn is_believed(&self, node: &Node, peer: &str) -> bool {
        let Some(fleet) = &self.fleet else { return true };
        if fleet.is_connected(&node.id, peer) {
            return true;
        }
        let Inner { refused, .. } = &mut *self.lock();
        *refused += 1;
        // Said for the first ones and then ever more seldom.
        if refused.is_power_of_two() {
            let text = "it does not take its configuration over this connection, so its report does not count";
            tracing::warn!("a load report from {peer} names node {}: {text} ({refused} so far)", node.id);
        }
        false
    }

    /// Reports that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came since this was asked last.
    pub(crate) fn take(&self) -> LoadDelta {
        std::mem::take(&mut self.lock().news)
    }

    /// Looks at every sum.
    pub(crate) fn each<T>(&self, mut look: impl FnMut(&LoadKey, &Sum) -> T) -> Vec<T> {
        self.lock().sums.iter().map(|(way, sum)| look(way, sum)).collect()
    }
}

/// A report's requests as one version's. Serin's proxies tell first attempts from retries, and times; others tell neither.
fn arm(part: &Part, is_serin: bool) -> Arm {
    if !is_serin {
        return Arm { requests: part.succeeded + part.failed, failed: part.failed, ..Arm::default() };
    }
    let mut sum = Sum::default();
    sum.add(part);
    Arm { requests: sum.first, failed: sum.first_failed, answers: sum.answers, times: sum.times }
}

impl Sum {
    fn add(&mut self, part: &Part) {
        self.issued += part.issued;
        self.succeeded += part.succeeded;
        self.failed += part.failed;
        self.active = part.active;
        for named in &part.named {
            if named.name == "first_attempts" {
                self.first += named.count;
                self.first_failed += named.total as u64;
            } else if let Some(key) = named.name.strip_prefix("first_attempt_answer_")
                && let Ok(key) = key.parse::<u32>()
                && key < ANSWERS
            {
                *self.answers.entry(key).or_default() += named.count;
            } else if let Some(bound) = named.name.strip_prefix("first_attempt_ms_le_")
                && let Ok(millis) = bound.parse::<f64>()
            {
                *self.times.entry((millis * 1000.0) as u64).or_default() += named.count;
            }
        }
    }
}

impl Clocked for Loads {
    fn times(&self, node: &Node, peer: &str, all: Vec<Times>) {
        if !self.is_believed(node, peer) {
            return;
        }
        let Inner { clocks, news, .. } = &mut *self.lock();
        if clocks.len() > SHOWN {
            clocks.clear();
        }
        // What a proxy had counted before this pilot heard of it was another's evidence.
        let is_new = !clocks.contains_key(&node.id);
        let clusters = clocks.entry(node.id.clone()).or_default();
        for Times { cluster, buckets, answers } in all {
            let told = clusters.entry(cluster.clone()).or_default();
            for (status, count) in answers {
                let before = told.answers.insert(status.into(), count).unwrap_or(0);
                // Less than before: the proxy was started anew.
                let new = if count < before { count } else { count - before };
                if !is_new && new > 0 {
                    *news.times.entry(cluster.clone()).or_default().answers.entry(status.into()).or_default() += new;
                }
            }
            if buckets.is_empty() {
                continue;
            }
            let mut below = 0;
            let own = buckets.into_iter().map(|(bound, count)| {
                let new = count.saturating_sub(below);
                below = count;
                ((bound * 1000.0) as u64, new)
            });
            let now: BTreeMap<u64, u64> = own.filter(|(_, count)| *count > 0).collect();
            let before = std::mem::replace(&mut told.times, now.clone());
            // Less than before: the proxy was started anew.
            let before = if now.values().sum::<u64>() < before.values().sum() { BTreeMap::new() } else { before };
            if !is_new {
                let sum = Arm { times: now, ..Arm::default() };
                let new = sum.since(&Arm { times: before, ..Arm::default() });
                news.times.entry(cluster).or_default().add(&new);
            }
        }
    }
}

impl Collect for Loads {
    fn wanted(&self, _: &Node) -> Wanted {
        Wanted { clusters: None, every: EVERY, endpoints: true }
    }

    fn report(&self, node: &Node, peer: &str, loads: Vec<Load>) {
        if !self.is_believed(node, peer) {
            return;
        }
        let Inner { sums, news, .. } = &mut *self.lock();
        if sums.len() > SHOWN {
            sums.clear();
        }
        for load in loads {
            for part in &load.parts {
                let way = LoadKey {
                    node: node.id.clone(),
                    cluster: load.cluster.clone(),
                    endpoint: part.address,
                    locality: part.locality.clone(),
                };
                news.requests.entry(way.clone()).or_default().add(&arm(part, node.user_agent == "serin"));
                sums.entry(way).or_default().add(part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_an_earlier_pilot_heard_of_do_not_count_again() {
        let loads = Loads::default();
        let node = Node { id: "n".to_owned(), ..Node::default() };
        let told = |cluster: &str, fast: u64, all: u64| {
            let buckets = vec![(1.0, fast), (5.0, all)];
            loads.times(&node, "", vec![Times { cluster: cluster.to_owned(), buckets, answers: Vec::new() }]);
            loads.take().times.remove(cluster).map_or(BTreeMap::new(), |arm| arm.times)
        };
        assert_eq!(told("a", 100, 150), BTreeMap::new());
        assert_eq!(told("a", 101, 153), BTreeMap::from([(1000, 1), (5000, 2)]));
        assert_eq!(told("b", 3, 3), BTreeMap::from([(1000, 3)]), "a cluster that came later");
        assert_eq!(told("a", 2, 2), BTreeMap::from([(1000, 2)]), "the proxy was started anew");
    }

    #[test]
    fn of_serin_first_attempts_count_and_of_others_all() {
        let part = Part { succeeded: 5, failed: 2, ..Part::default() };
        assert_eq!((arm(&part, true).requests, arm(&part, false).requests, arm(&part, false).failed), (0, 7, 2));
    }
}
