//! `serin release import`: Flagger's Canary and Argo's Rollout as Releases, and what has no counterpart.

mod argo;
mod flagger;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use argo::rollout;
use flagger::canary;

use crate::error::Error;

/// Prints a Release for each Canary and Rollout; remarks go to standard error.
pub(super) fn run(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut documents = Vec::new();
    for file in files {
        let text = serin_folders::read_file(file)
            .text
            .map_err(|why| anyhow::anyhow!("cannot read {}: {why}", file.display()))?;
        for part in text.split("\n---") {
            let part = part.trim_start_matches('-');
            if part.trim().is_empty() {
                continue;
            }
            let value: Value = serde_saphyr::from_str(part).with_context(|| format!("{}: not YAML", file.display()))?;
            documents.push(value);
        }
    }
    let mut out = String::new();
    let mut refused = false;
    for document in &documents {
        let release = match (document["kind"].as_str(), document["apiVersion"].as_str()) {
            (Some("Canary"), _) => Some(canary(document, &documents)),
            (Some("Rollout"), _) => Some(rollout(document, &documents)),
            // They are read where a Canary or a Rollout names them.
            (Some("AnalysisTemplate" | "ClusterAnalysisTemplate" | "MetricTemplate"), _) => None,
            (kind, _) => {
                eprintln!("note: {} is not imported", kind.unwrap_or("a document without kind"));
                None
            }
        };
        let name = document["metadata"]["name"].as_str().unwrap_or("?");
        if let Some(Err(why)) = &release {
            eprintln!("error: {name}: {why}");
            refused = true;
        }
        if let Some(Ok(Import { text, remarks })) = release {
            if !out.is_empty() {
                out.push_str("---\n");
            }
            for remark in remarks {
                eprintln!("note: {name}: {remark}");
                let _ = writeln!(out, "# not imported: {}", remark.replace('\n', " "));
            }
            out.push_str(&text);
        }
    }
    super::print(&out)?;
    Ok(if out.is_empty() || refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Import {
    text: String,
    remarks: Vec<String>,
}

/// A step that becomes one of a Release.
struct StepDraft {
    /// The field that says what it does.
    what: String,
    /// The time that it lasts at least, as a duration; `None` where nobody said.
    least: Option<Duration>,
    /// True when it ends then.
    fixed: bool,
    approval: bool,
    /// Hooks, as they are written.
    before: Vec<String>,
    after: Vec<String>,
}

impl StepDraft {
    fn weight(percent: f64, least: Option<Duration>) -> Self {
        Self { fixed: false, ..Self::look(format!("weight: {percent}%"), least) }
    }

    /// A first look, which ends when its time is over.
    fn look(what: String, least: Option<Duration>) -> Self {
        let (before, after) = (Vec::new(), Vec::new());
        Self { what, least, fixed: true, approval: false, before, after }
    }

    fn bake(&self) -> String {
        let least = self.least.unwrap_or(AT_ONCE);
        let text = written(least);
        match self.fixed {
            true => text,
            // Half an hour for evidence to come, or as long again as the time that is asked for.
            false if least > Duration::from_secs(15 * 60) => format!("{{min: {text}, max: {}s}}", least.as_secs() * 2),
            false => format!("{{min: {text}, max: 30m}}"),
        }
    }
}

impl std::fmt::Display for StepDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{{}, bake: {}", self.what, self.bake())?;
        if self.approval {
            f.write_str(", approval: {}")?;
        }
        for (name, hooks) in [("before", &self.before), ("after", &self.after)] {
            if !hooks.is_empty() {
                write!(f, ", {name}: [{}]", hooks.join(", "))?;
            }
        }
        f.write_str("}")
    }
}

/// A metric that is a query of a Prometheus server.
struct Metric<'a> {
    name: &'a str,
    /// The URL of the server.
    server: &'a str,
    query: &'a str,
    min: Option<f64>,
    max: Option<f64>,
    /// Further fields of the Release's query, each with a comma before it.
    more: &'a str,
}

