//! Flagger's Canary.

use std::time::Duration;

use serde_json::Value;

use super::{Draft, Error, Import, Metric, StepDraft, filled, quoted, round, written};

/// Fields of a Canary that become something, or need nothing. All others are named.
const CANARY: [&str; 34] = [
    "apiVersion",
    "kind",
    "metadata",
    "status",
    "spec.targetRef",
    "spec.service.name",
    "spec.service.port",
    "spec.service.gateways",
    "spec.service.hosts",
    "spec.service.match",
    "spec.service.rewrite",
    "spec.service.timeout",
    "spec.service.retries",
    "spec.service.headers",
    "spec.service.corsPolicy",
    "spec.service.trafficPolicy",
    "spec.metricsServer",
    "spec.analysis.interval",
    "spec.analysis.iterations",
    "spec.analysis.maxWeight",
    "spec.analysis.stepWeight",
    "spec.analysis.stepWeights",
    "spec.analysis.match",
    "spec.analysis.metrics",
    "spec.analysis.webhooks",
    "spec.analysis.mirror",
    "spec.analysis.sessionAffinity",
    "spec.canaryAnalysis.interval",
    "spec.canaryAnalysis.maxWeight",
    "spec.canaryAnalysis.stepWeight",
    "spec.canaryAnalysis.stepWeights",
    "spec.canaryAnalysis.match",
    "spec.canaryAnalysis.metrics",
    "spec.canaryAnalysis.webhooks",
];

/// Flagger's: a step every interval.
pub(super) fn canary(document: &Value, all: &[Value]) -> Result<Import, Error> {
    let spec = &document["spec"];
    let analysis = if spec["analysis"].is_null() { &spec["canaryAnalysis"] } else { &spec["analysis"] };
    // Flagger takes no shorter ones.
    let interval = analysis["interval"].as_str().and_then(|text| serin_ingest::duration(text).ok());
    let interval = interval.unwrap_or(Duration::from_secs(60)).max(Duration::from_secs(10));
    let mut draft = Draft::default();
    if analysis["mirror"] == Value::Bool(true) {
        draft.strategy = Some("mirrorFirst");
    }
    // A/B tests and blue/green look that many times, at that interval.
    let times = analysis["iterations"].as_u64().and_then(|times| u32::try_from(times).ok());
    let look = interval.saturating_mul(times.unwrap_or(1).max(1));
    let matches = matches(&analysis["match"]);
    let most = analysis["maxWeight"].as_f64().unwrap_or(100.0).min(100.0);
    match (analysis["stepWeights"].as_array(), analysis["stepWeight"].as_f64()) {
        (Some(weights), _) => {
            let weights: Vec<f64> = weights.iter().filter_map(Value::as_f64).collect();
            if weights.windows(2).any(|pair| pair.first() >= pair.last()) {
                return Err(Error::FlatWeights);
            }
            let weights = weights.into_iter().filter(|w| *w < 100.0);
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
        draft.steps.insert(0, StepDraft::look(format!("match: {matches}"), Some(look)));
    }
    if draft.steps.is_empty() {
        if draft.strategy.replace("blueGreen").is_some() {
            draft.remark("analysis.mirror beside one switch");
        }
        draft.bake = Some(written(look));
    }
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        canary_metric(metric, document, all, &mut draft);
    }
    webhooks(&analysis["webhooks"], &mut draft);
    if let Some(cookie) = analysis["sessionAffinity"]["cookieName"].as_str() {
        let ttl = analysis["sessionAffinity"]["maxAge"].as_u64().map_or(String::new(), |age| format!(", ttl: {age}s"));
        draft.stickiness = Some(format!("{{cookie: {{name: {}{ttl}}}}}", quoted(cookie)));
    }
    let host = spec["service"]["name"].as_str().or(spec["targetRef"]["name"].as_str()).unwrap_or("change-me");
    routing(document, host, &mut draft);
    Ok(draft.finish(document, host, &CANARY))
}

