//! `serin release import`: Flagger's Canary and Argo's Rollout as Releases, and what has no counterpart.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

/// Prints a Release for each Canary and Rollout; remarks go to standard error.
pub(super) fn run(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut documents = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
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
                let _ = writeln!(out, "# not imported: {remark}");
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

/// What both kinds become.
#[derive(Default)]
struct Draft {
    steps: Vec<String>,
    limits: Vec<String>,
    stickiness: Option<String>,
    strategy: Option<&'static str>,
    extra: Vec<String>,
}

fn write(document: &Value, host: &str, draft: &Draft) -> String {
    let name = document["metadata"]["name"].as_str().unwrap_or("release");
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
    let mut text = format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  host: {host}\n  \
         stable: {{labels: {{version: CHANGE-ME-old}}}}     # labels of the instances that have the traffic\n  \
         candidate: {{labels: {{version: CHANGE-ME-new}}}}  # labels of those that are to have it\n"
    );
    if let Some(strategy) = draft.strategy {
        let _ = writeln!(text, "  strategy: {strategy}");
    }
    if let Some(key) = &draft.stickiness {
        let _ = writeln!(text, "  stickiness: {key}");
    }
    draft.extra.iter().for_each(|line| _ = writeln!(text, "  {line}"));
    if draft.strategy != Some("blueGreen") {
        text.push_str("  steps:\n");
        draft.steps.iter().for_each(|step| _ = writeln!(text, "  - {{{step}}}"));
    }
    if !draft.limits.is_empty() {
        let _ = writeln!(text, "  analysis:\n    limits: {{{}}}", draft.limits.join(", "));
    }
    text
}

/// Flagger's: a step every interval.
fn canary(document: &Value) -> Import {
    let spec = &document["spec"];
    let analysis = &spec["analysis"];
    let interval = analysis["interval"].as_str().unwrap_or("1m");
    let mut draft = Draft::default();
    let mut remarks = Vec::new();
    let bake = format!("bake: {{min: {interval}, max: 30m}}");
    if analysis["mirror"] == Value::Bool(true) {
        draft.strategy = Some("mirrorFirst");
    }
    let matches = matches(&analysis["match"]);
    let most = analysis["maxWeight"].as_f64().unwrap_or(100.0);
    match (analysis["stepWeights"].as_array(), analysis["stepWeight"].as_f64()) {
        (Some(weights), _) => {
            draft.steps.extend(
                weights
                    .iter()
                    .filter_map(Value::as_f64)
                    .filter(|w| *w < 100.0)
                    .map(|w| format!("weight: {w}%, {bake}")),
            );
        }
        (None, Some(step)) if step > 0.0 => {
            let mut weight = step;
            while weight < most.min(100.0) + 1e-9 && weight < 100.0 {
                draft.steps.push(format!("weight: {weight}%, {bake}"));
                weight += step;
            }
        }
        _ if matches.is_some() => {}
        _ => draft.strategy = Some("blueGreen"),
    }
    if let Some(matches) = matches {
        draft.steps.insert(0, format!("match: {matches}, bake: {interval}"));
    }
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        let range = &metric["thresholdRange"];
        match (metric["name"].as_str(), range["min"].as_f64(), range["max"].as_f64()) {
            (Some("request-success-rate"), Some(min), _) => {
                draft.limits.push(format!("errorRate: {}%", round(100.0 - min)))
            }
            (Some("request-duration"), _, Some(max)) => {
                draft.limits.push(format!("latency: {{quantile: 0.99, max: {max}ms}}"))
            }
            (name, ..) => {
                remarks.push(format!("metric '{}': other metrics than success rate and duration", name.unwrap_or("?")))
            }
        }
    }
    webhooks(&analysis["webhooks"], &mut draft, &mut remarks);
    if let Some(cookie) = analysis["sessionAffinity"]["cookieName"].as_str() {
        draft.stickiness = Some(format!("{{cookie: {{name: {cookie}}}}}"));
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
    rest(analysis, &known, "analysis", &mut remarks);
    rest(spec, &["analysis", "service", "targetRef"], "spec", &mut remarks);
    let host = spec["service"]["name"].as_str().or(spec["targetRef"]["name"].as_str()).unwrap_or("CHANGE-ME");
    Import { text: write(document, host, &draft), remarks }
}

/// Flagger's gates and hooks.
fn webhooks(hooks: &Value, draft: &mut Draft, remarks: &mut Vec<String>) {
    for hook in hooks.as_array().into_iter().flatten() {
        let (kind, url) = (hook["type"].as_str().unwrap_or("rollout"), hook["url"].as_str().unwrap_or_default());
        match kind {
            "confirm-rollout" => draft.extra.push("start: manual".to_owned()),
            "confirm-promotion" | "confirm-traffic-increase" => {
                if let Some(last) = draft.steps.last_mut() {
                    last.push_str(", approval: {}");
                }
            }
            "pre-rollout" => {
                if let Some(first) = draft.steps.first_mut() {
                    let _ = write!(first, ", before: [{{http: \"{url}\"}}]");
                }
            }
            "post-rollout" => {
                if let Some(last) = draft.steps.last_mut() {
                    let _ = write!(last, ", after: [{{http: \"{url}\"}}]");
                }
            }
            "event" => draft.extra.push(format!("alerts: [{{url: \"{url}\", format: cloudevents}}]")),
            other => remarks.push(format!("webhook of type {other}")),
        }
    }
}

