//! DestinationRule.

use serin_model::{
    BackendPolicy, Balancer, ClientTls, ConnectionPool, ConsistentHash, HashKey, HashTable, Object, ObjectName,
    OutlierDetection, RetryBudget, ServerCheck, Subset, Tls, TrafficPolicy, Warmup,
};

use super::route_headers::{cookie_name, header_name};
use super::{export_to, host, labels};
use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let host = object.required("host").and_then(|h| host(&h));
    let whom = host.as_ref().map_or("the host", |h| h.as_str()).to_owned();
    let mut subsets: Vec<Subset> = Vec::new();
    for item in object.list("subsets") {
        let Some(subset) = read_subset(&item, &whom) else { continue };
        if subsets.iter().any(|s| s.name == subset.name) {
            item.report(Code::Duplicate, Severity::Error, format!("subset '{}' is defined twice", subset.name), "");
        }
        subsets.push(subset);
    }
    let policy = object.get("trafficPolicy").and_then(|p| read_policy(&p, &whom)).unwrap_or_default();
    let workloads = object.get("workloadSelector").and_then(|s| {
        let selector = s.object()?;
        Some(selector.get("matchLabels").map(|l| labels(&l)).unwrap_or_default())
    });
    let (exported, export_to) = (exported(object.get("exportTo")), export_to(object.get("exportTo")));
    let mut policy = policy;
    signed(&mut policy, name);
    subsets.iter_mut().for_each(|s| signed(&mut s.policy, name));
    Some(Object::BackendPolicy(BackendPolicy {
        name: name.clone(),
        host: host?,
        workloads,
        policy: Box::new(policy),
        subsets,
        export_to,
        exported,
    }))
}

/// `exportTo` as it is written, sorted.
pub(crate) fn exported(cursor: Option<Cursor<'_>>) -> Vec<String> {
    let items = cursor.map(|list| list.list()).unwrap_or_default();
    let mut texts: Vec<String> = items.iter().filter_map(|item| item.peek_text().map(str::to_owned)).collect();
    texts.sort();
    texts
}

/// Puts the rule's name to what it demands that is not carried out: those who are refused are told.
fn signed(policy: &mut TrafficPolicy, name: &ObjectName) {
    let sign = |what: &mut String| *what = format!("DestinationRule {name}: {what}");
    policy.refused.as_mut().map(sign);
    if let Some(Tls::NotCarriedOut(what)) = &mut policy.tls {
        sign(what);
    }
    policy.ports.iter_mut().for_each(|(_, policy)| signed(policy, name));
}

fn read_subset(cursor: &Cursor<'_>, whom: &str) -> Option<Subset> {
    let object = cursor.object()?;
    let name = object.required("name").and_then(|n| n.text());
    let whom = format!("subset {} of {whom}", name.as_deref().unwrap_or_default());
    Some(Subset {
        labels: object.get("labels").map(|l| labels(&l)).unwrap_or_default(),
        policy: object.get("trafficPolicy").and_then(|p| read_policy(&p, &whom)).unwrap_or_default(),
        name: name?,
    })
}

fn read_policy(cursor: &Cursor<'_>, whom: &str) -> Option<TrafficPolicy> {
    let object = cursor.object()?;
    let mut policy = read_blocks(&object, whom);
    for item in object.list("portLevelSettings") {
        policy.ports.extend(read_port_policy(&item, whom));
    }
    let proxy = object.get("proxyProtocol").map(|p| not_carried_out(&p, "the PROXY protocol", whom));
    let tunnel = object.get("tunnel").map(|t| not_carried_out(&t, "a tunnel", whom));
    policy.refused = policy.refused.or(proxy).or(tunnel);
    Some(policy)
}

/// The blocks that a policy has for all ports and for each.
fn read_blocks(object: &Fields<'_>, whom: &str) -> TrafficPolicy {
    let balancing = object.get("loadBalancer");
    let outlier = object.get("outlierDetection");
    let passthrough =
        balancing.as_ref().and_then(|l| l.peek("simple")).filter(|s| s.peek_text() == Some("PASSTHROUGH"));
    let codes =
        outlier.as_ref().and_then(|o| o.peek("outlierDetectionHttpErrorCodes")).filter(|c| !c.list().is_empty());
    let refused = passthrough.map(|p| not_carried_out(&p, "load balancer PASSTHROUGH", whom));
    let codes = codes.map(|c| not_carried_out(&c, "outlier detection by these status codes", whom));
    TrafficPolicy {
        tls: object.get("tls").and_then(|t| read_tls(&t, whom)),
        balancer: balancing.as_ref().and_then(read_balancer),
        warmup: balancing.as_ref().and_then(read_warmup),
        retry_budget: object.get("retryBudget").and_then(|b| read_budget(&b)),
        connection_pool: object.get("connectionPool").and_then(|c| read_pool(&c)),
        outlier_detection: outlier.as_ref().and_then(read_outlier_detection),
        refused: refused.or(codes),
        ports: Vec::new(),
    }
}

