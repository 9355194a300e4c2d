//! What is imported is read again: it must be a Release without fault.

use serin_model::{HashKey, Object, Release};

use super::*;

fn read(yaml: &str) -> (Release, Vec<String>) {
    let documents: Vec<Value> = yaml.split("---").map(|d| serde_saphyr::from_str(d).unwrap()).collect();
    let import = match documents[0]["kind"].as_str() {
        Some("Canary") => canary(&documents[0]),
        _ => rollout(&documents[0], &documents),
    };
    let parsed = serin_ingest::parse("imported.yaml", &import.text);
    assert!(parsed.diagnostics.is_empty(), "{:?}\n{}", parsed.diagnostics, import.text);
    match parsed.documents.first().map(|d| d.object.as_ref()) {
        Some(Object::Release(release)) => ((**release).clone(), import.remarks),
        _ => panic!("no release: {}", import.text),
    }
}

fn weights(release: &Release) -> Vec<f64> {
    release.steps.iter().filter_map(|s| s.weight).map(|w| w.percent()).collect()
}

#[test]
fn flaggers_canary() {
    let (release, remarks) = read(
        "{kind: Canary, metadata: {name: web}, spec: {targetRef: {name: web}, progressDeadlineSeconds: 60, analysis: {
            sessionAffinity: {cookieName: '@web', maxAge: 60}, interval: 20m, threshold: 5, maxWeight: 50, stepWeight: 0.1,
            metrics: [{name: request-success-rate, thresholdRange: {min: 99}},
                      {name: request-success-rate, thresholdRange: {min: 100}},
                      {name: request-duration, thresholdRange: {max: 500}}, {name: lag}],
            webhooks: [{type: confirm-rollout, url: 'http://a/'}, {type: confirm-promotion, url: 'http://a/'},
                       {type: confirm-traffic-increase, url: 'http://a/'}, {type: pre-rollout, url: 'http://a/\"'},
                       {type: pre-rollout, url: 'http://b/'}, {type: event, url: 'http://a/'},
                       {type: event, url: 'http://b/'}, {type: rollback, url: 'http://c/'}]}}}",
    );
    let key = HashKey::Cookie {
        name: "@web".to_owned(),
        path: "/".to_owned(),
        ttl: Some(Duration::from_secs(60)),
        attributes: Vec::new(),
    };
    assert_eq!(release.stickiness, Some(key));
    let found = weights(&release);
    assert_eq!((found.len(), found.first(), found.last()), (500, Some(&0.1), Some(&50.0)));
    let bake = release.steps[0].bake;
    assert_eq!((bake.min.as_secs(), bake.max.as_secs()), (1200, 2400));
    assert!(release.waits_for_start && release.steps.iter().all(|s| s.approval.is_some()));
    assert_eq!((release.steps[0].before.len(), release.alerts.len()), (2, 2));
    assert_eq!(release.analysis.error_rate, Some(0.01));
    assert_eq!(release.analysis.latency, Some((0.99, Duration::from_millis(500))));
    let about =
        ["'request-success-rate': a limit of 0 %", "'lag'", "rollback", "analysis.threshold", "progressDeadline"];
    assert_eq!(remarks.len(), about.len(), "{remarks:?}");
    assert!(about.iter().all(|a| remarks.iter().any(|r| r.contains(a))), "{remarks:?}");
}

#[test]
fn flaggers_tests_of_a_and_b_and_blue_green() {
    let (release, remarks) = read(
        "{kind: Canary, metadata: {name: web}, spec: {service: {name: web}, analysis: {interval: 30s, iterations: 10,
            match: [{headers: {x-user: {exact: me}}}]}}}",
    );
    assert_eq!((release.steps.len(), release.steps[0].bake.min.as_secs()), (1, 300));
    assert!(remarks.is_empty(), "{remarks:?}");
    let (release, _) = read(
        "{kind: Canary, metadata: {name: web}, spec: {service: {name: web}, analysis: {interval: 1m, iterations: 4,
            webhooks: [{type: confirm-promotion, url: 'http://a/'}]}}}",
    );
    assert_eq!((release.steps.len(), release.steps[0].bake.min.as_secs()), (1, 240));
    assert!(release.steps[0].approval.is_some());
}

#[test]
fn flaggers_edges() {
    let of = |analysis: &str| {
        let spec = format!("{{targetRef: {{name: web}}, analysis: {analysis}}}");
        let (release, remarks) = read(&format!("{{kind: Canary, metadata: {{name: '7'}}, spec: {spec}}}"));
        (weights(&release), release.steps.len(), remarks.len())
    };
    assert_eq!(of("{stepWeight: 100}"), (vec![], 1, 0));
    assert_eq!(of("{stepWeight: 60, maxWeight: 50}"), (vec![50.0], 1, 0));
    assert_eq!(of("{stepWeights: [], mirror: true}"), (vec![], 1, 1));
    let strict = "{stepWeights: [1, 100], metrics: [{name: request-success-rate, thresholdRange: {min: 99.99999}}]}";
    assert_eq!(of(strict), (vec![1.0], 1, 1));
}

#[test]
fn argos_rollout() {
    let (release, remarks) = read(
        "{kind: Rollout, metadata: {name: web}, spec: {strategy: {canary: {stableService: web, steps: [
            {pause: {}}, {setWeight: 5}, {pause: {duration: 2m}}, {pause: {duration: '90'}}, {pause: {}}, {pause: {}},
            {setMirrorRoute: {name: m}}, {analysis: {templates: [{templateName: t}]}}, {setWeight: 50}, {pause: {duration: 30}}, {setWeight: 100}]}}}}
---
{kind: AnalysisTemplate, metadata: {name: t}, spec: {metrics: [
    {name: success-rate, successCondition: 'result[0] >= 0.95'}, {name: cpu, successCondition: 'result < 1'}]}}",
    );
    assert_eq!(weights(&release), [5.0, 50.0]);
    let times: Vec<u64> = release.steps.iter().map(|s| s.bake.min.as_secs()).collect();
    assert_eq!(times, [210, 30]);
    assert!(release.steps[0].approval.is_some() && release.steps[1].approval.is_none() && release.waits_for_start);
    assert_eq!(release.analysis.error_rate, Some(0.05));
    assert_eq!(remarks.len(), 2, "{remarks:?}");
}
