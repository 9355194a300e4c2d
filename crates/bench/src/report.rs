//! Medians, spreads, ratios and verdicts, as JSON and as tables.

mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::ProxyOptions;
use crate::case::Case;
use crate::load::paced::Latency;
use crate::peer::Peer;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Processor time a request, in microseconds.
    pub(crate) micros: f64,
    /// Share of it in user space, by the kernel's ticks.
    pub(crate) user: f64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// KiB.
    pub(crate) resident: u64,
    /// Whether others took more than 5 % of the contender's core meanwhile.
    pub(crate) disturbed: bool,
}

/// Memory of idle connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Resident memory before them, in KiB.
    pub(crate) before: u64,
    /// Bytes for each.
    pub(crate) bytes: f64,
}

/// All of a contender's figures in a case.
#[derive(Debug, Default)]
struct Figures {
    rounds: Vec<Measured>,
    idle: Vec<Idle>,
    latency: Vec<Latency>,
    /// System calls a request.
    calls: Option<f64>,
}

/// All figures of a case.
struct Results {
    case: Case,
    peers: BTreeMap<Peer, Figures>,
    /// Requests per second at which latency was measured.
    rate: f64,
}

/// All measurements.
pub(crate) struct Report {
    rounds: usize,
    seconds: u32,
    versions: Vec<String>,
    pub(crate) missing: Vec<String>,
    cases: Vec<Results>,
}

/// Quartiles of a figure.
#[derive(Debug, Clone, Copy)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

/// A spread beyond this share of the median is no result.
const TOO_NOISY: f64 = 0.15;

impl Report {
    pub(crate) fn new(options: &ProxyOptions) -> Self {
        let (rounds, seconds) = (options.rounds, options.seconds);
        Self { rounds, seconds, versions: Vec::new(), missing: Vec::new(), cases: Vec::new() }
    }

    /// Notes which program takes part.
    pub(crate) fn version(&mut self, peer: Peer, program: &Path) {
        if let Some(version) = peer.version(program)
            && !self.versions.contains(&version)
        {
            self.versions.push(version);
        }
    }

    pub(crate) fn add(&mut self, case: &Case, peer: Peer, measured: Measured) {
        self.figures(case, peer).rounds.push(measured);
    }

    pub(crate) fn add_idle(&mut self, case: &Case, peer: Peer, idle: Idle) {
        self.figures(case, peer).idle.push(idle);
    }

    pub(crate) fn add_calls(&mut self, case: &Case, peer: Peer, calls: f64) {
        self.figures(case, peer).calls = Some(calls);
    }

    pub(crate) fn add_latency(&mut self, case: &Case, peer: Peer, rate: f64, latency: Latency) {
        self.figures(case, peer).latency.push(latency);
        if let Some(results) = self.results(case) {
            results.rate = rate;
        }
    }

    /// Requests that the slowest contender answered in a measurement.
    pub(crate) fn slowest(&mut self, case: &Case) -> Option<f64> {
        let peers = &self.results(case)?.peers;
        let medians = peers.values().map(|f| spread(f.rounds.iter().map(|m| m.requests as f64)).median);
        medians.min_by(f64::total_cmp)
    }

    fn results(&mut self, case: &Case) -> Option<&mut Results> {
        self.cases.iter_mut().find(|r| r.case.name == case.name)
    }

    fn figures(&mut self, case: &Case, peer: Peer) -> &mut Figures {
        let known = self.cases.iter().position(|r| r.case.name == case.name);
        let place = known.unwrap_or_else(|| {
            self.cases.push(Results { case: *case, peers: BTreeMap::new(), rate: 0.0 });
            self.cases.len() - 1
        });
        self.cases[place].peers.entry(peer).or_default()
    }