/// Says that a policy closes what it is for, and yields the words for those who meet it.
fn not_carried_out(cursor: &Cursor<'_>, what: &str, whom: &str) -> String {
    cursor.report(
        Code::NotEnforced,
        Severity::Warning,
        format!("{what} is not carried out yet: requests to {whom} are refused (503) where this applies, until it is"),
        "take the field away, or start the pilot with --allow-unenforced-policies to send requests without it",
    );
    format!("{what} is not carried out yet")
}

/// Reads `tls`. What cannot be carried out closes: plain text instead would give away what it is there to keep.
fn read_tls(cursor: &Cursor<'_>, whom: &str) -> Option<Tls> {
    let object = cursor.object()?;
    let text = |name: &str| object.get(name).and_then(|field| field.line()).filter(|text| !text.is_empty());
    let [certificate, key, authorities, credential, sni, revoked] =
        ["clientCertificate", "privateKey", "caCertificates", "credentialName", "sni", "caCrl"].map(text);
    let names: Vec<String> = object.list("subjectAltNames").iter().filter_map(|name| name.line()).collect();
    let skips = object.get("insecureSkipVerify").and_then(|field| field.boolean()).unwrap_or(false);
    let mode = object.get("mode");
    let text = mode.as_ref().map_or(Some("DISABLE".to_owned()), |mode| mode.text())?;
    let refuses = |what: &str| Some(Tls::NotCarriedOut(not_carried_out(cursor, what, whom)));
    let has_files = certificate.is_some() || key.is_some() || authorities.is_some() || revoked.is_some();
    let useless = match text.as_str() {
        "DISABLE" if has_files || credential.is_some() || sni.is_some() || !names.is_empty() => Some(
            "mode DISABLE, which is meant where none is said, speaks plain text: the other fields of tls mean nothing",
        ),
        "SIMPLE" if certificate.is_some() || key.is_some() => {
            Some("mode SIMPLE shows servers no certificate: clientCertificate and privateKey mean nothing")
        }
        "SIMPLE" | "MUTUAL" if skips && revoked.is_some() => Some("caCrl means nothing with insecureSkipVerify"),
        _ => None,
    };
    if let Some(message) = useless {
        cursor.report(
            Code::NoEffectYet,
            Severity::Warning,
            message,
            "use SIMPLE or MUTUAL for what they say, or take them away",
        );
    }
    match text.as_str() {
        "DISABLE" => return Some(Tls::Off),
        "SIMPLE" | "MUTUAL" => {}
        "ISTIO_MUTUAL" => return refuses("TLS in mode ISTIO_MUTUAL"),
        other => {
            let help = "use DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL";
            mode.as_ref().unwrap_or(cursor).invalid(format!("'{other}' is no TLS mode"), help);
            return None;
        }
    }
    // Istio: `validateTLS`.
    if skips && (authorities.is_some() || !names.is_empty() || (text == "SIMPLE" && credential.is_some())) {
        cursor.invalid(
            "insecureSkipVerify does not go with caCertificates, credentialName or subjectAltNames",
            "keep one",
        );
        return None;
    }
    if credential.is_some() {
        if has_files {
            let message = "credentialName does not go with clientCertificate, privateKey, caCertificates or caCrl";
            cursor.invalid(message, "name the secret, or the files");
            return None;
        }
        return refuses("a certificate of TLS by credentialName");
    }
    let identity = match (text.as_str(), certificate, key) {
        ("SIMPLE", ..) => None,
        (_, Some(certificate), Some(key)) => Some((certificate, key)),
        _ => {
            cursor.invalid("mode MUTUAL needs clientCertificate and privateKey", "name the files of both");
            return None;
        }
    };
    let server = (!skips).then_some(ServerCheck { authorities, revoked, names });
    Some(Tls::On(Box::new(ClientTls { identity, server, sni: sni.unwrap_or_default() })))
}

