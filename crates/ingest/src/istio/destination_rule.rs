//! DestinationRule.

use serin_model::{
    Balancer, ConnectionPool, ConsistentHash, DestinationRule, HashKey, HashTable, Object, ObjectName,
    OutlierDetection, RetryBudget, Subset, TrafficPolicy, Warmup,
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
        policy: Box::new(policy),
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
        warmup: object.get("loadBalancer").and_then(|l| read_warmup(&l)),
        retry_budget: object.get("retryBudget").and_then(|b| read_budget(&b)),
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
        warmup: object.get("loadBalancer").and_then(|l| read_warmup(&l)),
        retry_budget: object.get("retryBudget").and_then(|b| read_budget(&b)),
        connection_pool: object.get("connectionPool").and_then(|c| read_pool(&c)),
        outlier_detection: object.get("outlierDetection").and_then(|o| read_outlier_detection(&o)),
        ports: Vec::new(),
    };
    Some((number, policy))
}

fn read_balancer(cursor: &Cursor<'_>) -> Option<Balancer> {
    let object = cursor.object()?;
    object.no_effect_yet(&["localityLbSetting", "zoneAwareLbSetting"]);
    // Read by `read_warmup`.
    let _ = (object.get("warmup"), object.get("warmupDurationSecs"));
    if let Some(hash) = object.get("consistentHash") {
        return read_hash(&hash).map(Balancer::Hash);
    }
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

fn read_hash(cursor: &Cursor<'_>) -> Option<ConsistentHash> {
    let object = cursor.object()?;
    let size = |name: &str, field: &str| object.get(name).and_then(|c| c.object()?.get(field)?.bounded(1, 8_388_608));
    let ring = object.get("minimumRingSize").and_then(|c| c.bounded(1, 8_388_608));
    let ring = size("ringHash", "minimumRingSize").or(ring).unwrap_or(1024);
    let table = if object.has("maglev") {
        HashTable::Maglev(size("maglev", "tableSize").unwrap_or(65_537).into())
    } else {
        HashTable::Ring(ring.into())
    };
    let text = |name: &str| object.get(name).and_then(|c| c.text());
    let key = if let Some(header) = text("httpHeaderName") {
        HashKey::Header(header.to_ascii_lowercase())
    } else if let Some(query) = text("httpQueryParameterName") {
        HashKey::Query(query)
    } else if let Some(cookie) = object.get("httpCookie") {
        let cookie = cookie.object()?;
        HashKey::Cookie {
            name: cookie.required("name")?.text()?,
            path: cookie.get("path").and_then(|c| c.text()).unwrap_or_default(),
            ttl: cookie.get("ttl").and_then(|c| c.duration()),
        }
    } else if object.get("useSourceIp").and_then(|c| c.boolean()) == Some(true) {
        HashKey::SourceIp
    } else {
        let help = "use httpHeaderName, httpCookie, httpQueryParameterName or useSourceIp";
        object.error(Code::MissingField, "consistentHash needs a key", help);
        return None;
    };
    Some(ConsistentHash { key, table })
}

/// `warmup`, or the duration alone, as it was written before.
fn read_warmup(cursor: &Cursor<'_>) -> Option<Warmup> {
    let object = cursor.object()?;
    let read = || {
        if let Some(warmup) = object.get("warmup") {
            let warmup = warmup.object()?;
            let aggression = warmup.get("aggression").and_then(|c| c.number()).unwrap_or(1.0);
            return Some(Warmup {
                duration: warmup.required("duration")?.duration()?,
                least_percent: warmup.get("minimumPercent").and_then(|c| c.bounded(0, 100)).unwrap_or(10),
                aggression: (aggression.max(1.0) * 1000.0) as u32,
            });
        }
        let duration = object.get("warmupDurationSecs")?.duration()?;
        Some(Warmup { duration, least_percent: 10, aggression: 1000 })
    };
    let warmup = read();
    // The rest was read by `read_balancer`.
    object.skip_rest();
    warmup
}

fn read_budget(cursor: &Cursor<'_>) -> Option<RetryBudget> {
    let object = cursor.object()?;
    Some(RetryBudget {
        percent: object.get("percent").and_then(|c| c.bounded(0, 100)).unwrap_or(20),
        least: object.get("minRetryConcurrency").and_then(|c| c.bounded(0, i32::MAX as u32)).unwrap_or(3),
    })
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
        tcp.no_effect_yet(&["tcpKeepalive", "maxConnectionDuration", "idleTimeout"]);
        pool.max_connections = tcp.get("maxConnections").and_then(|c| c.bounded(1, i32::MAX as u32));
        pool.connect_timeout = tcp.get("connectTimeout").and_then(|c| c.duration());
    }
    if let Some(http) = object.get("http").and_then(|h| h.object()) {
        http.no_effect_yet(&["h2UpgradePolicy", "useClientProtocol", "maxConcurrentStreams", "http2KeepAlive"]);
        let limit = |name: &str| http.get(name).and_then(|c| c.bounded(0, i32::MAX as u32)).filter(|n| *n > 0);
        pool.max_pending = limit("http1MaxPendingRequests");
        pool.max_requests = limit("http2MaxRequests");
        pool.max_requests_per_connection = limit("maxRequestsPerConnection");
        pool.max_retries = limit("maxRetries");
        pool.idle_timeout = http.get("idleTimeout").and_then(|c| c.duration());
    }
    Some(pool)
}
