//! The result of an import is read again: it must be a Release without fault.

use serin_model::{HashKey, Object, Release};

use super::*;

fn read(yaml: &str) -> (Release, Vec<String>) {
    let documents: Vec<Value> = yaml.split("---").map(|d| serde_saphyr::from_str(d).unwrap()).collect();
    let import = match documents[0]["kind"].as_str() {
        Some("Canary") => canary(&documents[0], &documents),
        _ => rollout(&documents[0], &documents),
    }
    .unwrap();
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
    let about = [
        "'request-success-rate': a limit of 0 %",
        "'lag'",
        "rollback",
        "analysis.threshold",
        "progressDeadline",
        "gate confirm-rollout http://a/",
        "gate confirm-promotion http://a/",
        "gate confirm-traffic-increase http://a/",
    ];
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

/// C7: what a service says of routes, what webhooks carry, and what metrics ask is imported.
#[test]
fn flaggers_routes_webhooks_and_metrics() {
    let documents: Vec<Value> = [
        "{kind: Canary, metadata: {name: web, namespace: shop}, spec: {targetRef: {name: web}, service: {port: 80, portDiscovery: true,
            gateways: [public], hosts: [web.example.com], timeout: 5s, retries: {attempts: 3, perTryTimeout: 1s, retryOn: 5xx},
            match: [{uri: {prefix: /a}}], headers: {request: {add: {x-a: b}}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}},
          analysis: {interval: 30s, threshold: 5, stepWeights: [10, 40],
            metrics: [{name: p, templateRef: {name: p}, thresholdRange: {max: 1}, interval: 1m, templateVariables: {x: z}},
                      {name: other, templateRef: {name: nowhere}, thresholdRange: {max: 1}}],
            webhooks: [{type: pre-rollout, url: 'http://a/', timeout: 15s, metadata: {type: bash, cmd: 'a b'}}]}}}",
        "{kind: MetricTemplate, metadata: {name: p}, spec: {provider: {type: prometheus, address: 'http://p:9090'},
          query: 'sum(rate(a{ns=\"{{ namespace }}\",x=\"{{ variables.x }}\"}[{{ interval }}]))'}}",
    ]
    .iter()
    .map(|text| serde_saphyr::from_str(text).unwrap())
    .collect();
    let import = canary(&documents[0], &documents).unwrap();
    let parsed = serin_ingest::parse("imported.yaml", &import.text);
    assert!(
        !parsed.diagnostics.iter().any(|d| d.severity == serin_ingest::Severity::Error),
        "{:?}",
        parsed.diagnostics
    );
    let kinds: Vec<String> = parsed.documents.iter().map(|d| d.key.kind.to_string()).collect();
    assert_eq!(kinds, ["Release", "DestinationRule", "VirtualService"]);
    let Object::Release(release) = parsed.documents[0].object.as_ref() else { panic!() };
    let hook = &release.steps[0].before[0];
    assert_eq!((hook.timeout.as_secs(), hook.metadata["cmd"].as_str()), (15, "a b"));
    let query = &release.analysis.queries[0];
    assert_eq!(query.expression, "sum(rate(a{ns=\"shop\",x=\"z\"}[1m]))");
    assert_eq!((query.server.as_str(), query.max, query.interval.as_secs()), ("http://p:9090", Some(1.0), 60));
    for about in ["nowhere", "spec.service.portDiscovery: true", "spec.analysis.threshold: 5"] {
        assert!(import.remarks.iter().any(|r| r.contains(about)), "{about}: {:?}", import.remarks);
    }
    assert_eq!(import.remarks.len(), 3, "{:?}", import.remarks);
}

/// C7: pauses fold into their step, falling weights are refused, everything else is named.
#[test]
fn argos_pauses_weights_and_everything_else() {
    let (release, remarks) = read(
        "{kind: Rollout, metadata: {name: web}, spec: {rollbackWindow: {revisions: 3}, progressDeadlineAbort: true, strategy: {canary: {
            antiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}, analysis: {templates: [{templateName: t}], startingStep: 2},
            steps: [{setWeight: 20}, {pause: {duration: 30s}}, {pause: {duration: 10}}, {setWeight: 60}, {pause: {duration: 30s}},
                    {pause: {}}, {setWeight: 100}, {pause: {duration: 1m}}]}}}}---
         {kind: AnalysisTemplate, metadata: {name: t}, spec: {metrics: [{name: e, interval: 20s, failureLimit: 2,
            successCondition: 'result[0] >= 0.95', provider: {prometheus: {address: 'http://p:9090', query: up}}}]}}",
    );
    assert_eq!(weights(&release), [20.0, 60.0, 100.0]);
    let bakes: Vec<u64> = release.steps.iter().map(|s| s.bake.min.as_secs()).collect();
    assert_eq!(bakes, [40, 30, 60]);
    let approvals: Vec<bool> = release.steps.iter().map(|s| s.approval.is_some()).collect();
    assert_eq!(approvals, [false, true, false]);
    let query = &release.analysis.queries[0];
    assert_eq!((query.min, query.failures, query.interval.as_secs()), (Some(0.95), 3, 20));
    for about in [
        "rollbackWindow.revisions: 3",
        "progressDeadlineAbort: true",
        "antiAffinity",
        "startingStep",
        "analysis.templates",
    ] {
        assert!(remarks.iter().any(|r| r.contains(about)), "{about}: {remarks:?}");
    }
    let falling = serde_saphyr::from_str(
        "{kind: Rollout, spec: {strategy: {canary: {steps: [{setWeight: 50}, {setWeight: 20}]}}}}",
    )
    .unwrap();
    assert!(rollout(&falling, &[]).err().unwrap().to_string().contains("from 50 % to 20 %"));
}