/// The common form of both kinds.
#[derive(Default)]
struct Draft {
    steps: Vec<StepDraft>,
    /// In per cent.
    error_rate: Option<f64>,
    /// In milliseconds, of the 99th percentile.
    latency: Option<f64>,
    stickiness: Option<String>,
    strategy: Option<&'static str>,
    /// The duration of the one look of blue/green. `approval` says that somebody must consent then.
    bake: Option<String>,
    approval: bool,
    manual: bool,
    alerts: Vec<String>,
    /// The server that queries are asked of, and they, as they are written.
    prometheus: Option<String>,
    queries: Vec<String>,
    /// Documents beside the Release.
    more: Vec<String>,
    remarks: Vec<String>,
}

impl Draft {
    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// Limits the failures, in per cent.
    fn limit_errors(&mut self, most: f64, metric: &str) {
        // A limit of none would be broken by the first failure, and one of all by nothing.
        let most = round(most);
        if !(most > 0.0 && most < 100.0) {
            self.remark(format!("metric '{metric}': a limit of {most} % of failures; set analysis.limits.errorRate"));
        } else if self.error_rate.is_some_and(|rate| rate <= most) {
            self.remark(format!("metric '{metric}': another one is as strict"));
        } else {
            self.error_rate = Some(most);
        }
    }

    /// Asks a Prometheus server for a value that must stay within limits.
    fn query(&mut self, metric: &Metric<'_>) {
        let Metric { name, server, query, min, max, more } = *metric;
        if !server.starts_with("http://") {
            return self.remark(format!("metric '{name}': its server '{server}': only http:// is supported"));
        }
        let server = server.trim_end_matches('/');
        if self.prometheus.as_deref().is_some_and(|other| other != server) {
            return self
                .remark(format!("metric '{name}': a second server, {server}; query it by a Release of its own"));
        }
        if query.contains("{{") {
            return self.remark(format!("metric '{name}': its query has placeholders that nothing fills in: {query}"));
        }
        if query.trim().is_empty() || (min.is_none() && max.is_none()) {
            return self.remark(format!("metric '{name}': without query and limit it decides nothing"));
        }
        self.prometheus = Some(server.to_owned());
        let limit = |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!(", {name}: {v}"));
        let (name, query) = (quoted(name), quoted(query.trim()));
        self.queries.push(format!("{{name: {name}, query: {query}{}{}{more}}}", limit("min", min), limit("max", max)));
    }

    fn finish(mut self, document: &Value, host: &str, handled: &[&str]) -> Import {
        leaves(document, "", &mut |path, value| {
            if !handled.iter().any(|known| is_below(path, known)) {
                let mut shown = value.to_string();
                if shown.len() > 120 {
                    shown = format!("{}…", shown.chars().take(120).collect::<String>());
                }
                self.remarks.push(format!("{path}: {shown}"));
            }
        });
        // What a Release cannot say is left out by name: whatever is imported is sound.
        for document in std::mem::take(&mut self.more) {
            match fault(&document) {
                None => self.more.push(document),
                Some(why) => self.remark(format!("{why}; write it yourself: {}", document.trim_end())),
            }
        }
        while let Some(why) = fault(&self.write(document, host)) {
            let unsound = |step: &StepDraft| {
                let alone = Self { steps: vec![StepDraft::look(step.what.clone(), None)], ..Self::default() };
                fault(&alone.write(document, host)).is_some()
            };
            let Some(place) = self.steps.iter().position(unsound) else { break };
            let step = self.steps.remove(place);
            self.remark(format!("a step with {}: {why}", step.what));
            if self.steps.is_empty() && self.strategy != Some("blueGreen") {
                self.steps.push(StepDraft::weight(10.0, None));
                self.remark("no step is left: one of 10 % stands in");
            }
        }
        Import { text: self.write(document, host), remarks: self.remarks }
    }

    fn write(&self, document: &Value, host: &str) -> String {
        let name = name_of(document);
        let host = if host.contains('$') { "change-me" } else { host };
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
        let mut text = format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  \
             host: {}\n  \
             stable: {{labels: {{version: CHANGE-ME-old}}}}     # labels of the instances that have the traffic\n  \
             candidate: {{labels: {{version: CHANGE-ME-new}}}}  # labels of those that are to have it\n",
            quoted(&name),
            quoted(namespace),
            quoted(host)
        );
        let mut line = |line: String| text.push_str(&format!("  {line}\n"));
        if let Some(strategy) = self.strategy {
            line(format!("strategy: {strategy}"));
        }
        if let Some(key) = &self.stickiness {
            line(format!("stickiness: {key}"));
        }
        if self.manual {
            line("start: manual".to_owned());
        }
        let one_switch = self.strategy == Some("blueGreen");
        if let Some(bake) = self.bake.as_ref().filter(|_| one_switch) {
            line(format!("bake: {bake}"));
        }
        if one_switch && self.approval {
            line("approval: {}".to_owned());
        }
        if !one_switch {
            line("steps:".to_owned());
            self.steps.iter().for_each(|step| line(format!("- {step}")));
        }
        if !self.alerts.is_empty() {
            let alerts: Vec<String> =
                self.alerts.iter().map(|url| format!("{{url: {}, format: cloudevents}}", quoted(url))).collect();
            line(format!("alerts: [{}]", alerts.join(", ")));
        }
        let errors = self.error_rate.map(|most| format!("errorRate: {most}%"));
        let times = self.latency.map(|most| format!("latency: {{quantile: 0.99, max: {most}ms}}"));
        let limits: Vec<String> = errors.into_iter().chain(times).collect();
        if !limits.is_empty() || !self.queries.is_empty() {
            line("analysis:".to_owned());
        }
        if !limits.is_empty() {
            line(format!("  limits: {{{}}}", limits.join(", ")));
        }
        if let Some(server) = self.prometheus.as_ref().filter(|_| !self.queries.is_empty()) {
            line(format!("  prometheus: {}", quoted(server)));
            line("  queries:".to_owned());
            self.queries.iter().for_each(|query| line(format!("  - {query}")));
        }
        for document in &self.more {
            text.push_str("---\n");
            text.push_str(document);
        }
        text
    }
}

