//! `serin release import`: Flagger's Canary and Argo's Rollout as Releases, and what has no counterpart.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

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
    for document in &documents {
        let release = match (document["kind"].as_str(), document["apiVersion"].as_str()) {
            (Some("Canary"), _) => Some(canary(document)),
            (Some("Rollout"), _) => Some(rollout(document, &documents)),
            (Some("AnalysisTemplate" | "ClusterAnalysisTemplate"), _) => None,
            (kind, _) => {
                eprintln!("note: {} is not imported", kind.unwrap_or("a document without kind"));
                None
            }
        };
        if let Some(Import { text, remarks }) = release {
            if !out.is_empty() {
                out.push_str("---\n");
            }
            for remark in remarks {
                eprintln!("note: {}: {remark}", document["metadata"]["name"].as_str().unwrap_or("?"));
                let _ = writeln!(out, "# not imported: {}", remark.replace('\n', " "));
            }
            out.push_str(&text);
        }
    }
    super::print(&out)?;
    Ok(if out.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Import {
    text: String,
    remarks: Vec<String>,
}

/// A step that becomes one of a Release.
struct StepDraft {
    /// What it does, as a field.
    what: String,
    /// How long it lasts at least, as a duration; `None` where nobody said.
    least: Option<String>,
    /// Whether it ends then.
    fixed: bool,
    approval: bool,
    before: Vec<String>,
    after: Vec<String>,
}

impl StepDraft {
    fn weight(percent: f64, least: Option<&str>) -> Self {
        Self { fixed: false, ..Self::look(format!("weight: {percent}%"), least) }
    }

    /// A first look, which ends when its time is over.
    fn look(what: String, least: Option<&str>) -> Self {
        let (before, after, least) = (Vec::new(), Vec::new(), least.map(str::to_owned));
        Self { what, least, fixed: true, approval: false, before, after }
    }

    fn bake(&self) -> String {
        let text = self.least.as_deref().unwrap_or(AT_ONCE);
        let least = serin_ingest::duration(text).unwrap_or_default();
        match self.fixed {
            true => text.to_owned(),
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
            let hooks: Vec<String> = hooks.iter().map(|url| format!("{{http: {}}}", quoted(url))).collect();
            if !hooks.is_empty() {
                write!(f, ", {name}: [{}]", hooks.join(", "))?;
            }
        }
        f.write_str("}")
    }
}

/// What both kinds become.
#[derive(Default)]
struct Draft {
    steps: Vec<StepDraft>,
    /// In per cent.
    error_rate: Option<f64>,
    /// In milliseconds, of the 99th percentile.
    latency: Option<f64>,
    stickiness: Option<String>,
    strategy: Option<&'static str>,
    /// How long the one look of blue/green lasts, and whether somebody must consent then.
    bake: Option<String>,
    approval: bool,
    manual: bool,
    alerts: Vec<String>,
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

    fn finish(self, document: &Value, host: &str) -> Import {
        Import { text: self.write(document, host), remarks: self.remarks }
    }

    fn write(&self, document: &Value, host: &str) -> String {
        let name = document["metadata"]["name"].as_str().unwrap_or("release");
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
        let mut text = format!(
            "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  \
             host: {}\n  \
             stable: {{labels: {{version: CHANGE-ME-old}}}}     # labels of the instances that have the traffic\n  \
             candidate: {{labels: {{version: CHANGE-ME-new}}}}  # labels of those that are to have it\n",
            quoted(name),
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
        if !limits.is_empty() {
            line(format!("analysis:\n    limits: {{{}}}", limits.join(", ")));
        }
        text
    }
}

/// Flagger's: a step every interval.
fn canary(document: &Value) -> Import {
    let spec = &document["spec"];
    let analysis = &spec["analysis"];
    let interval = analysis["interval"].as_str().unwrap_or("1m");
    let mut draft = Draft::default();
    if analysis["mirror"] == Value::Bool(true) {
        draft.strategy = Some("mirrorFirst");
    }
    // A/B tests and blue/green look that many times, at that interval.
    let look = match (analysis["iterations"].as_u64(), serin_ingest::duration(interval)) {
        (Some(times), Ok(interval)) => format!("{}s", interval.as_secs().saturating_mul(times)),
        _ => interval.to_owned(),
    };
    let matches = matches(&analysis["match"]);
    let most = analysis["maxWeight"].as_f64().unwrap_or(100.0).min(100.0);
    match (analysis["stepWeights"].as_array(), analysis["stepWeight"].as_f64()) {
        (Some(weights), _) => {
            let weights = weights.iter().filter_map(Value::as_f64).filter(|w| *w < 100.0);
            draft.steps.extend(weights.map(|w| StepDraft::weight(w, Some(interval))));
        }
        (None, Some(step)) if step > 0.0 => {
            let step = step.min(most);
            let weights = (1..=1000).map(|n| step * f64::from(n)).take_while(|w| *w < most + 1e-9 && *w < 100.0);
            draft.steps.extend(weights.map(|w| StepDraft::weight(round(w), Some(interval))));
        }
        _ => {}
    }
    if let Some(matches) = matches {
        draft.steps.insert(0, StepDraft::look(format!("match: {matches}"), Some(&look)));
    }
    if draft.steps.is_empty() {
        if draft.strategy.replace("blueGreen").is_some() {
            draft.remark("analysis.mirror beside one switch");
        }
        draft.bake = Some(look);
    }
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        let range = &metric["thresholdRange"];
        match (metric["name"].as_str(), range["min"].as_f64(), range["max"].as_f64()) {
            (Some(name @ "request-success-rate"), Some(min), _) => draft.limit_errors(100.0 - min, name),
            (Some("request-duration"), _, Some(max)) if draft.latency.is_none_or(|most| max < most) => {
                draft.latency = Some(max);
            }
            (name, ..) => {
                let name = name.unwrap_or("?");
                draft.remark(format!("metric '{name}': other metrics than success rate and duration"));
            }
        }
    }
    webhooks(&analysis["webhooks"], &mut draft);
    if let Some(cookie) = analysis["sessionAffinity"]["cookieName"].as_str() {
        let ttl = analysis["sessionAffinity"]["maxAge"].as_u64().map_or(String::new(), |age| format!(", ttl: {age}s"));
        draft.stickiness = Some(format!("{{cookie: {{name: {}{ttl}}}}}", quoted(cookie)));
    }
    let known = [
        "interval",
        "iterations",
        "maxWeight",
        "stepWeight",
        "stepWeights",
        "match",
        "metrics",
        "webhooks",
        "mirror",
        "sessionAffinity",
    ];
    rest(analysis, &known, "analysis", &mut draft);
    rest(spec, &["analysis", "service", "targetRef"], "spec", &mut draft);
    let host = spec["service"]["name"].as_str().or(spec["targetRef"]["name"].as_str()).unwrap_or("CHANGE-ME");
    draft.finish(document, host)
}

/// Flagger's gates and hooks.
fn webhooks(hooks: &Value, draft: &mut Draft) {
    for hook in hooks.as_array().into_iter().flatten() {
        let (kind, url) = (hook["type"].as_str().unwrap_or("rollout"), hook["url"].as_str().unwrap_or_default());
        let url = url.to_owned();
        let secure = url.starts_with("https://");
        match (kind, draft.steps.is_empty()) {
            ("pre-rollout" | "post-rollout" | "event", _) if secure => {
                draft.remark(format!("webhook of type {kind} to {url}: only http:// is supported"));
            }
            ("confirm-rollout", _) => draft.manual = true,
            ("confirm-promotion" | "confirm-traffic-increase", true) => draft.approval = true,
            ("confirm-promotion", false) => draft.steps.last_mut().into_iter().for_each(|s| s.approval = true),
            ("confirm-traffic-increase", false) => draft.steps.iter_mut().for_each(|s| s.approval = true),
            ("pre-rollout", false) => draft.steps.first_mut().into_iter().for_each(|s| s.before.push(url.clone())),
            ("post-rollout", false) => draft.steps.last_mut().into_iter().for_each(|s| s.after.push(url.clone())),
            ("event", _) => draft.alerts.push(url),
            (other, _) => draft.remark(format!("webhook of type {other}")),
        }
    }
}

/// Argo's: its steps, with pauses as bakes or approvals.
fn rollout(document: &Value, all: &[Value]) -> Import {
    let strategy = &document["spec"]["strategy"];
    let mut draft = Draft::default();
    if strategy["blueGreen"].is_object() {
        draft.strategy = Some("blueGreen");
        draft.approval = strategy["blueGreen"]["autoPromotionEnabled"] == Value::Bool(false);
        rest(
            &strategy["blueGreen"],
            &["activeService", "previewService", "autoPromotionEnabled"],
            "blueGreen",
            &mut draft,
        );
    }
    let canary = &strategy["canary"];
    for step in canary["steps"].as_array().into_iter().flatten() {
        let Some((kind, value)) = step.as_object().and_then(|o| o.iter().next()) else { continue };
        if kind == "pause" {
            pause(&value["duration"], &mut draft);
            continue;
        }
        match kind.as_str() {
            "setWeight" => {
                let weight = value.as_f64().unwrap_or(0.0);
                if weight > 0.0 && weight < 100.0 {
                    draft.steps.push(StepDraft::weight(weight, None));
                }
            }
            "setHeaderRoute" => match matches_argo(&value["match"]) {
                Some(matches) => draft.steps.push(StepDraft::look(format!("match: {matches}"), None)),
                None => draft.remark("a setHeaderRoute that ends one: write match: [] into the step after it"),
            },
            // Without either it ends a mirror, which a step of Serin's does by itself.
            "setMirrorRoute" if value["match"].is_null() && value["percentage"].is_null() => {}
            "setMirrorRoute" => {
                if !value["match"].is_null() {
                    draft.remark("the match of a setMirrorRoute: all requests are mirrored alike");
                }
                let share = value["percentage"].as_f64().unwrap_or(100.0);
                draft.steps.push(StepDraft::look(format!("mirror: {share}%"), None));
            }
            "analysis" => draft.remark("a step of analysis: Serin judges in every step"),
            other => draft.remark(format!("step {other}")),
        }
    }
    for template in all.iter().filter(|d| d["kind"].as_str().is_some_and(|k| k.ends_with("AnalysisTemplate"))) {
        for metric in template["spec"]["metrics"].as_array().into_iter().flatten() {
            let (name, condition) =
                (metric["name"].as_str().unwrap_or("?"), metric["successCondition"].as_str().unwrap_or_default());
            match (name.contains("success"), number_after(condition, ">")) {
                (true, Some(least)) if least <= 1.0 => draft.limit_errors((1.0 - least) * 100.0, name),
                _ => draft.remark(format!("metric '{name}' ({condition}): Serin judges failures and times by itself")),
            }
        }
    }
    if draft.steps.is_empty() && draft.strategy.is_none() {
        draft.steps.push(StepDraft::weight(10.0, None));
        draft.remark("there were no steps: one of 10 % stands in");
    }
    rest(canary, &["steps", "canaryService", "stableService", "trafficRouting", "analysis"], "canary", &mut draft);
    let host = canary["stableService"].as_str().or(strategy["blueGreen"]["activeService"].as_str());
    let host = host.or(document["metadata"]["name"].as_str()).unwrap_or("CHANGE-ME");
    draft.finish(document, host)
}

/// How long a step lasts at least where Argo would go on at once.
const AT_ONCE: &str = "2m";

/// Argo's pause, which belongs to the step before it.
fn pause(time: &Value, draft: &mut Draft) {
    // Numbers are seconds, as are texts without a unit.
    let time = match time {
        Value::Null => None,
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => Some(format!("{text}s")),
        Value::String(text) => Some(text.clone()),
        number => Some(format!("{number}s")),
    };
    let Some(step) = draft.steps.last_mut() else {
        draft.manual |= time.is_none();
        if let Some(time) = time {
            draft.remark(format!("a pause of {time} before the first step"));
        }
        return;
    };
    match time {
        None => step.approval = true,
        Some(time) if serin_ingest::duration(&time).is_err() => draft.remark(format!("a pause of '{time}'")),
        // One after the other they add up, and so does what is written of them.
        Some(time) => step.least.get_or_insert_default().push_str(&time),
    }
}

/// Fields that nobody asked for.
fn rest(value: &Value, known: &[&str], path: &str, draft: &mut Draft) {
    for key in value.as_object().into_iter().flatten().map(|(key, _)| key).filter(|k| !known.contains(&k.as_str())) {
        draft.remark(format!("{path}.{key}"));
    }
}

/// Text as YAML and JSON quote it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Istio's matches are Serin's.
fn matches(value: &Value) -> Option<String> {
    value.as_array().filter(|list| !list.is_empty()).map(|_| value.to_string())
}

fn matches_argo(value: &Value) -> Option<String> {
    let one = |m: &Value| Some(format!("{{headers: {{{}: {}}}}}", quoted(m["headerName"].as_str()?), m["headerValue"]));
    let list: Vec<String> = value.as_array()?.iter().filter_map(one).collect();
    (!list.is_empty()).then(|| format!("[{}]", list.join(", ")))
}

fn number_after(text: &str, sign: &str) -> Option<f64> {
    text.split_once(sign)?.1.trim_start_matches('=').trim().parse().ok()
}

fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
#[path = "import/tests.rs"]
mod tests;
