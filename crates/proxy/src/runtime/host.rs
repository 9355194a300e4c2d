//! An endpoint's state that no configuration resets: counters, health, ejection, and the load that it reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serin_http1::Codec;
use serin_resources::cluster::Reported;
use serin_resources::orca::OrcaReport;
use serin_resources::outlier::OutlierDetection;
use serin_telemetry::{Counters, Histogram};
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::outlier::{self, Bucket, Cause, Rows, Verdict};

use super::{NEXT_ID, locked};
use crate::metric;

/// An endpoint of a cluster: one object as long as the address stays in the cluster.
#[derive(Debug)]
pub(crate) struct Host {
    /// Unique in the process; pools are kept by it.
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    pub(crate) stats: Counters,
    pub(crate) health: EndpointHealth,
    /// Made when somebody wants to know.
    first_attempts: OnceLock<FirstAttempts>,
    /// The load that it reports, where that counts.
    reports: OnceLock<Reports>,
    /// The codec that was agreed on last, where it has a say: 0 for none, 1 or 2.
    agreed: AtomicU8,
    workers: usize,
}

/// The load that a host reports.
#[derive(Debug, Default)]
struct Reports {
    /// The weight that counts now, as the bits of a number; 0 for none.
    weight: AtomicU64,
    newest: Mutex<Option<Newest>>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    weight: f64,
    /// Since when reports have come.
    since: Instant,
    at: Instant,
}

/// The results of requests that were sent to a host first.
#[derive(Debug)]
pub(crate) struct FirstAttempts {
    pub(crate) failed: Counters,
    /// Those that were not answered with 2xx, by what they were answered with: an HTTP status, 1000 and a gRPC status, or 0 for no
    /// acceptable response.
    answers: Mutex<BTreeMap<u32, u64>>,
    /// The times of the requests that were not sent again.
    pub(crate) times: Histogram,
}

