//! Argo's Rollout.

use std::time::Duration;

use serde_json::Value;

use super::{Draft, Error, Import, Metric, StepDraft, filled, quoted, written};

/// Fields of a Rollout that become something, or need nothing because Serin deploys nothing. All others are named.
const ROLLOUT: [&str; 15] = [
    "apiVersion",
    "kind",
    "metadata",
    "status",
    "spec.replicas",
    "spec.selector",
    "spec.template",
    "spec.workloadRef",
    "spec.revisionHistoryLimit",
    "spec.strategy.canary.steps",
    "spec.strategy.canary.stableService",
    "spec.strategy.canary.canaryService",
    "spec.strategy.blueGreen.activeService",
    "spec.strategy.blueGreen.previewService",
    "spec.strategy.blueGreen.autoPromotionEnabled",
];

/// Argo's: its steps, with pauses as bakes or approvals.
pub(super) fn rollout(document: &Value, all: &[Value]) -> Result<Import, Error> {
    let strategy = &document["spec"]["strategy"];
    let mut draft = Draft::default();
    if strategy["blueGreen"].is_object() {
        draft.strategy = Some("blueGreen");
        draft.approval = strategy["blueGreen"]["autoPromotionEnabled"] == Value::Bool(false);
    }
    let canary = &strategy["canary"];
    let mut weight = 0.0;
    for step in canary["steps"].as_array().into_iter().flatten() {
        for (kind, value) in step.as_object().into_iter().flatten() {
            rollout_step(kind, value, &mut weight, &mut draft)?;
        }
    }
    // The end is everything by itself, unless something is waited for there.
    draft.steps.pop_if(|step| step.what == "weight: 100%" && step.least.is_none() && !step.approval);
    let used = templates(strategy);
    let is_template = |d: &&Value| d["kind"].as_str().is_some_and(|k| k.ends_with("AnalysisTemplate"));
    for template in all.iter().filter(is_template) {
        let name = template["metadata"]["name"].as_str().unwrap_or_default();
        if !used.is_empty() && !used.iter().any(|(known, _)| known == name) {
            continue;
        }
        let arguments: Vec<(String, String)> =
            used.iter().filter(|(known, _)| known == name).flat_map(|(_, values)| values.clone()).collect();
        for metric in template["spec"]["metrics"].as_array().into_iter().flatten() {
            rollout_metric(metric, template, &arguments, &mut draft);
        }
    }
    if draft.steps.is_empty() && draft.strategy.is_none() {
        draft.steps.push(StepDraft::weight(10.0, None));
        draft.remark("there were no steps: one of 10 % stands in");
    }
    let host = canary["stableService"].as_str().or(strategy["blueGreen"]["activeService"].as_str());
    let host = host.or(document["metadata"]["name"].as_str()).unwrap_or("change-me");
    Ok(draft.finish(document, host, &ROLLOUT))
}

