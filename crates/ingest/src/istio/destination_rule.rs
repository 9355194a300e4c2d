//! DestinationRule.

use serin_model::{
    Balancer, ConnectionPool, DestinationRule, Object, ObjectName, OutlierDetection, Subset, TrafficPolicy,
};

use super::{export_to, host, labels};
use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    object.not_supported(&["workloadSelector"]);
    let mut subsets: Vec<Subset> = Vec::new();
    for item in object.get("subsets").map(|s| s.list()).unwrap_or_default() {
        let Some(subset) = read_subset(&item) else { continue };
        if subsets.iter().any(|s| s.name == subset.name) {
            item.report(Code::Duplicate, Severity::Error, format!("subset '{}' is defined twice", subset.name), "");
        }
        subsets.push(subset);
    }
    let policy = object.get("trafficPolicy").and_then(|p| read_policy(&p)).unwrap_or_default();
    let export_to = export_to(object.get("exportTo"));
    Some(Object::DestinationRule(DestinationRule {
        name: name.clone(),
        host: host(&object.required("host")?)?,
        policy,
        subsets,
        export_to,
    }))
}

fn read_subset(cursor: &Cursor<'_>) -> Option<Subset> {
    let object = cursor.object()?;
    Some(Subset {
        labels: object.get("labels").map(|l| labels(&l)).unwrap_or_default(),
        policy: object.get("trafficPolicy").and_then(|p| read_policy(&p)).unwrap_or_default(),
        name: object.required("name")?.text()?,
    })
}

fn read_policy(cursor: &Cursor<'_>) -> Option<TrafficPolicy> {
    let object = cursor.object()?;
    object.no_effect_yet(&["retryBudget"]);
    object.not_supported(&["tunnel", "proxyProtocol"]);
    if let Some(tls) = object.get("tls") {
        read_tls(&tls);
    }
    let mut ports = Vec::new();
    for item in object.get("portLevelSettings").map(|p| p.list()).unwrap_or_default() {
        ports.extend(read_port_policy(&item));
    }
    Some(TrafficPolicy {
        balancer: object.get("loadBalancer").and_then(|l| read_balancer(&l)),
        connection_pool: object.get("connectionPool").and_then(|c| read_pool(&c)),
        outlier_detection: object.get("outlierDetection").and_then(|o| read_outlier_detection(&o)),
        ports,
    })
}

/// Modes that need certificates are not carried out yet; Istio's own mutual mode would be plain text otherwise.
fn read_tls(cursor: &Cursor<'_>) {
    let Some(object) = cursor.object() else { return };
    let Some(mode) = object.get("mode") else {
        object.skip_rest();
        return;
    };
    match mode.text().as_deref() {
        Some("DISABLE") => {}
        Some("ISTIO_MUTUAL") => mode.report(
            Code::NoEffectYet,
            Severity::Warning,
            "mutual TLS between proxies is not carried out yet: connections are plain text",
            "the rest of the object is used",
        ),
        Some("SIMPLE" | "MUTUAL") => mode.report(
            Code::NotSupported,
            Severity::Error,
            "TLS to the destination is not supported yet",
            "the object is not used, because sending plain text instead would not be safe",
        ),
        Some(other) => mode.invalid(format!("'{other}' is no TLS mode"), "use DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL"),
        None => {}
    }
    object.skip_rest();
}

fn read_port_policy(cursor: &Cursor<'_>) -> Option<(u16, TrafficPolicy)> {
    let object = cursor.object()?;
    if let Some(tls) = object.get("tls") {
        read_tls(&tls);
    }
    let number = object.required("port")?.object()?.required("number")?.port()?;
    let policy = TrafficPolicy {
        balancer: object.get("loadBalancer").and_then(|l| read_balancer(&l)),
        connection_pool: object.get("connectionPool").and_then(|c| read_pool(&c)),
        outlier_detection: object.get("outlierDetection").and_then(|o| read_outlier_detection(&o)),
        ports: Vec::new(),
    };
    Some((number, policy))
}

fn read_balancer(cursor: &Cursor<'_>) -> Option<Balancer> {
    let object = cursor.object()?;
    object.no_effect_yet(&[
        "consistentHash",
        "localityLbSetting",
        "zoneAwareLbSetting",
        "warmupDurationSecs",
        "warmup",
    ]);
    let simple = object.get("simple")?;
    match simple.text()?.as_str() {
        "ROUND_ROBIN" => Some(Balancer::RoundRobin),
        "RANDOM" => Some(Balancer::Random),
        "LEAST_REQUEST" | "LEAST_CONN" | "UNSPECIFIED" => Some(Balancer::LeastRequest),
        "PASSTHROUGH" => {
            simple.report(Code::NotSupported, Severity::Error, "PASSTHROUGH is not supported yet", "");
            None
        }
        other => {
            simple.invalid(format!("'{other}' is no load balancer"), "use ROUND_ROBIN, RANDOM or LEAST_REQUEST");
            None
        }
    }
}

fn read_outlier_detection(cursor: &Cursor<'_>) -> Option<OutlierDetection> {
    let object = cursor.object()?;
    object.no_effect_yet(&["outlierDetectionHttpErrorCodes", "consecutiveErrors"]);
    let number = |name: &str| object.get(name).and_then(|c| c.bounded(0, i32::MAX as u32));
    let percent = |name: &str| object.get(name).and_then(|c| c.bounded(0, 100));
    let split = object.get("splitExternalLocalOriginErrors").and_then(|c| c.boolean()).unwrap_or_default();
    if let Some(failures) = object.get("consecutiveLocalOriginFailures").filter(|_| !split) {
        failures.invalid(
            "consecutiveLocalOriginFailures counts nothing without splitExternalLocalOriginErrors",
            "set splitExternalLocalOriginErrors: true",
        );
    }
    Some(OutlierDetection {
        server_errors: number("consecutive5xxErrors"),
        gateway_errors: number("consecutiveGatewayErrors"),
        local_failures: number("consecutiveLocalOriginFailures"),
        split_local: split,
        interval: object.get("interval").and_then(|c| c.duration()),
        base_ejection_time: object.get("baseEjectionTime").and_then(|c| c.duration()),
        max_ejection_percent: percent("maxEjectionPercent").filter(|n| *n > 0),
        min_health_percent: percent("minHealthPercent").unwrap_or_default(),
    })
}

fn read_pool(cursor: &Cursor<'_>) -> Option<ConnectionPool> {
    let object = cursor.object()?;
    let mut pool = ConnectionPool::default();
    if let Some(tcp) = object.get("tcp").and_then(|t| t.object()) {
        tcp.no_effect_yet(&["maxConnections", "tcpKeepalive", "maxConnectionDuration", "idleTimeout"]);
        pool.connect_timeout = tcp.get("connectTimeout").and_then(|c| c.duration());
    }
    if let Some(http) = object.get("http").and_then(|h| h.object()) {
        http.no_effect_yet(&[
            "http1MaxPendingRequests",
            "h2UpgradePolicy",
            "useClientProtocol",
            "maxConcurrentStreams",
            "http2KeepAlive",
        ]);
        let limit = |name: &str| http.get(name).and_then(|c| c.bounded(0, i32::MAX as u32)).filter(|n| *n > 0);
        pool.max_requests = limit("http2MaxRequests");
        pool.max_requests_per_connection = limit("maxRequestsPerConnection");
        pool.max_retries = limit("maxRetries");
        pool.idle_timeout = http.get("idleTimeout").and_then(|c| c.duration());
    }
    Some(pool)
}
