//! Whether two proxies did the same: exactly, or by shares where chance decides.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::case::{Ask, Case, Fields};
use super::observe::{Observed, Seen};

/// What a case expects: status and backends of every request.
pub fn with_expectation(case: &Case, who: &str, observed: &Observed) -> Result<(), String> {
    match (&observed.refusal, case.is("refused")) {
        (Some(_), true) => return Ok(()),
        (Some(refusal), false) => return Err(format!("{who} refuses the bootstrap: {refusal}")),
        (None, true) => return Err(format!("{who} accepts the bootstrap")),
        (None, false) => {}
    }
    for (ask, seen) in case.requests().iter().zip(&observed.seen) {
        let Some(expected) = &ask.expected else { continue };
        if let Some(other) = seen.iter().find(|s| s.outcome() != *expected) {
            return Err(format!(
                "{who}: {} {} {:?} -> {}, expected {expected}\n{other:?}",
                ask.method,
                ask.path,
                ask.headers,
                other.outcome()
            ));
        }
        for one in seen {
            let here = format!("{who}: {} {} {:?}", ask.method, ask.path, ask.headers);
            with_fields(&format!("{here}: answer"), &ask.answered, &one.headers)?;
            let last = one.tries.last().map(|t| t.headers.as_slice()).unwrap_or_default();
            with_fields(&format!("{here}: upstream"), &ask.upstream, last)?;
        }
    }
    for ((name, expected), (_, value)) in case.stats().iter().zip(&observed.stats) {
        if expected.is_some_and(|expected| expected != *value) {
            return Err(format!("{who}: {name} is {value}, expected {}", expected.unwrap_or_default()));
        }
    }
    Ok(())
}

fn with_fields(here: &str, expected: &Fields, seen: &[(String, String)]) -> Result<(), String> {
    for (name, wanted) in expected {
        let values: Vec<&str> = seen.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        if values != wanted.as_deref().into_iter().collect::<Vec<_>>() {
            return Err(format!("{here}: {name}: {values:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

pub fn with_each_other(case: &Case, serin: &Observed, envoy: &Observed) -> Result<(), String> {
    let mut differences = String::new();
    for ((ask, ours), theirs) in case.requests().iter().zip(&serin.seen).zip(&envoy.seen) {
        let here = format!("{} {} {:?}", ask.method, ask.path, ask.headers);
        if ask.times > 1 && !ask.exact {
            by_shares(&here, ours, theirs, &mut differences);
            continue;
        }
        for (one, other) in ours.iter().zip(theirs) {
            exactly(&here, one, other, &mut differences);
            if !differences.is_empty() {
                break;
            }
        }
    }
    let once = case.requests().into_iter().filter(Ask::is_asked_again);
    for ((ask, ours), theirs) in once.zip(&serin.over_h2).zip(&envoy.over_h2) {
        let here = format!("over HTTP/2: {} {} {:?}", ask.method, ask.path, ask.headers);
        exactly(&here, ours, theirs, &mut differences);
    }
    for ((name, ours), (_, theirs)) in serin.stats.iter().zip(&envoy.stats) {
        if ours != theirs {
            let _ = writeln!(differences, "{name}: Serin {ours}, Envoy {theirs}");
        }
    }
    if serin.log != envoy.log {
        let both = (0..serin.log.len().max(envoy.log.len())).map(|n| (serin.log.get(n), envoy.log.get(n)));
        for (ours, theirs) in both.filter(|(a, b)| a != b) {
            let _ = writeln!(differences, "log: Serin {ours:?}\n     Envoy {theirs:?}");
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

fn exactly(here: &str, ours: &Seen, theirs: &Seen, out: &mut String) {
    if ours.outcome() != theirs.outcome() {
        let _ = writeln!(out, "{here}: Serin {}, Envoy {}", ours.outcome(), theirs.outcome());
        return;
    }
    lists(&format!("{here}: answer"), &ours.headers, &theirs.headers, out);
    if ours.body != theirs.body {
        let _ = writeln!(out, "{here}: body: Serin {:?}, Envoy {:?}", ours.body, theirs.body);
    }
    for (one, other) in ours.tries.iter().zip(&theirs.tries) {
        if one.line != other.line {
            let _ = writeln!(out, "{here}: upstream: Serin '{}', Envoy '{}'", one.line, other.line);
        }
        lists(&format!("{here}: upstream"), &one.headers, &other.headers, out);
        if one.body != other.body {
            let _ = writeln!(out, "{here}: upstream body: Serin {:?}, Envoy {:?}", one.body, other.body);
        }
    }
}

fn lists(here: &str, ours: &[(String, String)], theirs: &[(String, String)], out: &mut String) {
    for (name, value) in ours.iter().filter(|h| !theirs.contains(h)) {
        let _ = writeln!(out, "{here}: only Serin has {name}: {value}");
    }
    for (name, value) in theirs.iter().filter(|h| !ours.contains(h)) {
        let _ = writeln!(out, "{here}: only Envoy has {name}: {value}");
    }
    if ours.len() != theirs.len() {
        let _ = writeln!(out, "{here}: {} fields, Envoy {}", ours.len(), theirs.len());
    }
}

/// A chi-square test that both drew from the same distribution; refuses at about one in a million.
fn by_shares(here: &str, ours: &[Seen], theirs: &[Seen], out: &mut String) {
    let mut counts: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    for (side, seen) in [ours, theirs].into_iter().enumerate() {
        for one in seen {
            counts.entry(one.outcome()).or_default()[side] += 1.0;
        }
    }
    let total = [ours.len() as f64, theirs.len() as f64];
    let all = total[0] + total[1];
    let statistic: f64 = counts
        .values()
        .map(|pair| {
            let row = pair[0] + pair[1];
            (0..2).map(|side| (pair[side] - row * total[side] / all).powi(2) / (row * total[side] / all)).sum::<f64>()
        })
        .sum();
    let freedom = (counts.len() as f64 - 1.0).max(1.0);
    // Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal; 4.9 deviations.
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 4.9 * spread.sqrt()).powi(3);
    if statistic > limit {
        let _ = writeln!(out, "{here}: shares differ (chi-square {statistic:.1}, limit {limit:.1}): {counts:?}");
    }
}