/// A metric of a Canary: Flagger's own two are limits, others are queries.
fn canary_metric(metric: &Value, document: &Value, all: &[Value], draft: &mut Draft) {
    let range = &metric["thresholdRange"];
    let name = metric["name"].as_str().unwrap_or("?");
    // `threshold` is Flagger's older form: a minimum of successes, a maximum of everything else.
    let threshold = metric["threshold"].as_f64();
    let min = range["min"].as_f64().or(threshold.filter(|_| name == "request-success-rate"));
    let max = range["max"].as_f64().or(threshold.filter(|_| name != "request-success-rate"));
    let own = metric["templateRef"].is_null() && metric["query"].is_null();
    match (name, min, max) {
        ("request-success-rate", Some(min), _) if own => return draft.limit_errors(100.0 - min, name),
        ("request-duration", _, Some(max)) if own => {
            draft.latency = Some(draft.latency.map_or(max, |most| most.min(max)));
            return;
        }
        _ => {}
    }
    let reference = &metric["templateRef"]["name"];
    let template = all
        .iter()
        .find(|d| d["kind"] == "MetricTemplate" && !reference.is_null() && d["metadata"]["name"] == *reference);
    let (server, query) = match (template, metric["query"].as_str()) {
        (Some(template), _) => {
            let provider = &template["spec"]["provider"];
            if provider["type"].as_str().is_some_and(|kind| kind != "prometheus") {
                return draft
                    .remark(format!("metric '{name}': provider {}: only Prometheus is asked", provider["type"]));
            }
            (provider["address"].as_str(), template["spec"]["query"].as_str())
        }
        (None, Some(query)) => (document["spec"]["metricsServer"].as_str(), Some(query)),
        (None, None) => {
            return draft.remark(format!("metric '{name}': its MetricTemplate {reference} is not among the files"));
        }
    };
    let Some((server, query)) = server.zip(query) else {
        return draft.remark(format!("metric '{name}': the address of its server or its query is missing"));
    };
    let interval = metric["interval"].as_str().unwrap_or("1m");
    let target = document["spec"]["targetRef"]["name"].as_str().unwrap_or_default();
    let service = document["spec"]["service"]["name"].as_str().unwrap_or(target);
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
    let mut values = vec![("namespace", namespace), ("target", target), ("service", service), ("interval", interval)];
    let variables = metric["templateVariables"].as_object();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let named: Vec<(String, String)> =
        variables.into_iter().flatten().map(|(k, v)| (format!("variables.{k}"), plain(v))).collect();
    values.extend(named.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let (query, more) = (filled(query, &values), format!(", interval: {interval}"));
    draft.query(&Metric { name, server, query: &query, min, max, more: &more });
}

/// Writes the VirtualService that Flagger would make from the routes of `spec.service`.
fn routing(document: &Value, host: &str, draft: &mut Draft) {
    let service = &document["spec"]["service"];
    let fields = ["gateways", "hosts", "match", "rewrite", "timeout", "retries", "headers", "corsPolicy"];
    if !service["trafficPolicy"].is_null() {
        let rule = serde_json::json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": metadata(document, host),
            "spec": {"host": host, "trafficPolicy": service["trafficPolicy"]},
        });
        draft.more.push(format!("{rule}\n"));
    }
    if fields.iter().all(|field| service[*field].is_null()) {
        return;
    }
    let mut hosts: Vec<Value> = service["hosts"].as_array().cloned().unwrap_or_default();
    if !hosts.contains(&Value::from(host)) {
        hosts.push(Value::from(host));
    }
    let mut destination = serde_json::json!({"host": host});
    if let Some(port) = service["port"].as_u64() {
        destination["port"] = serde_json::json!({"number": port});
    }
    let mut route = serde_json::json!({"route": [{"destination": destination}]});
    for field in ["match", "rewrite", "timeout", "retries", "headers", "corsPolicy"] {
        if !service[field].is_null() {
            route[field] = service[field].clone();
        }
    }
    let mut spec = serde_json::json!({"hosts": hosts, "http": [route]});
    if !service["gateways"].is_null() {
        spec["gateways"] = service["gateways"].clone();
    }
    let rule = serde_json::json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(document, host),
        "spec": spec,
    });
    draft.more.push(format!("{rule}\n"));
}

fn metadata(document: &Value, name: &str) -> Value {
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
    serde_json::json!({"name": name, "namespace": namespace})
}

/// Flagger's gates and hooks.
fn webhooks(hooks: &Value, draft: &mut Draft) {
    for hook in hooks.as_array().into_iter().flatten() {
        let (kind, url) = (hook["type"].as_str().unwrap_or("rollout"), hook["url"].as_str().unwrap_or_default());
        let secure = url.starts_with("https://");
        let gate = |draft: &mut Draft| {
            draft.remark(format!(
                "the gate {kind} {url} is not asked: a person consents instead (serin release approve)"
            ));
        };
        let known = ["type", "url", "name", "timeout", "metadata", "muteAlert"];
        for field in hook.as_object().into_iter().flatten().map(|(key, _)| key).filter(|k| !known.contains(&k.as_str()))
        {
            draft.remark(format!("webhook {kind} {url}: {field}"));
        }
        match (kind, draft.steps.is_empty()) {
            ("pre-rollout" | "post-rollout" | "event", _) if secure => {
                draft.remark(format!("webhook of type {kind} to {url}: only http:// is supported"));
            }
            ("confirm-rollout", _) => {
                draft.manual = true;
                gate(draft);
            }
            ("confirm-promotion" | "confirm-traffic-increase", true) => {
                draft.approval = true;
                gate(draft);
            }
            ("confirm-promotion", false) => {
                draft.steps.last_mut().into_iter().for_each(|s| s.approval = true);
                gate(draft);
            }
            ("confirm-traffic-increase", false) => {
                draft.steps.iter_mut().for_each(|s| s.approval = true);
                gate(draft);
            }
            ("pre-rollout", false) => {
                let call = call(hook, url, draft);
                draft.steps.first_mut().into_iter().for_each(|s| s.before.push(call.clone()));
            }
            ("post-rollout", false) => {
                let call = call(hook, url, draft);
                draft.steps.last_mut().into_iter().for_each(|s| s.after.push(call.clone()));
            }
            ("event", _) => draft.alerts.push(url.to_owned()),
            (other, _) => draft.remark(format!("webhook of type {other} to {url}")),
        }
    }
}

/// A hook as a Release has it: with its time limit and what is sent with it.
fn call(hook: &Value, url: &str, draft: &mut Draft) -> String {
    let mut text = format!("{{http: {}", quoted(url));
    if let Some(timeout) = hook["timeout"].as_str() {
        match serin_ingest::duration(timeout) {
            Ok(limit) => text += &format!(", timeout: {}", written(limit)),
            Err(why) => draft.remark(format!("webhook {url}: its timeout: {why}")),
        }
    }
    let entries: Vec<String> = hook["metadata"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            format!(
                "{}: {}",
                quoted(key),
                quoted(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str())
            )
        })
        .collect();
    if !entries.is_empty() {
        text += &format!(", metadata: {{{}}}", entries.join(", "));
    }
    text + "}"
}

/// Istio's matches are Serin's.
fn matches(value: &Value) -> Option<String> {
    value.as_array().filter(|list| !list.is_empty()).map(|_| value.to_string())
}
