//! What a browser sees of releases, and what Prometheus does.

use std::fmt::Write as _;

use serin_delivery::Phase;
use serin_model::ObjectName;

use super::{Ends, Entry, now};

/// The page; it asks the API every second and draws what it says. It loads nothing from elsewhere.
pub(super) const PAGE: &str = include_str!("page.html");

/// What the page may load: itself.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Lines of a family: labels and a value.
type Lines = Vec<(String, f64)>;

/// Releases in Prometheus's text format.
pub(super) fn metrics(entries: &[Entry], ends: &Ends, refused: u64) -> String {
    let each = |value: &dyn Fn(&Entry) -> f64| -> Lines { entries.iter().map(|e| (labels(e), value(e))).collect() };
    let phases = entries.iter().map(|e| (format!("{},phase=\"{}\"", labels(e), word(&e.status.phase)), 1.0));
    let weights = entries.iter().flat_map(|e| {
        let w = e.status.weights;
        let all = [("configured", Some(w.configured)), ("applied", Some(w.applied)), ("observed", w.observed)];
        let line = move |(kind, value): (&str, Option<f64>)| Some((format!("{},weight=\"{kind}\"", labels(e)), value?));
        all.into_iter().filter_map(line)
    });
    let duration = |e: &Entry| {
        let until = if e.status.phase.is_final() { e.status.since } else { now() };
        if e.status.phase == Phase::Pending || e.status.started == 0 {
            0.0
        } else {
            until.saturating_sub(e.status.started) as f64 / 1000.0
        }
    };
    let flag = |on: bool| f64::from(u8::from(on));
    let families: [(&str, &str, Lines); 9] = [
        ("phase", "The phase a release is in.", phases.collect()),
        ("step", "The step a release is at, from 1.", each(&|e| e.status.step as f64 + 1.0)),
        ("weight_percent", "The candidate's share of the traffic.", weights.collect()),
        (
            "evidence",
            "Evidence for a rollback; 1 over alpha is enough.",
            each(&|e| e.status.judgement.ln_evidence.exp()),
        ),
        ("paused", "Whether somebody paused it.", each(&|e| flag(e.status.paused.is_some()))),
        ("held", "Whether it waits for a person.", each(&|e| flag(e.status.held))),
        ("duration_seconds", "How long it has been under way, or was.", each(&duration)),
        ("rollback_info", "Why releases went back last.", rollbacks(ends)),
        ("ended_total", "Releases that ended, or were left to a person, since this pilot began.", ended(ends)),
    ];
    let mut out = String::new();
    for (name, help, lines) in families {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(out, "# HELP serin_release_{name} {help}\n# TYPE serin_release_{name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "serin_release_{name}{{{labels}}} {value}");
        }
    }
    let name = "serin_pilot_load_reports_refused_total";
    let help = "Load reports that name a proxy which does not take its configuration over the same connection.";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {refused}");
    out
}

fn labels(entry: &Entry) -> String {
    let name = &entry.spec.name;
    format!("namespace=\"{}\",release=\"{}\",host=\"{}\"", name.namespace, name.name, entry.spec.host)
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::json!(value).as_str().unwrap_or_default().to_owned()
}

fn ended(ends: &Ends) -> Lines {
    let of = |outcome| (format!("outcome=\"{outcome}\""), ends.counts.get(outcome).copied().unwrap_or(0) as f64);
    ["promoted", "rolledBack", "held"].map(of).into()
}

fn rollbacks(ends: &Ends) -> Lines {
    let line = |(name, reason): (&ObjectName, &String)| {
        let plain = |c: char| if matches!(c, '"' | '\\' | '\n') { '\'' } else { c };
        let reason: String = reason.chars().take(120).map(plain).collect();
        (format!("namespace=\"{}\",release=\"{}\",reason=\"{reason}\"", name.namespace, name.name), 1.0)
    };
    ends.rollbacks.iter().map(line).collect()
}
