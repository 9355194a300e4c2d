//! Never silence: setting any field of any kind that is read changes the result, or a diagnostic.
//!
//! `fields.tsv` lists the fields of Istio's custom resource definitions and of the Kubernetes kinds: kind, path, type. Each is set in a
//! document that is sound without it, beside the objects that it stands in.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use serde_json::{Map, Value, json};
use serin_ingest::parse;

/// Sound documents, with something for every field to stand beside.
fn base(kind: &str, path: &str) -> Value {
    let instead_of_route =
        ["redirect", "directResponse", "delegate"].iter().any(|other| path.starts_with(&format!("http[].{other}")));
    let (version, spec) = match kind {
        "VirtualService" if instead_of_route => {
            ("networking.istio.io/v1", json!({"hosts": ["a"], "gateways": ["mesh"], "http": [{}]}))
        }
        "VirtualService" if path.contains("mirrorPercent") => (
            "networking.istio.io/v1",
            json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], "mirror": {"host": "a"}}]}),
        ),
        "VirtualService" => (
            "networking.istio.io/v1",
            json!({"hosts": ["a"], "gateways": ["mesh"], "http": [{"route": [{"destination": {"host": "a"}}]}]}),
        ),
        "DestinationRule" => ("networking.istio.io/v1", json!({"host": "a", "subsets": [{"name": "v1"}]})),
        "Gateway" if path.starts_with("servers[].tls") && !path.ends_with("httpsRedirect") => (
            "networking.istio.io/v1",
            json!({"servers": [{"hosts": ["*"], "port": {"number": 80, "name": "https", "protocol": "HTTPS"}}]}),
        ),
        "Gateway" => (
            "networking.istio.io/v1",
            json!({"servers": [{"hosts": ["*"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}]}),
        ),
        "ServiceEntry" => (
            "networking.istio.io/v1",
            json!({"hosts": ["a.example"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http"}]}),
        ),
        "WorkloadEntry" => ("networking.istio.io/v1", json!({"address": "127.0.0.1"})),
        "Sidecar" => (
            "networking.istio.io/v1",
            json!({"ingress": [{"port": {"number": 80, "protocol": "HTTP", "name": "http"}}], "egress": [{"hosts": ["*/*"]}]}),
        ),
        "Service" => ("v1", json!({"ports": [{"port": 80}]})),
        other => panic!("no document of kind {other}"),
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

/// Fields that say nothing but how something is called, or whose only neutral values fit the document.
const WITHOUT_MEANING: [(&str, &str); 12] = [
    ("Gateway", "servers[].name"),
    ("Gateway", "servers[].port.name"),
    ("Sidecar", "ingress[].port.name"),
    ("Sidecar", "egress[].port.name"),
    ("VirtualService", "http[].match[].name"),
    ("VirtualService", "http[].delegate.namespace"),
    // The document of the test has them so already.
    ("WorkloadEntry", "address"),
    ("DestinationRule", "subsets[].name"),
    ("Service", "ports[].name"),
    ("VirtualService", "http[].delegate.name"),
    ("VirtualService", "http[].directResponse.status"),
    // Said of the object around it, beside other fields that concern Kubernetes alone.
    ("Service", "sessionAffinityConfig.clientIP.timeoutSeconds"),
];

/// Values that are not what is meant when nothing is said.
fn sample(path: &str, kind: &str) -> Value {
    let leaf = path.rsplit('.').next().unwrap().trim_end_matches("[]");
    match leaf {
        "weight" => return json!(7),
        "port" | "number" | "targetPort" | "nodePort" | "healthCheckNodePort" => return json!(81),
        "fixedDelay" | "exponentialDelay" | "httpStatus" | "status" if kind.starts_with("integer") => {
            return json!(418);
        }
        "redirectCode" => return json!(308),
        "type" => return json!("ExternalName"),
        "externalName" => return json!("b.example"),
        "protocol" if path.starts_with("ports") => return json!("UDP"),
        "protocol" if path.starts_with("servers") => return json!("HTTPS"),
        "protocol" if path.starts_with("egress") => return json!("HTTP_PROXY"),
        "protocol" => return json!("GRPC"),
        "captureMode" => return json!("IPTABLES"),
        "regex" => return json!("a+"),
        "allowMethods" => return json!("PUT"),
        "bind" => return json!("127.0.0.9"),
        "defaultEndpoint" => return json!("127.0.0.1:99"),
        "exportTo" => return json!("."),
        "gateways" => return json!("./other"),
        "ports" if kind == "map" => return json!({"http": 99}),
        "sessionAffinity" => return json!("ClientIP"),
        "internalTrafficPolicy" => return json!("Local"),
        "location" => return json!("MESH_INTERNAL"),
        "resolution" => return json!("DNS"),
        "simple" => return json!("RANDOM"),
        "mode" if path.contains("outboundTrafficPolicy") => return json!("ALLOW_ANY"),
        "mode" => return json!("SIMPLE"),
        "derivePort" => return json!("FROM_REQUEST_PORT"),
        "unmatchedPreflights" => return json!("IGNORE"),
        "retryIgnorePreviousHosts" => return json!(false),
        "bytes" => return json!("aGk="),
        "grpcStatus" => return json!("UNAVAILABLE"),
        _ => {}
    }
    let kind = kind.split(' ').next().unwrap();
    match kind.split(':').next().unwrap() {
        "boolean" => json!(true),
        "integer" => json!(4),
        "number" => json!(3.5),
        "map" => json!({"some": "thing"}),
        "object" => json!({}),
        "list" => json!([]),
        _ => match kind.split_once(':').map(|(_, values)| values.split('|').next_back().unwrap()) {
            Some(value) if value.chars().all(|c| c.is_ascii_uppercase() || "_0123456789".contains(c)) => json!(value),
            _ if ["imeout", "uration", "nterval", "backoff", "maxAge", "ttl", "Time", "time", "warmupDurationSecs"]
                .iter()
                .any(|end| leaf.ends_with(end))
                || leaf == "fixedDelay" =>
            {
                json!("7s")
            }
            _ => json!("text"),
        },
    }
}

/// What must stand beside a field for the object around it to be sound, by the object's name.
fn companions(object: &str, path: &str) -> Value {
    match object {
        "portLevelSettings[]" => json!({"port": {"number": 80}}),
        "warmup" => json!({"duration": "5s"}),
        "consistentHash" if !path.contains("httpCookie") => json!({"httpHeaderName": "x-key"}),
        "httpCookie" => json!({"name": "c"}),
        // An HTTP server may have httpsRedirect there and nothing else.
        "tls" if path.ends_with("httpsRedirect") => json!({}),
        "tls" if path.starts_with("servers") => {
            json!({"mode": "MUTUAL", "serverCertificate": "/s.pem", "privateKey": "/s.key", "caCertificates": "/ca.pem"})
        }
        "tls" => json!({"mode": "MUTUAL", "clientCertificate": "/c.pem", "privateKey": "/c.key"}),
        "delay" | "abort" if path.ends_with("percent") => json!({"fixedDelay": "1s"}),
        "delay" => json!({"fixedDelay": "1s", "percentage": {"value": 50}}),
        "abort" => json!({"httpStatus": 500, "percentage": {"value": 50}}),
        "attributes[]" => json!({"name": "a"}),
        "retries" => json!({"attempts": 2}),
        "redirect" => json!({"redirectCode": 302}),
        "directResponse" => json!({"status": 200}),
        "destination" | "mirror" => json!({"host": "a"}),
        "mirrors[]" => json!({"destination": {"host": "a"}}),
        "delegate" => json!({"name": "d"}),
        "uriRegexRewrite" => json!({"match": "a", "rewrite": "b"}),
        "outlierDetection" if path.contains("consecutiveLocal") => json!({"splitExternalLocalOriginErrors": true}),
        "egress[]" => json!({"hosts": ["*/*"]}),
        "port" if path.starts_with("egress") => json!({"number": 70, "protocol": "HTTP"}),
        "endpoints[]" => json!({"address": "127.0.0.1"}),
        "sessionAffinityConfig" => json!({"clientIP": {}}),
        _ => json!({}),
    }
}

/// Adds what is not there yet.
fn fill(at: &mut Value, path: &[&str], leaf: &str) {
    let mut here = at;
    for part in path {
        let (name, is_item) = part.strip_suffix("[]").map_or((*part, false), |name| (name, true));
        here = &mut here[if name == "*" { "x-some" } else { name }];
        if is_item {
            here = &mut here[0];
        }
        for (field, value) in companions(part, leaf).as_object().unwrap() {
            if here.is_object() && here.get(field).is_none() {
                here[field] = value.clone();
            }
        }
    }
}

/// Whether it is said of an object around the field that it has no effect, or closes what it guards.
fn is_said(document: &Value, path: &str) -> bool {
    let parsed = parse("file.json", &document.to_string());
    let plain = |path: &str| path.replace("[0]", "[]");
    let around = |found: &str| {
        let found = plain(found);
        let rest = format!("spec.{path}");
        rest.strip_prefix(&found).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    parsed
        .diagnostics
        .iter()
        .any(|d| ["SRN0201", "SRN0204"].contains(&d.code.as_str()) && around(&d.path) && d.path != "spec")
}

/// Puts a value at a path, making the objects on its way; of a list the first item is meant.
fn put(at: &mut Value, path: &[&str], value: &Value) {
    let Some((first, rest)) = path.split_first() else {
        if at.is_null() || !value.as_object().is_some_and(Map::is_empty) {
            *at = value.clone();
        }
        return;
    };
    let (name, is_item) = first.strip_suffix("[]").map_or((*first, false), |name| (name, true));
    if !at.is_object() {
        *at = json!({});
    }
    let inner = &mut at[if name == "*" { "x-some" } else { name }];
    if is_item {
        if inner.as_array().is_none_or(Vec::is_empty) {
            *inner = json!([Value::Null]);
        }
        if rest.is_empty() && value.is_string() && !inner[0].is_null() {
            *inner = json!([value]);
        } else {
            put(&mut inner[0], rest, value);
        }
    } else {
        put(inner, rest, value);
    }
}

fn outcome(document: &Value) -> String {
    let parsed = parse("file.json", &document.to_string());
    let objects: Vec<_> = parsed.documents.iter().map(|d| (&d.object, &d.references)).collect();
    let found: Vec<String> =
        parsed.diagnostics.iter().map(|d| format!("{} {} {}", d.code.as_str(), d.path, d.message)).collect();
    // Places in the text move when something is put before them.
    let text = format!("{objects:?}").replace("column", "");
    let places = regex::Regex::new(r"Position \{[^}]*\}").unwrap();
    format!("{}\n{found:?}", places.replace_all(&text, ""))
}

#[test]
fn setting_any_field_changes_the_result_or_a_diagnostic() {
    let fields = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fields.tsv")).unwrap();
    let mut silent = Vec::new();
    let mut seen = 0;
    for line in fields.lines() {
        let [kind, path, of]: [&str; 3] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        if WITHOUT_MEANING.contains(&(kind, path)) || of == "object" || of == "list" {
            continue;
        }
        seen += 1;
        let parts: Vec<&str> = path.split('.').collect();
        let mut without = base(kind, path);
        let parents = parts.get(..parts.len() - 1).unwrap();
        // The objects around it are there in both.
        put(&mut without["spec"], parents, &json!({}));
        fill(&mut without["spec"], parents, path);
        let mut with = without.clone();
        put(&mut with["spec"], &parts, &sample(path, of));
        if outcome(&without) == outcome(&with) && !is_said(&with, path) {
            silent.push(format!("{kind} {path}"));
        }
    }
    assert!(seen > 500, "only {seen} fields");
    assert!(
        silent.is_empty(),
        "{} of {seen} fields do nothing and nothing is said:\n{}",
        silent.len(),
        silent.join("\n")
    );
}
