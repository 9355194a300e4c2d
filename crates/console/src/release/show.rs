//! Releases as tables and trees.

use std::fmt::Write as _;

use serde_json::Value;

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |p| format!("{}%", (p * 10_000.0).round() / 10_000.0))
}

/// All of them, a line each.
pub(super) fn table(items: &[Value]) -> String {
    if items.is_empty() {
        return "no releases: save a document of kind Release in the pilot's folder\n".to_owned();
    }
    let mut rows = vec![
        ["NAMESPACE", "NAME", "HOST", "PHASE", "STEP", "CONFIGURED", "APPLIED", "OBSERVED", "REASON"]
            .map(str::to_owned),
    ];
    for item in items {
        let status = &item["status"];
        let steps = item["plan"]["steps"].as_array().map_or(0, Vec::len);
        rows.push([
            word(&item["metadata"], "namespace").to_owned(),
            word(&item["metadata"], "name").to_owned(),
            word(&item["plan"], "host").split('.').next().unwrap_or_default().to_owned(),
            phase(status),
            format!("{}/{steps}", status["step"].as_u64().unwrap_or_default() + 1),
            percent(&status["weights"]["configured"]),
            percent(&status["weights"]["applied"]),
            percent(&status["weights"]["observed"]),
            word(status, "reason").chars().take(80).collect(),
        ]);
    }
    columns(&rows)
}

/// Lines of the audit log: when, who, which release and what.
pub(super) fn log(lines: &[Value]) -> String {
    let row = |line: &Value| {
        let at = line["at"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(String::new, |at| format!("{at:.0}"));
        [at, word(line, "who").to_owned(), word(line, "release").to_owned(), word(line, "what").to_owned()]
    };
    columns(&lines.iter().map(row).collect::<Vec<_>>())
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column + 1 == N { write!(out, "{cell}") } else { write!(out, "{cell:<width$}   ") };
        }
        let kept = out.trim_end().len();
        out.truncate(kept);
        out.push('\n');
    }
    out
}

fn phase(status: &Value) -> String {
    let phase = word(status, "phase");
    match (&status["paused"], status["held"] == Value::Bool(true)) {
        (Value::String(_), _) => format!("{phase} (paused)"),
        (_, true) => format!("{phase} (held)"),
        _ => phase.to_owned(),
    }
}

/// One release: its versions, what the proxies have confirmed, and what the evidence says.
pub(super) fn tree(item: &Value, proxies: &Value) -> String {
    let (spec, status) = (&item["plan"], &item["status"]);
    let steps = spec["steps"].as_array().map_or(0, Vec::len);
    let mut out = String::new();
    let mut line = |name: &str, text: String| _ = writeln!(out, "{name:<13}{text}");
    line("Release", format!("{} in {}", word(&item["metadata"], "name"), word(&item["metadata"], "namespace")));
    line("Host", word(spec, "host").to_owned());
    line("Phase", format!("{} — {}", phase(status), word(status, "reason")));
    line("Step", format!("{} of {steps}", status["step"].as_u64().unwrap_or_default() + 1));
    let weights = &status["weights"];
    line(
        "Weights",
        format!(
            "configured {}   applied {}   observed {}",
            percent(&weights["configured"]),
            percent(&weights["applied"]),
            percent(&weights["observed"])
        ),
    );
    let judgement = &status["judgement"];
    let (evidence, needed) = (&judgement["lnEvidence"], &judgement["lnNeeded"]);
    if needed.as_f64().is_some_and(|n| n > 0.0) {
        let (e, n) = (evidence.as_f64().unwrap_or_default(), needed.as_f64().unwrap_or_default());
        line("Evidence", format!("for a rollback {:.2} of {:.0} {}", e.exp(), n.exp(), meter(e / n)));
    }
    if let Some(estimate) = judgement["estimate"].as_object() {
        let number = |key: &str| estimate.get(key).and_then(Value::as_f64).unwrap_or_default();
        let high = if number("high") >= 1e9 { "∞".to_owned() } else { format!("{:.2}", number("high")) };
        line("Failures", format!("{:.2} times the stable version's ({:.2} to {high})", number("ratio"), number("low")));
    }
    line("Verdict", format!("{} {}", word(&status["verdict"], "says"), word(&status["verdict"], "reason")));
    arms(spec, judgement, &mut out);
    for (name, query) in status["queries"].as_object().into_iter().flatten() {
        let value = query["value"].as_f64().map_or("no value".to_owned(), |v| v.to_string());
        let _ = writeln!(out, "├ query      {name}: {value} {}", query["problem"].as_str().unwrap_or_default());
    }
    confirmed(status, proxies, &mut out);
    let _ = writeln!(out, "└ steps");
    for (number, step) in spec["steps"].as_array().into_iter().flatten().enumerate() {
        let here = status["step"].as_u64() == Some(number as u64);
        let what = match (&step["weight"], &step["match"], &step["mirror"]) {
            (w @ Value::Number(_), ..) => percent(w),
            (_, Value::Number(cohorts), _) => format!("{cohorts} cohorts"),
            (.., m @ Value::Number(_)) => format!("mirror {}", percent(m)),
            _ => "wait".to_owned(),
        };
        let consent = if step["approval"] == Value::Bool(true) { ", then approval" } else { "" };
        let _ = writeln!(out, "  {} {what}{consent}", if here { "▶" } else { "·" });
    }
    out
}

fn meter(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * 20.0) as usize;
    format!("[{}{}]", "█".repeat(full), "·".repeat(20 - full))
}

fn arms(spec: &Value, judgement: &Value, out: &mut String) {
    let last = judgement["steps"].as_array().and_then(|s| s.last()).cloned().unwrap_or_default();
    for (name, mark) in [("stable", "├"), ("candidate", "├")] {
        let labels: Vec<String> = spec[name]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let counts = &last[name];
        let (requests, failed) = (counts[0].as_u64().unwrap_or(0), counts[1].as_u64().unwrap_or(0));
        let _ = writeln!(
            out,
            "{mark} {name:<10} {:<20} {requests} requests, {failed} failed in this step",
            labels.join(",")
        );
        if name == "candidate"
            && let Some(suspect) = judgement["suspect"].as_str()
        {
            let _ = writeln!(out, "│   most failures are of one instance: {suspect}");
        }
    }
}

fn confirmed(status: &Value, proxies: &Value, out: &mut String) {
    let (done, of) = (status["proxies"][0].as_u64().unwrap_or(0), status["proxies"][1].as_u64().unwrap_or(0));
    let connected = proxies.as_array().map_or(of as usize, Vec::len);
    let _ = writeln!(out, "├ proxies    {done} of {of} have confirmed ({connected} connected)");
    for late in status["laggards"].as_array().into_iter().flatten().take(8) {
        let _ = writeln!(out, "│   not yet: {}", late.as_str().unwrap_or_default());
    }
}