/// A text with its placeholders `{{ name }}` replaced by values.
fn filled(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        match values.iter().find(|(known, _)| *known == name.trim()) {
            Some((_, value)) => out.push_str(value),
            None => out.push_str(&format!("{{{{{name}}}}}")),
        }
        rest = behind;
    }
    out + rest
}

/// The shortest time of a step where Argo would go on at once.
const AT_ONCE: Duration = Duration::from_secs(120);

/// The first error in a document that was written here.
fn fault(text: &str) -> Option<String> {
    let parsed = serin_ingest::parse("imported", text);
    let first = parsed.diagnostics.into_iter().find(|d| d.severity == serin_ingest::Severity::Error)?;
    Some(format!("{}: {}", first.path, first.message.lines().next().unwrap_or_default()))
}

/// The name that an object has, as one of Kubernetes must be: templates have placeholders there.
fn name_of(document: &Value) -> String {
    let given = document["metadata"]["name"].as_str().unwrap_or("release").to_ascii_lowercase();
    let letters = given.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' });
    let name = letters.collect::<String>();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "change-me".to_owned() } else { name.to_owned() }
}

/// Walks every value that is no object; lists count as one.
fn leaves(value: &Value, path: &str, seen: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, &path, seen);
            }
        }
        Value::Null => {}
        other => seen(path, other),
    }
}

/// True for the path itself and for every path below it.
fn is_below(path: &str, known: &str) -> bool {
    path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A duration as documents have it.
fn written(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// Text as YAML and JSON quote it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
#[path = "import/tests.rs"]
mod tests;
