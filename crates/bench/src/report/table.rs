//! The report as Markdown.

use std::fmt::Write as _;

use super::{Figures, Latency, Ratio, Report, Results, median, spread};
use crate::peer::Peer;

pub(super) fn all(report: &Report) -> String {
    let mut out = format!(
        "{} interleaved rounds of {} s. CPU µs per request: median (quartiles). Ratio: median of the ratios round by round.\n\n",
        report.rounds, report.seconds
    );
    for version in &report.versions {
        let _ = writeln!(out, "- {version}");
    }
    for results in &report.cases {
        // The formatting of a String cannot fail.
        let _ = writeln!(out, "\n## {} — {}\n", results.case.name, results.case.about);
        if results.peers.values().any(|f| !f.idle.is_empty()) {
            idle(&mut out, results);
            continue;
        }
        throughput(&mut out, results, report.seconds);
        beside(&mut out, results, report);
        latency(&mut out, results);
    }
    if !report.missing.is_empty() {
        out.push_str("\n## Not measured\n\n");
    }
    for reason in &report.missing {
        let _ = writeln!(out, "- {reason}");
    }
    out
}

fn throughput(out: &mut String, results: &Results, seconds: u32) {
    out.push_str(
        "| contender | CPU µs/request | user | system | requests/s | RSS MiB | system calls/request | failed | Serin's ratio to it |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let own = results.peers.get(&Peer::Serin).map(|f| f.rounds.as_slice()).unwrap_or_default();
    for (peer, Figures { rounds, calls, .. }) in &results.peers {
        let cpu = spread(rounds.iter().map(|m| m.micros));
        let user = median(rounds.iter().map(|m| m.user));
        let limit = results.case.limits.iter().find(|(name, _)| *name == peer.name()).map(|(_, limit)| *limit);
        let verdict = if *peer == Peer::Serin { String::new() } else { Ratio::of(own, rounds).verdict(limit) };
        let _ = writeln!(
            out,
            "| {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.2} | {:.0} | {:.1} | {} | {} | {verdict} |",
            peer.name(),
            cpu.median,
            cpu.low,
            cpu.high,
            cpu.median * user,
            cpu.median * (1.0 - user),
            median(rounds.iter().map(|m| m.requests as f64)) / f64::from(seconds),
            median(rounds.iter().map(|m| m.resident as f64)) / 1024.0,
            calls.map_or("–".to_owned(), |calls| format!("{calls:.2}")),
            rounds.iter().map(|m| m.failed).sum::<u64>(),
        );
    }
}

/// Each contender beside itself in the case that this one is compared with.
fn beside(out: &mut String, results: &Results, report: &Report) {
    let Some((name, limit)) = results.case.beside else { return };
    let Some(base) = report.cases.iter().find(|r| r.case.name == name) else { return };
    let _ = write!(out, "\nBeside {name}:");
    for (peer, figures) in &results.peers {
        let Some(before) = base.peers.get(peer) else { continue };
        let limit = (*peer == Peer::Serin).then_some(limit);
        let _ = write!(out, " {} {};", peer.name(), Ratio::of(&figures.rounds, &before.rounds).verdict(limit));
    }
    out.push('\n');
}

fn latency(out: &mut String, results: &Results) {
    if results.peers.values().all(|f| f.latency.is_empty()) {
        return;
    }
    let _ = writeln!(
        out,
        "\nLatency at {} requests/s, half of the slowest one's peak, open loop, in µs:\n\n\
         | contender | p50 | p99 (quartiles) | p99.9 | failed | Serin's p99 to it |\n|---|---|---|---|---|---|",
        results.rate
    );
    let p99 = |list: &[Latency]| list.iter().map(|l| l.p99).collect::<Vec<_>>().into_iter();
    let own = results.peers.get(&Peer::Serin).map(|f| f.latency.as_slice()).unwrap_or_default();
    for (peer, Figures { latency, .. }) in &results.peers {
        let spread = spread(p99(latency));
        let limit = (*peer == Peer::Haproxy).then_some(1.0);
        let ratio = Ratio::new(p99(own), p99(latency), 0.0);
        let _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} ({:.0}–{:.0}) | {:.0} | {} | {} |",
            peer.name(),
            median(latency.iter().map(|l| l.p50)),
            spread.median,
            spread.low,
            spread.high,
            median(latency.iter().map(|l| l.p999)),
            latency.iter().map(|l| l.failed).sum::<u64>(),
            if *peer == Peer::Serin { String::new() } else { ratio.verdict(limit) },
        );
    }
}

fn idle(out: &mut String, results: &Results) {
    out.push_str("| contender | bytes/connection (quartiles) | RSS MiB before |\n|---|---|---|\n");
    for (peer, Figures { idle, .. }) in &results.peers {
        let bytes = spread(idle.iter().map(|i| i.bytes));
        let before = median(idle.iter().map(|i| i.before as f64)) / 1024.0;
        let _ = writeln!(
            out,
            "| {} | {:.0} ({:.0}–{:.0}) | {before:.1} |",
            peer.name(),
            bytes.median,
            bytes.low,
            bytes.high
        );
    }
}