impl Host {
    pub(crate) fn new(address: SocketAddr, workers: usize) -> Self {
        let stats = Counters::new(metric::host::NAMES, workers);
        let health = EndpointHealth { since: Mutex::new(Some(Instant::now())), ..EndpointHealth::default() };
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address,
            stats,
            health,
            first_attempts: OnceLock::new(),
            reports: OnceLock::new(),
            agreed: AtomicU8::new(0),
            workers,
        }
    }

    /// Takes note of the codec that was agreed on.
    pub(crate) fn agreed(&self, codec: Codec) {
        self.agreed.store(if codec == Codec::Http1 { 1 } else { 2 }, Relaxed);
    }

    /// The codec that was agreed on last.
    pub(crate) fn codec(&self) -> Option<Codec> {
        match self.agreed.load(Relaxed) {
            1 => Some(Codec::Http1),
            2 => Some(Codec::Http2),
            _ => None,
        }
    }

    /// Takes note of what it reports.
    pub(crate) fn reported(&self, config: &Reported, report: &OrcaReport) {
        let Some(weight) = report.weight(&config.metrics, f64::from(config.penalty) / 1000.0) else { return };
        let now = Instant::now();
        let mut newest = locked(&self.reports.get_or_init(Reports::default).newest);
        let fresh = newest.filter(|n| now.duration_since(n.at) < config.expiration);
        *newest = Some(Newest { weight, since: fresh.map_or(now, |n| n.since), at: now });
    }

    /// The weight that follows from its reports, if they have come long enough and still do.
    pub(super) fn proven(&self, config: &Reported) -> Option<f64> {
        let newest = (*locked(&self.reports.get()?.newest))?;
        let counts = newest.since.elapsed() >= config.blackout && newest.at.elapsed() < config.expiration;
        counts.then_some(newest.weight)
    }

    pub(super) fn weigh(&self, weight: Option<f64>) {
        if weight.is_some() || self.reports.get().is_some() {
            let weight = weight.map_or(0, f64::to_bits);
            self.reports.get_or_init(Reports::default).weight.store(weight, Relaxed);
        }
    }

    /// The weight that counts instead of the configured one.
    pub(super) fn weight(&self) -> Option<f64> {
        let bits = self.reports.get()?.weight.load(Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    /// Counts a request that was sent here first.
    pub(crate) fn first_attempt(&self, worker: usize, took: Duration, answer: Option<u32>, failed: bool) {
        let new = || FirstAttempts {
            failed: Counters::new(&["failed"], self.workers),
            answers: Mutex::default(),
            times: Histogram::new(self.workers),
        };
        let attempts = self.first_attempts.get_or_init(new);
        attempts.times.record(worker, took);
        attempts.failed.add(worker, 0, u64::from(failed));
        if let Some(answer) = answer {
            *locked(&attempts.answers).entry(answer).or_default() += 1;
        }
    }

    /// The results of requests that were sent here first.
    pub(crate) fn first_attempts(&self) -> Option<&FirstAttempts> {
        self.first_attempts.get()
    }
}

impl FirstAttempts {
    /// Requests that were not answered with 2xx, by what they were answered with.
    pub(crate) fn answers(&self) -> BTreeMap<u32, u64> {
        locked(&self.answers).clone()
    }
}

/// The key of a response to a first attempt: none for 2xx, the gRPC status of a call that did not end well, else the status; 0
/// for none.
pub(crate) fn answer_key(status: u16, grpc: Option<GrpcStatus>) -> Option<u32> {
    match grpc {
        Some(grpc) if grpc != GrpcStatus::OK && (200..300).contains(&status) => Some(1000 + grpc.code().min(16)),
        _ => (!(200..300).contains(&status)).then_some(u32::from(status)),
    }
}

/// The health of a host, as health checks and outlier detection see it.
#[derive(Debug, Default)]
pub(crate) struct EndpointHealth {
    /// Since when it is fit for requests.
    since: Mutex<Option<Instant>>,
    /// True when it is checked, and was at least once.
    watched: AtomicBool,
    was_checked: AtomicBool,
    /// True when health checks say that it is unhealthy.
    unfit: AtomicBool,
    /// True when health checks say that it is degraded.
    degraded: AtomicBool,
    /// True when `rows` are not all zero: success then costs one look.
    marked: AtomicBool,
    rows: Mutex<Rows>,
    ejected: AtomicBool,
    pub(crate) ejection: Mutex<EjectionState>,
}

/// The state of outlier detection that only the main thread looks at.
#[derive(Debug, Default)]
pub(crate) struct EjectionState {
    /// The time at which its ejection ends.
    pub(crate) until: Option<Instant>,
    /// Ejections less the intervals without one.
    pub(crate) times: u32,
    /// The counts at the end of the last interval.
    pub(crate) before: Bucket,
}

impl EndpointHealth {
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Returns true when health checks say that it is not fit.
    pub(crate) fn is_unfit(&self) -> bool {
        self.unfit.load(Relaxed)
    }

    /// Returns true when health checks say that it is degraded.
    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Relaxed)
    }

    /// Says whether the host is checked: one that is new to it is unfit until it was.
    pub(crate) fn is_checked(&self, on: bool) {
        if self.watched.swap(on, Relaxed) != on {
            self.unfit.store(on, Relaxed);
            self.degraded.store(false, Relaxed);
            self.was_checked.store(false, Relaxed);
        }
    }

    /// Returns true when it was checked at least once.
    pub(crate) fn was_checked(&self) -> bool {
        self.was_checked.load(Relaxed)
    }

    /// Takes note of what health checks found; true when that changes something.
    pub(crate) fn checked(&self, fit: bool, degraded: bool) -> bool {
        self.was_checked.store(true, Relaxed);
        let was = (self.unfit.swap(!fit, Relaxed), self.degraded.swap(degraded, Relaxed));
        if was.0 && fit {
            *locked(&self.since) = Some(Instant::now());
        }
        was != (!fit, degraded)
    }

    /// The time that it has been fit.
    pub(super) fn fit_for(&self) -> Duration {
        locked(&self.since).map_or(Duration::MAX, |since| since.elapsed())
    }

    /// Ejects the host or takes it back; either way its rows begin anew.
    pub(crate) fn set_ejected(&self, ejected: bool) {
        if !ejected {
            *locked(&self.since) = Some(Instant::now());
        }
        self.ejected.store(ejected, Relaxed);
        *locked(&self.rows) = Rows::default();
        self.marked.store(false, Relaxed);
    }

    pub(super) fn note(&self, config: &OutlierDetection, verdict: Verdict) -> Option<Cause> {
        if verdict == Verdict::Good && !self.marked.load(Relaxed) {
            return None;
        }
        let mut rows = locked(&self.rows);
        let (next, cause) = outlier::count(config, *rows, verdict);
        *rows = next;
        self.marked.store(next != Rows::default(), Relaxed);
        cause
    }
}
