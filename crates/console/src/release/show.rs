//! Releases as tables and trees.

use std::fmt::Write as _;

use serde_json::Value;
use serin_delivery::verdict::count;
use serin_delivery::{Phase, Verdict};

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |p| format!("{}%", (p * 10_000.0).round() / 10_000.0))
}

/// All of them, a line each.
pub(super) fn table(all: &Value) -> String {
    let items = all["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused: String = all["refused"].as_array().into_iter().flatten().map(refused).collect();
    if items.is_empty() && !refused.is_empty() {
        return refused;
    }
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
    columns(&rows) + &refused
}

/// A release that is not known because its document has errors.
fn refused(item: &Value) -> String {
    let (namespace, name) = (word(item, "namespace"), word(item, "name"));
    format!("{namespace}/{name} is not in force: its document has an error, {}\n", word(item, "fault"))
}

/// Lines of the audit log: when, who, which release and what.
pub(super) fn log(lines: &[Value]) -> String {
    let row = |line: &Value| {
        let at = line["at"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(String::new, |at| format!("{at:.0}"));
        [
            at,
            word(line, "who").to_owned(),
            word(line, "release").to_owned(),
            word(line, "what").split_whitespace().collect::<Vec<_>>().join(" "),
        ]
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

/// The style of the text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// With colours.
    pub(super) color: bool,
}

impl Look {
    /// Colours on a terminal, unless somebody asks for none.
    pub(super) fn of_stdout() -> Self {
        use std::io::IsTerminal as _;
        Self { color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const DIM: &str = "2";

/// The phase in words, with what holds it up.
pub(super) fn phase(status: &Value) -> String {
    let words = match serde_json::from_value::<Phase>(status["phase"].clone()) {
        Ok(phase) => phase.words().to_owned(),
        // A newer pilot may know more of them.
        Err(_) => word(status, "phase").to_owned(),
    };
    match (&status["paused"], status["held"] == Value::Bool(true)) {
        _ if matches!(word(status, "phase"), "promoted" | "rolledBack") => words,
        (Value::String(_), _) => format!("{words} (paused)"),
        (_, true) => format!("{words} (waits for a person)"),
        _ => words,
    }
}

fn painted_phase(status: &Value, look: Look) -> String {
    let text = phase(status);
    match word(status, "phase") {
        "promoted" => look.paint(&text, GREEN),
        "rolledBack" | "rollingBack" => look.paint(&text, RED),
        _ if text.contains('(') => look.paint(&text, YELLOW),
        _ => text,
    }
}

/// A time in seconds as people say it: `45s`, `3m20s`, `2h5m`, `3d4h`.
fn span(seconds: u64) -> String {
    let pair = |large: u64, unit: &str, small: u64, part: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{part}") }
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Seconds since a moment of the pilot's.
fn since(item: &Value, moment: &Value) -> Option<u64> {
    let moment = moment.as_u64().filter(|m| *m > 0)?;
    Some(item["now"].as_u64()?.saturating_sub(moment) / 1000)
}

/// The time that the step still bakes: until it may go on, and until its time is up.
fn remaining(item: &Value) -> Option<String> {
    let status = &item["status"];
    if word(status, "phase") != "baking" {
        return None;
    }
    let step = item["plan"]["steps"].get(status["step"].as_u64()? as usize)?;
    let elapsed = since(item, &status["since"])?;
    let left = |key: &str| Some((step["bake"][key].as_f64()? as u64).saturating_sub(elapsed));
    Some(match (left("min")?, left("max")?) {
        (0, 0) => "its time is up".to_owned(),
        (0, most) => format!("waits for evidence, {} at most", span(most)),
        (least, _) => format!("{} left", span(least)),
    })
}

/// One release: its versions, what the proxies have confirmed, and what the evidence says.
pub(super) fn tree(item: &Value, proxies: &Value, look: Look) -> String {
    let (spec, status) = (&item["plan"], &item["status"]);
    let count = spec["steps"].as_array().map_or(0, Vec::len);
    let mut out = String::new();
    let mut line = |name: &str, text: String| _ = writeln!(out, "{name:<13}{text}");
    line("Release", format!("{} in {}", word(&item["metadata"], "name"), word(&item["metadata"], "namespace")));
    line("Host", word(spec, "host").to_owned());
    let reason = word(status, "reason");
    let dash = if reason.is_empty() { "" } else { " — " };
    line("Phase", format!("{}{dash}{reason}", painted_phase(status, look)));
    let age =
        since(item, &status["started"]).map_or_else(|| "not begun".to_owned(), |s| format!("begun {} ago", span(s)));
    let here = since(item, &status["since"]).map_or_else(String::new, |s| format!(", in this phase for {}", span(s)));
    line("Age", format!("{age}{here}"));
    let left = remaining(item).map_or_else(String::new, |left| format!(" ({left})"));
    line("Step", format!("{} of {count}{left}", status["step"].as_u64().unwrap_or_default() + 1));
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
        line("Evidence", format!("for a rollback {} of {} {}", number(e.exp()), number(n.exp()), meter(e / n)));
    }
    line("Verdict", verdict(status));
    if let Some(since) = item["outdated"].as_u64() {
        let now = item["now"].as_u64().unwrap_or(since);
        let age = now.saturating_sub(since) / 1000;
        let fault = item["fault"].as_str().map_or_else(String::new, |fault| format!(" ({fault})"));
        line("Document", format!("has errors{fault}: the version from before is in force, for {age}s now"));
    }
    for note in status["notes"].as_array().into_iter().flatten() {
        line("Note", look.paint(note.as_str().unwrap_or_default(), YELLOW));
    }
    arms(item, judgement, &mut out);
    for (name, query) in status["queries"].as_object().into_iter().flatten() {
        let value = query["value"].as_f64().map_or("no value".to_owned(), |v| v.to_string());
        let _ = writeln!(out, "├ query      {name}: {value} {}", query["problem"].as_str().unwrap_or_default());
    }
    confirmed(status, proxies, look, &mut out);
    steps(spec, status, look, &mut out);
    out
}

/// Writes a line for each step, with its state.
fn steps(spec: &Value, status: &Value, look: Look, out: &mut String) {
    let _ = writeln!(out, "└ steps");
    let (at, phase) = (status["step"].as_u64().unwrap_or_default(), word(status, "phase"));
    for (place, step) in spec["steps"].as_array().into_iter().flatten().enumerate() {
        let what = match (&step["weight"], &step["match"], &step["mirror"]) {
            (w @ Value::Number(_), ..) => percent(w),
            (_, Value::Number(cohorts), _) => format!("{cohorts} cohorts"),
            (.., m @ Value::Number(_)) => format!("mirror {}", percent(m)),
            _ => "wait".to_owned(),
        };
        let consent = if step["approval"] == Value::Bool(true) { ", then approval" } else { "" };
        let ahead = matches!(phase, "promoting" | "guarding" | "promoted");
        let (mark, code) = match (place as u64).cmp(&at) {
            _ if phase == "pending" => ("·", DIM),
            _ if ahead => ("✓", GREEN),
            std::cmp::Ordering::Less => ("✓", GREEN),
            std::cmp::Ordering::Equal if matches!(phase, "rollingBack" | "rolledBack") => ("✗", RED),
            std::cmp::Ordering::Equal => ("▶", YELLOW),
            std::cmp::Ordering::Greater => ("·", DIM),
        };
        let _ = writeln!(out, "  {} {what}{consent}", look.paint(mark, code));
    }
}

/// The verdict of the evidence; a reason that stands with the phase is not said again.
fn verdict(status: &Value) -> String {
    let verdict = &status["verdict"];
    let words = match serde_json::from_value::<Verdict>(verdict.clone()) {
        Ok(verdict) => verdict.words().to_owned(),
        Err(_) => word(verdict, "says").to_owned(),
    };
    let (reason, said) = (word(verdict, "reason"), word(status, "reason"));
    if reason.is_empty() || said.contains(reason) { words } else { format!("{words}: {reason}") }
}

/// A number in few digits.
fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { count(value) }
}

fn meter(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * 20.0) as usize;
    format!("[{}{}]", "█".repeat(full), "·".repeat(20 - full))
}

fn arms(item: &Value, judgement: &Value, out: &mut String) {
    let spec = &item["plan"];
    let last = judgement["steps"].as_array().and_then(|s| s.last()).cloned().unwrap_or_default();
    for (name, mark) in [("stable", "├"), ("candidate", "├")] {
        let labels: Vec<String> = spec[name]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let counts = &last[name];
        let (requests, failed) = (counts["requests"].as_u64().unwrap_or(0), counts["failed"].as_u64().unwrap_or(0));
        let ready = match item["instances"][name].as_u64() {
            Some(1) => "1 instance ready, ".to_owned(),
            Some(n) => format!("{n} instances ready, "),
            None => String::new(),
        };
        let (requests, failed) = (count(requests as f64), count(failed as f64));
        let _ = writeln!(
            out,
            "{mark} {name:<10} {:<20} {ready}{failed} of {requests} requests failed in this step",
            labels.join(",")
        );
        if name == "candidate"
            && let Some(suspect) = judgement["suspect"].as_str()
        {
            let _ = writeln!(out, "│   most failures are of one instance: {suspect}");
        }
    }
}

fn confirmed(status: &Value, proxies: &Value, look: Look, out: &mut String) {
    let (done, of) = (status["proxies"]["done"].as_u64().unwrap_or(0), status["proxies"]["of"].as_u64().unwrap_or(0));
    let connected = proxies.as_array().map_or(of as usize, Vec::len);
    let _ = writeln!(out, "├ proxies    {done} of {of} have confirmed ({connected} connected)");
    for late in status["laggards"].as_array().into_iter().flatten().take(8) {
        let late = late.as_str().unwrap_or_default();
        let _ = writeln!(out, "│   {}", look.paint(&format!("not yet: {late}{}", stuck(late, proxies)), YELLOW));
    }
}

/// The resources that a proxy has not taken, where the pilot knows.
fn stuck(proxy: &str, proxies: &Value) -> String {
    let known = proxies.as_array().into_iter().flatten().find(|p| word(p, "proxy") == proxy);
    let types = known.and_then(|p| p["types"].as_array()).into_iter().flatten();
    let behind: Vec<String> = types
        .filter(|t| word(t, "state") != "SYNCED")
        .map(|t| {
            let name = word(t, "type").rsplit('.').next().unwrap_or_default().to_owned();
            let error = word(t, "error");
            if error.is_empty() { name } else { format!("{name} rejected: {error}") }
        })
        .collect();
    if behind.is_empty() { String::new() } else { format!(" ({})", behind.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(status: &Value) -> Value {
        json!({"metadata": {"name": "r", "namespace": "default"}, "now": 200_000, "instances": {"stable": 3, "candidate": 1},
            "plan": {"host": "a", "stable": {"labels": {"version": "v1"}}, "candidate": {"labels": {"version": "v2"}},
                "steps": [{"weight": 1.0, "bake": {"min": 10.0, "max": 20.0}}, {"weight": 5.0, "bake": {"min": 60.0, "max": 600.0}}]},
            "status": status})
    }

    #[test]
    fn a_release_is_shown_with_its_age_what_is_left_and_who_is_late() {
        let reason = "3 of 9 requests failed";
        let shown = item(&json!({"phase": "baking", "step": 1, "reason": reason, "since": 170_000, "started": 80_000,
            "verdict": {"says": "notEnough", "reason": reason}, "laggards": ["default/a"], "proxies": {"done": 1, "of": 2},
            "judgement": {"lnEvidence": 14.0, "lnNeeded": 4.6, "steps": []}, "notes": ["a note"]}));
        let proxies =
            json!([{"proxy": "default/a", "types": [{"type": "x.y.Cluster", "state": "NACKED", "error": "no"}]}]);
        let text = tree(&shown, &proxies, Look::default());
        for part in [
            "begun 2m ago, in this phase for 30s",
            "2 of 2 (30s left)",
            "not enough evidence\n",
            "Note         a note",
            "1 instance ready, 0 of 0 requests failed",
            "3 instances ready",
            "not yet: default/a (Cluster rejected: no)",
            "✓ 1%",
            "▶ 5%",
            "for a rollback 1,202,604 of 99",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert_eq!(text.matches(reason).count(), 1, "a reason stands once");
        assert!(!text.contains('\u{1b}'));
        assert!(tree(&shown, &proxies, Look { color: true }).contains("\u{1b}[33m"));
    }

    #[test]
    fn spans_are_short() {
        assert_eq!([5, 60, 200, 7_500, 360_000].map(span), ["5s", "1m", "3m20s", "2h5m", "4d4h"]);
    }
}