/// Argo's: its steps, with pauses as bakes or approvals.
fn rollout(document: &Value, all: &[Value]) -> Import {
    let strategy = &document["spec"]["strategy"];
    let mut draft = Draft::default();
    let mut remarks = Vec::new();
    if strategy["blueGreen"].is_object() {
        draft.strategy = Some("blueGreen");
        if strategy["blueGreen"]["autoPromotionEnabled"] == Value::Bool(false) {
            draft.extra.push("approval: {}".to_owned());
        }
        rest(
            &strategy["blueGreen"],
            &["activeService", "previewService", "autoPromotionEnabled"],
            "blueGreen",
            &mut remarks,
        );
    }
    let canary = &strategy["canary"];
    for step in canary["steps"].as_array().into_iter().flatten() {
        let Some((kind, value)) = step.as_object().and_then(|o| o.iter().next()) else { continue };
        match kind.as_str() {
            "setWeight" => {
                let weight = value.as_f64().unwrap_or(0.0);
                if weight > 0.0 && weight < 100.0 {
                    draft.steps.push(format!("weight: {weight}%, bake: {{min: 2m, max: 30m}}"));
                }
            }
            "pause" => match (draft.steps.last_mut(), &value["duration"]) {
                (Some(last), Value::Null) => last.push_str(", approval: {}"),
                (Some(last), time) => {
                    let time = time.as_str().map_or_else(|| format!("{time}s"), str::to_owned);
                    *last = last.replace("min: 2m", &format!("min: {time}"));
                }
                (None, _) => draft.extra.push("start: manual".to_owned()),
            },
            "setHeaderRoute" => match matches_argo(&value["match"]) {
                Some(matches) => draft.steps.push(format!("match: {matches}, bake: 2m")),
                None => remarks.push("a setHeaderRoute without match".to_owned()),
            },
            "setMirrorRoute" => {
                let share = value["percentage"].as_f64().unwrap_or(100.0);
                draft.steps.push(format!("mirror: {share}%, bake: 2m"));
            }
            "analysis" => {}
            other => remarks.push(format!("step {other}")),
        }
    }
    for template in all.iter().filter(|d| d["kind"].as_str().is_some_and(|k| k.ends_with("AnalysisTemplate"))) {
        for metric in template["spec"]["metrics"].as_array().into_iter().flatten() {
            let (name, condition) =
                (metric["name"].as_str().unwrap_or("?"), metric["successCondition"].as_str().unwrap_or_default());
            match (name.contains("success"), number_after(condition, ">")) {
                (true, Some(least)) if least <= 1.0 => {
                    draft.limits.push(format!("errorRate: {}%", round((1.0 - least) * 100.0)))
                }
                _ => remarks.push(format!("metric '{name}' ({condition}): Serin judges failures and times by itself")),
            }
        }
    }
    if draft.steps.is_empty() && draft.strategy.is_none() {
        draft.steps.push("weight: 10%, bake: {min: 2m, max: 30m}".to_owned());
        remarks.push("there were no steps: one of 10 % stands in".to_owned());
    }
    rest(canary, &["steps", "canaryService", "stableService", "trafficRouting", "analysis"], "canary", &mut remarks);
    let host = canary["stableService"].as_str().or(strategy["blueGreen"]["activeService"].as_str());
    let host = host.or(document["metadata"]["name"].as_str()).unwrap_or("CHANGE-ME");
    Import { text: write(document, host, &draft), remarks }
}

/// Fields that nobody asked for.
fn rest(value: &Value, known: &[&str], path: &str, remarks: &mut Vec<String>) {
    for key in value.as_object().into_iter().flatten().map(|(key, _)| key).filter(|k| !known.contains(&k.as_str())) {
        remarks.push(format!("{path}.{key}"));
    }
}

/// Istio's matches are Serin's.
fn matches(value: &Value) -> Option<String> {
    value.as_array().filter(|list| !list.is_empty()).map(|_| value.to_string())
}

fn matches_argo(value: &Value) -> Option<String> {
    let one = |m: &Value| Some(format!("{{headers: {{{}: {}}}}}", m["headerName"].as_str()?, m["headerValue"]));
    let list: Vec<String> = value.as_array()?.iter().filter_map(one).collect();
    (!list.is_empty()).then(|| format!("[{}]", list.join(", ")))
}

fn number_after(text: &str, sign: &str) -> Option<f64> {
    text.split_once(sign)?.1.trim_start_matches('=').trim().parse().ok()
}

fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}