fn rollout_step(kind: &str, value: &Value, before: &mut f64, draft: &mut Draft) -> Result<(), Error> {
    match kind {
        "pause" => pause(&value["duration"], draft),
        "setWeight" => {
            let weight = value.as_f64().unwrap_or(0.0);
            if weight < *before {
                return Err(Error::FallingWeight { from: *before, to: weight });
            }
            *before = weight;
            if weight > 0.0 && weight <= 100.0 {
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
        "analysis" => {
            draft.remark(format!("a step of analysis ({value}): failures and times are judged in every step; its queries, where they could be read, too"));
        }
        other => draft.remark(format!("step {other}: {value}")),
    }
    Ok(())
}

/// Names of the analysis templates that a strategy uses, with the arguments that it gives them.
fn templates(strategy: &Value) -> Vec<(String, Vec<(String, String)>)> {
    let canary = &strategy["canary"];
    let steps = canary["steps"].as_array().into_iter().flatten().map(|step| &step["analysis"]);
    let own = [
        &canary["analysis"],
        &strategy["blueGreen"]["prePromotionAnalysis"],
        &strategy["blueGreen"]["postPromotionAnalysis"],
    ];
    let mut found = Vec::new();
    for analysis in own.into_iter().chain(steps) {
        let value = |arg: &Value| Some((format!("args.{}", arg["name"].as_str()?), arg["value"].as_str()?.to_owned()));
        let values: Vec<_> = analysis["args"].as_array().into_iter().flatten().filter_map(value).collect();
        let names = analysis["templates"].as_array().into_iter().flatten().filter_map(|t| t["templateName"].as_str());
        found.extend(names.chain(analysis["templateName"].as_str()).map(|name| (name.to_owned(), values.clone())));
    }
    found
}

fn rollout_metric(metric: &Value, template: &Value, given: &[(String, String)], draft: &mut Draft) {
    let name = metric["name"].as_str().unwrap_or("?");
    let condition = metric["successCondition"].as_str().unwrap_or_default();
    let failure = metric["failureCondition"].as_str().unwrap_or_default();
    let provider = &metric["provider"]["prometheus"];
    if provider.is_object() {
        let defaults = template["spec"]["args"].as_array().into_iter().flatten();
        let defaults =
            defaults.filter_map(|a| Some((format!("args.{}", a["name"].as_str()?), a["value"].as_str()?.to_owned())));
        let all: Vec<(String, String)> = given.iter().cloned().chain(defaults).collect();
        let values: Vec<(&str, &str)> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let query = filled(provider["query"].as_str().unwrap_or_default(), &values);
        let server = filled(provider["address"].as_str().unwrap_or_default(), &values);
        let min = number_after(condition, ">").or(number_after(failure, "<"));
        let max = number_after(condition, "<").or(number_after(failure, ">"));
        let mut more = String::new();
        if let Some(Ok(interval)) = metric["interval"].as_str().map(serin_ingest::duration) {
            more += &format!(", interval: {}", written(interval.max(Duration::from_secs(1))));
        }
        if let Some(most) = metric["failureLimit"].as_u64() {
            more += &format!(", failures: {}", (most + 1).min(1000));
        }
        return draft.query(&Metric { name, server: &server, query: &query, min, max, more: &more });
    }
    match (name.contains("success"), number_after(condition, ">")) {
        (true, Some(least)) if least <= 1.0 => draft.limit_errors((1.0 - least) * 100.0, name),
        _ => {
            let providers: Vec<&String> =
                metric["provider"].as_object().into_iter().flatten().map(|(k, _)| k).collect();
            draft.remark(format!(
                "metric '{name}' ({condition}) of {providers:?}: Serin judges failures and times by itself"
            ));
        }
    }
}

/// Argo's pause, which belongs to the step before it.
fn pause(time: &Value, draft: &mut Draft) {
    // Numbers are seconds, as are texts without a unit.
    let text = match time {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        number => Some(number.to_string()),
    };
    let Some(step) = draft.steps.last_mut() else {
        draft.manual |= text.is_none();
        if let Some(text) = text {
            draft.remark(format!("a pause of {text} before the first step"));
        }
        return;
    };
    match text.map(|text| serin_ingest::duration(&text).map_err(|_| text)) {
        None => step.approval = true,
        Some(Err(text)) => draft.remark(format!("a pause of '{text}'")),
        // One after the other they add up.
        Some(Ok(time)) => step.least = Some(step.least.unwrap_or_default() + time),
    }
}

fn matches_argo(value: &Value) -> Option<String> {
    let one = |m: &Value| Some(format!("{{headers: {{{}: {}}}}}", quoted(m["headerName"].as_str()?), m["headerValue"]));
    let list: Vec<String> = value.as_array()?.iter().filter_map(one).collect();
    (!list.is_empty()).then(|| format!("[{}]", list.join(", ")))
}

fn number_after(text: &str, sign: &str) -> Option<f64> {
    let rest = text.split_once(sign)?.1.trim_start_matches('=').trim();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != 'e' && c != '-').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}