    /// Writes `proxy.json` and `proxy.md`.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("proxy.json"), serde_json::to_string_pretty(&self.json())?)?;
        std::fs::write(folder.join("proxy.md"), self.markdown())?;
        Ok(())
    }

    /// The tables.
    pub(crate) fn markdown(&self) -> String {
        table::all(self)
    }

    fn json(&self) -> Value {
        let peer = |(peer, figures): (&Peer, &Figures)| {
            let rounds: Vec<Value> = figures
                .rounds
                .iter()
                .map(|m| {
                    json!({"cpu_us": m.micros, "user": m.user, "requests": m.requests, "failed": m.failed,
                        "rss_kib": m.resident, "disturbed": m.disturbed})
                })
                .collect();
            let latency: Vec<Value> = figures
                .latency
                .iter()
                .map(|l| json!({"p50_us": l.p50, "p99_us": l.p99, "p999_us": l.p999, "failed": l.failed}))
                .collect();
            let idle: Vec<Value> =
                figures.idle.iter().map(|i| json!({"rss_before_kib": i.before, "bytes": i.bytes})).collect();
            json!({"peer": peer.name(), "rounds": rounds, "system_calls": figures.calls, "latency": latency, "idle": idle})
        };
        let case = |r: &Results| {
            json!({"case": r.case.name, "about": r.case.about, "latency_rate": r.rate,
                "peers": r.peers.iter().map(peer).collect::<Vec<_>>()})
        };
        json!({"rounds": self.rounds, "seconds": self.seconds, "versions": self.versions, "missing": self.missing,
            "cases": self.cases.iter().map(case).collect::<Vec<_>>()})
    }
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * sorted.len().saturating_sub(1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let value = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        value(below) + (value(above) - value(below)) * place.fract()
    };
    Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
}

/// The middle of a list of figures.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    spread(values).median
}

/// A ratio taken round by round; `None` for one too noisy to say anything.
pub(crate) struct Ratio {
    spread: Spread,
    noisy: bool,
}

impl Ratio {
    /// Of `own` to `other`; `disturbed` of the measurements were disturbed.
    pub(crate) fn new(own: impl Iterator<Item = f64>, other: impl Iterator<Item = f64>, disturbed: f64) -> Self {
        let spread = spread(own.zip(other).map(|(own, other)| own / other));
        Self { spread, noisy: (spread.high - spread.low) / spread.median > TOO_NOISY || disturbed > 0.25 }
    }

    fn of(own: &[Measured], other: &[Measured]) -> Self {
        let disturbed = own.iter().chain(other).filter(|m| m.disturbed).count() as f64;
        let micros = |list: &[Measured]| list.iter().map(|m| m.micros).collect::<Vec<_>>().into_iter();
        Self::new(micros(own), micros(other), disturbed / (own.len() + other.len()).max(1) as f64)
    }

    /// The figure, and whether it is within `limit`.
    pub(crate) fn verdict(&self, limit: Option<f64>) -> String {
        let Spread { low, median, high } = self.spread;
        match (self.noisy, limit.filter(|l| l.is_finite())) {
            (true, _) => format!("too noisy ({low:.2} to {high:.2})"),
            (false, None) => format!("**{median:.3}**"),
            (false, Some(limit)) => {
                let held = if median <= limit { "met" } else { "missed" };
                format!("**{median:.3}** (≤ {limit}: {held})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_values() {
        let s = spread([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!((s.low, s.median, s.high), (1.75, 2.5, 3.25));
        assert!(spread([].into_iter()).median.is_nan());
    }

    #[test]
    fn a_noisy_or_disturbed_ratio_gives_no_verdict() {
        let of = |micros, disturbed| Measured { micros, user: 0.5, requests: 1, failed: 0, resident: 1, disturbed };
        let own = [of(1.0, false); 3];
        assert_eq!(Ratio::of(&own, &[of(2.0, false); 3]).verdict(Some(0.4)), "**0.500** (≤ 0.4: missed)");
        assert_eq!(Ratio::of(&own, &[of(2.0, false); 3]).verdict(Some(0.5)), "**0.500** (≤ 0.5: met)");
        let spread = [of(1.0, false), of(2.0, false), of(3.0, false)];
        assert!(Ratio::of(&own, &spread).verdict(Some(9.0)).starts_with("too noisy"));
        assert!(Ratio::of(&own, &[of(2.0, true); 3]).verdict(None).starts_with("too noisy"));
    }
}