fn read_port_policy(cursor: &Cursor<'_>, whom: &str) -> Option<(u16, TrafficPolicy)> {
    let object = cursor.object()?;
    let number = object.required("port").and_then(|p| p.object()?.required("number")?.port());
    let whom = number.map_or_else(|| whom.to_owned(), |number| format!("port {number} of {whom}"));
    let policy = read_blocks(&object, &whom);
    Some((number?, policy))
}

fn read_balancer(cursor: &Cursor<'_>) -> Option<Balancer> {
    let object = cursor.object()?;
    object.no_effect_yet(&["localityLbSetting", "zoneAwareLbSetting", "backendUtilization"]);
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
        // Said where the policy is read, and refused.
        "PASSTHROUGH" => None,
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
    let table =
        if object.has("maglev") { HashTable::Maglev(read_table_size(&object)) } else { HashTable::Ring(ring.into()) };
    let keys = ["httpHeaderName", "httpQueryParameterName", "httpCookie", "useSourceIp"];
    let given: Vec<&str> = keys.into_iter().filter(|key| object.has(key)).collect();
    if given.len() > 1 {
        object.error(Code::InvalidValue, format!("{} exclude each other", given.join(" and ")), "keep one");
    }
    let text = |name: &str| {
        let cursor = object.get(name)?;
        let text = cursor.line()?;
        if text.is_empty() || (name == "httpHeaderName" && header_name(&text, &cursor).is_none()) {
            cursor.invalid(format!("{name} is empty"), "");
        }
        Some(text)
    };
    let key = if let Some(header) = text("httpHeaderName") {
        HashKey::Header(header.to_ascii_lowercase())
    } else if let Some(query) = text("httpQueryParameterName") {
        HashKey::Query(query)
    } else if let Some(cookie) = object.get("httpCookie") {
        let cookie = cookie.object()?;
        HashKey::Cookie {
            name: cookie.required("name").and_then(|name| cookie_name(&name))?,
            path: cookie.get("path").and_then(|c| c.line()).unwrap_or_default(),
            ttl: cookie.get("ttl").and_then(|c| c.duration()),
            attributes: cookie.list("attributes").iter().filter_map(attribute).collect(),
        }
    } else if let Some(by_address) = object.get("useSourceIp") {
        if by_address.boolean() == Some(false) {
            by_address.report(
                Code::NoEffectYet,
                Severity::Warning,
                "'useSourceIp: false' names no key: requests are spread as if there were no hash, as in Istio",
                "use httpHeaderName, httpCookie, httpQueryParameterName or useSourceIp: true",
            );
            return None;
        }
        HashKey::SourceIp
    } else {
        let help = "use httpHeaderName, httpCookie, httpQueryParameterName or useSourceIp";
        object.error(Code::MissingField, "consistentHash needs a key", help);
        return None;
    };
    Some(ConsistentHash { key, table })
}

/// The size of a Maglev table: a prime number up to 5,000,011 (Envoy, `MaglevLbConfig`).
fn read_table_size(object: &Fields<'_>) -> u64 {
    let given = object.get("maglev").and_then(|maglev| maglev.object()?.get("tableSize"));
    let Some((at, size)) = given.and_then(|at| Some((at.clone(), at.integer()?))) else { return 65_537 };
    let size = u64::try_from(size).unwrap_or_default();
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    if size > 5_000_011 || !is_prime(size) {
        let next = (2..=5_000_011).find(|n| *n >= size && is_prime(*n)).unwrap_or(5_000_011);
        at.invalid("tableSize must be a prime number of at most 5000011", format!("the next one is {next}"));
        return 65_537;
    }
    size
}

/// `{name, value}`, of a cookie.
fn attribute(cursor: &Cursor<'_>) -> Option<(String, String)> {
    let object = cursor.object()?;
    let value = object.get("value").and_then(|v| v.text()).unwrap_or_default();
    Some((object.required("name")?.text()?, value))
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
                aggression: (aggression.max(1.0) * 1000.0).round() as u32,
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
    object.skip(&["outlierDetectionHttpErrorCodes"]);
    object.no_effect_yet(&["consecutiveErrors"]);
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
        interval: object.get("interval").and_then(|c| c.milliseconds()),
        base_ejection_time: object.get("baseEjectionTime").and_then(|c| c.milliseconds()),
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
        pool.connect_timeout = tcp.get("connectTimeout").and_then(|c| c.milliseconds());
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
