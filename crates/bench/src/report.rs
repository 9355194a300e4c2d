//! Medians, spreads and ratios, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::ProxyOptions;
use crate::case::Case;
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

/// All measurements.
pub(crate) struct Report {
    rounds: usize,
    seconds: u32,
    pub(crate) missing: Vec<String>,
    cases: Vec<(Case, BTreeMap<&'static str, Vec<Measured>>)>,
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
        Self { rounds: options.rounds, seconds: options.seconds, missing: Vec::new(), cases: Vec::new() }
    }

    pub(crate) fn add(&mut self, case: &Case, _round: usize, peer: Peer, measured: Measured) {
        if self.cases.last().is_none_or(|(last, _)| last.name != case.name) {
            self.cases.push((*case, BTreeMap::new()));
        }
        if let Some((_, peers)) = self.cases.last_mut() {
            peers.entry(peer.name()).or_default().push(measured);
        }
    }

    /// Writes `proxy.json` and `proxy.md`, and prints the latter.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("proxy.json"), serde_json::to_string_pretty(&self.json())?)?;
        let table = self.markdown();
        std::fs::write(folder.join("proxy.md"), &table)?;
        eprintln!("\n{table}");
        Ok(())
    }

    fn json(&self) -> Value {
        let case = |(case, peers): &(Case, BTreeMap<&'static str, Vec<Measured>>)| {
            let peer = |(name, list): (&&str, &Vec<Measured>)| {
                let each: Vec<Value> = list
                    .iter()
                    .map(|m| json!({"cpu_us": m.micros, "user": m.user, "requests": m.requests, "failed": m.failed, "rss_kib": m.resident, "disturbed": m.disturbed}))
                    .collect();
                json!({"peer": name, "rounds": each})
            };
            json!({"case": case.name, "about": case.about, "peers": peers.iter().map(peer).collect::<Vec<_>>()})
        };
        json!({"rounds": self.rounds, "seconds": self.seconds, "missing": self.missing, "cases": self.cases.iter().map(case).collect::<Vec<_>>()})
    }

    fn markdown(&self) -> String {
        let mut out = format!(
            "{} interleaved rounds of {} s. CPU µs per request: median (quartiles). Ratio: median of the ratios round by round.\n",
            self.rounds, self.seconds
        );
        for (case, peers) in &self.cases {
            // The formatting of a String cannot fail.
            let _ = writeln!(out, "\n### {} — {}\n", case.name, case.about);
            out.push_str("| contender | CPU µs/request | of it user | requests/s | RSS MiB | failed | Serin's ratio to it |\n|---|---|---|---|---|---|---|\n");
            let own = peers.get("serin").map(Vec::as_slice).unwrap_or_default();
            for (name, list) in peers {
                let _ = writeln!(out, "{}", self.row(name, list, own));
            }
        }
        for reason in &self.missing {
            let _ = writeln!(out, "\nNot measured: {reason}.");
        }
        out
    }

    fn row(&self, name: &str, list: &[Measured], own: &[Measured]) -> String {
        let cpu = spread(list.iter().map(|m| m.micros));
        let ratio = spread(own.iter().zip(list).map(|(own, other)| own.micros / other.micros));
        let disturbed = list.iter().chain(own).filter(|m| m.disturbed).count();
        let noisy = (ratio.high - ratio.low) / ratio.median > TOO_NOISY || disturbed * 4 > list.len() + own.len();
        let verdict = match (name, noisy) {
            ("serin", _) => String::new(),
            (_, true) => format!("too noisy ({:.2} to {:.2})", ratio.low, ratio.high),
            (_, false) => format!("**{:.3}**", ratio.median),
        };
        let median = |values: Vec<f64>| spread(values.into_iter()).median;
        format!(
            "| {name} | {:.2} ({:.2}–{:.2}) | {:.0} % | {:.0} | {:.1} | {} | {verdict} |",
            cpu.median,
            cpu.low,
            cpu.high,
            100.0 * median(list.iter().map(|m| m.user).collect()),
            median(list.iter().map(|m| m.requests as f64).collect()) / f64::from(self.seconds),
            median(list.iter().map(|m| m.resident as f64).collect()) / 1024.0,
            list.iter().map(|m| m.failed).sum::<u64>(),
        )
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
    fn a_noisy_ratio_gives_no_verdict() {
        let options = ProxyOptions {
            peers: Vec::new(),
            cases: Vec::new(),
            rounds: 3,
            seconds: 1,
            serin: "".into(),
            envoy: "".into(),
            output: "".into(),
        };
        let report = Report::new(&options);
        let of = |micros| Measured { micros, user: 0.5, requests: 1, failed: 0, resident: 1, disturbed: false };
        let own = [of(1.0), of(1.0), of(1.0)];
        assert!(report.row("x", &[of(2.0), of(2.0), of(2.0)], &own).contains("**0.500**"));
        assert!(report.row("x", &[of(1.0), of(2.0), of(3.0)], &own).contains("too noisy"));
    }
}
