//! The cases: how a few lines become a whole bootstrap, and what is asked and expected.
//!
//! A case has `case` (its name), `routes` (of one virtual host for every domain) or `hosts` (virtual hosts), and may have
//! `route_config`, `manager`, `cluster` (fields of every cluster), `clusters` (by name: fields, or `endpoints` as names or
//! groups), `filters` (HTTP filters before the router), `bootstrap`, `secrets` (of the bootstrap), `stats` (counters that must
//! be equal afterwards; `{NAME: VALUE}` where the value is expected), `listener` (fields of the listener), `chains` and
//! `default_chain` (filter chains, where `to` names the cluster of a chain, and `filters` stand instead of the usual ones),
//! `http1_only` (requests are not asked again over HTTP/2), `refused` (the bootstrap must not be accepted) and `requests`.
//! Clusters `a`, `b` and `c` are always there, with one backend each, named like the cluster. In `@type` the common beginning
//! may be left out; of what begins with `tls.v3.` or `raw_buffer.v3.` it is that of transport sockets.
//!
//! A request is `METHOD PATH -> STATUS BACKEND BACKEND…`: the answer, and where every try went. As a map it has `ask` and may
//! have `headers`, `body`, `size` (a body of so many bytes), `times` (asked so often, `{n}` in a header counts), `exact` (every single answer must be the
//! same, not only the shares), `apart` (of statuses and backends, expect nothing), `pause` (milliseconds before looking at
//! the backends). Headers speak to the backends: `x-answer` holds, by try, a status, `reset`, `hang`, `slow` (300 ms) or `long` (5,000 times its name);
//! in `x-answer-headers`, `{number}` stands for the digits of the backend's name. `answered` and `upstream` hold fields that
//! the answer and the last try must have (`null`: must not have).
//!
//! TLS: `$CERTS` in any text is the folder of `serin_testkit::certificates`, `$(FILE)` the text of a file in it. A request with
//! `tls` is asked over TLS, and HTTP/2 if that is agreed: `sni` (none is sent without it), `alpn` (a list), `client` (the name
//! of the client's certificate), `min` and `max` (`"1.2"`, `"1.3"`), `ciphers`, `groups` and `schemes` (of signatures; names as rustls writes them),
//! `resume` (later `times` go on with the session). The client trusts everyone; the answer has the fields `(tls) certificate`
//! (subjects and URIs of what the server sent), `(tls) alpn`, `(tls) version` and `(tls) resumed`. A handshake that fails is
//! status 0. Such requests are not asked again over HTTP/2. An endpoint with `tls` (the name of its certificate) speaks TLS, and
//! may have `client_ca: true` (it asks for a certificate, and takes any or none), `alpn` (with `h2` it speaks HTTP/2), `min`,
//! `max`, `ciphers`, `groups` and `schemes`; its tries have the fields `(tls) sni`, `(tls) offered alpn`, `(tls) alpn`, `(tls) version`
//! and `(tls) certificate` (of the client).
//!
//! Bytes: a request with `raw` (a list of texts in Latin-1) sends them on a connection of its own, and reads after each until
//! nothing comes for 250 ms (or `pause`); then it closes its sending side (`half: false`: all) and reads to the end. What it read
//! is its body. An endpoint with `says` sends this text when it has heard `after` (an empty line; at once if this is empty),
//! and `then` does `echo`, `close`, `hold`, `reset` or `swallow`; what it heard is a try's body. An endpoint with `h2: true` speaks
//! HTTP/2 without TLS. `tcp` (fields of a TCP proxy) stands in place of the connection manager. `log` is the format of an access
//! log whose lines must be equal, or a map with `format`, `json`, `filter`. A request may have `trailers`, and `protocol` (an
//! extended CONNECT); with `h2_only: true` it is asked over HTTP/2 alone.
//!
//! `tls` of a chain, or of the case for all chains, is a `DownstreamTlsContext`, `tls` of a cluster an `UpstreamTlsContext`, where
//! `certificates` names certificates of the folder and `common` and `validation` hold further fields of `common_tls_context`
//! and its `validation_context`. `http` of a cluster holds fields of its `HttpProtocolOptions`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use serin_testkit::certificates::Certificates;

use super::backends::Plan;
use super::raw::{Script, Speech};
use super::tls::Tls;

/// One case.
pub struct Case {
    file: String,
    value: Map<String, Value>,
    /// Where certificates are.
    folder: String,
}

/// One kind of request.
pub struct Ask {
    pub method: String,
    pub path: String,
    /// Status and backends, when something is expected.
    pub expected: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub times: usize,
    pub exact: bool,
    pub pause: u64,
    pub tls: Option<Tls>,
    /// Bytes instead of a request.
    pub raw: Option<Script>,
    pub trailers: Vec<(String, String)>,
    /// Of an extended CONNECT.
    pub protocol: Option<String>,
    h2_only: bool,
    /// Fields of the answer, and of the last try.
    pub answered: Fields,
    pub upstream: Fields,
}

/// Fields that are expected, or expected to be absent.
pub type Fields = Vec<(String, Option<String>)>;

const HTTP_FILTERS: &str = "envoy.extensions.filters.http.";
const TLS: &str = "envoy.extensions.transport_sockets.";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Fields of endpoints that are for the backend.
const BACKEND_FIELDS: [&str; 13] =
    ["name", "tls", "client_ca", "alpn", "min", "max", "ciphers", "groups", "schemes", "says", "after", "then", "h2"];
/// Where the access log of a case is written.
pub const LOG: &str = "$LOG";

impl Case {
    /// Every case there is, with these certificates.
    pub fn all(certificates: &Certificates) -> Vec<Self> {
        let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases");
        let folder = std::env::var_os("CASES").map_or_else(own, PathBuf::from);
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        let mut cases = Vec::new();
        let certificates_folder = certificates.folder().to_string_lossy().into_owned();
        for path in files {
            let file = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let list: Vec<Map<String, Value>> = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            cases.extend(list.into_iter().map(|mut value| {
                value.values_mut().for_each(|v| fill(v, certificates));
                Self { file: file.clone(), value, folder: certificates_folder.clone() }
            }));
        }
        cases
    }

    /// `FILE: NAME`.
    pub fn name(&self) -> String {
        format!("{}: {}", self.file, self.value["case"].as_str().unwrap())
    }

    pub fn is(&self, flag: &str) -> bool {
        self.value.get(flag).is_some_and(|v| v == true)
    }

    fn list(&self, field: &str) -> Vec<Value> {
        self.value.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Whether its access log is compared.
    pub fn has_log(&self) -> bool {
        serde_json::to_string(&self.value).is_ok_and(|text| self.value.contains_key("log") || text.contains(LOG))
    }

    /// Counters to compare, and what is expected of them.
    pub fn stats(&self) -> Vec<(String, Option<u64>)> {
        let read = |entry: &Value| match entry {
            Value::Object(fields) => {
                fields.iter().map(|(n, v)| (n.clone(), Some(v.as_u64().unwrap()))).collect::<Vec<_>>()
            }
            name => vec![(name.as_str().unwrap().to_owned(), None)],
        };
        self.list("stats").iter().flat_map(read).collect()
    }

    /// What is asked, in order.
    pub fn requests(&self) -> Vec<Ask> {
        self.list("requests").iter().map(Ask::read).collect()
    }

    /// All backends.
    pub fn backends(&self) -> Vec<Plan> {
        let mut plans: Vec<Plan> = Vec::new();
        for (_, cluster) in self.clusters() {
            for group in groups(&cluster) {
                let endpoints = group["endpoints"].as_array().cloned().unwrap_or_default();
                plans.extend(endpoints.iter().map(|e| Plan {
                    name: endpoint_name(e).to_owned(),
                    tls: e.get("tls").is_some().then(|| Tls::read(e)),
                    speech: Speech::read(e),
                    h2: e.get("h2").is_some_and(|v| v == true),
                }));
            }
        }
        let plain = |p: &Plan| p.tls.is_none() && p.speech.is_none() && !p.h2;
        plans.sort_by(|a, b| (&a.name, plain(a)).cmp(&(&b.name, plain(b))));
        plans.dedup_by(|a, b| a.name == b.name);
        plans
    }

    fn clusters(&self) -> Map<String, Value> {
        let mut clusters: Map<String, Value> = ["a", "b", "c"].map(|n| (n.to_owned(), json!({}))).into_iter().collect();
        if let Some(given) = self.value.get("clusters").and_then(Value::as_object) {
            clusters.extend(given.clone());
        }
        for (name, cluster) in &mut clusters {
            if cluster.is_array() {
                *cluster = json!({"endpoints": cluster});
            }
            let fields = cluster.as_object_mut().unwrap();
            fields.entry("endpoints").or_insert_with(|| json!([name]));
            if let Some(all) = self.value.get("cluster").and_then(Value::as_object) {
                for (field, value) in all {
                    fields.entry(field).or_insert_with(|| value.clone());
                }
            }
        }
        clusters
    }

    /// The bootstrap; `port` says where a backend listens.
    pub fn bootstrap(&self, port: impl Fn(&str) -> u16) -> Value {
        let clusters: Vec<Value> = self.clusters().into_iter().map(|(name, c)| cluster(&name, c, &port)).collect();
        let hosts = match self.value.get("hosts") {
            Some(hosts) => hosts.clone(),
            None => json!([{"name": "all", "domains": ["*"], "routes": self.list("routes")}]),
        };
        let mut routes = json!({"name": "routes", "validate_clusters": false, "virtual_hosts": hosts});
        merge(&mut routes, self.value.get("route_config"));
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {"@type": "router.v3.Router"}});
        let mut filters = self.list("filters");
        filters.push(router);
        let chains = |manager: &Value| {
            let chain = |given: &Value| self.chain(given, manager);
            let default = self.value.get("default_chain").map(chain);
            (self.list("chains").iter().map(chain).collect::<Vec<_>>(), default)
        };
        let mut manager = json!({
            "@type": "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "main",
            "normalize_path": true,
            "route_config": routes,
            "http_filters": filters,
        });
        if let Some(log) = self.value.get("log") {
            manager["access_log"] = json!([access_log(log)]);
        }
        merge(&mut manager, self.value.get("manager"));
        let (mut chains, default) = chains(&manager);
        if chains.is_empty() && default.is_none() {
            chains.push(self.chain(&json!({}), &manager));
        }
        let mut listener = json!({
            "name": "main",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": chains,
        });
        if let Some(default) = default {
            listener["default_filter_chain"] = default;
        }
        merge(&mut listener, self.value.get("listener"));
        let mut bootstrap = json!({"static_resources": {"listeners": [listener], "clusters": clusters}});
        if let Some(secrets) = self.value.get("secrets") {
            bootstrap["static_resources"]["secrets"] = secrets.clone();
        }
        merge(&mut bootstrap, self.value.get("bootstrap"));
        complete(&mut bootstrap, &self.folder);
        bootstrap
    }
}

impl Case {
    /// A filter chain: fields of it, and `to`, the cluster to which it sends everything.
    fn chain(&self, given: &Value, manager: &Value) -> Value {
        let mut manager = manager.clone();
        let mut chain = given.clone();
        if let Some(to) = chain.as_object_mut().unwrap().remove("to") {
            let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": to}}]);
            manager["route_config"]["virtual_hosts"] = json!([{"name": "all", "domains": ["*"], "routes": routes}]);
        }
        let mut network = self.list("network_filters");
        network.push(match self.value.get("tcp") {
            None => json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}),
            Some(fields) => {
                let mut tcp = json!({"@type": TCP, "stat_prefix": "main"});
                merge(&mut tcp, self.value.get("log").map(|l| json!({"access_log": [access_log(l)]})).as_ref());
                merge(&mut tcp, Some(fields));
                json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp})
            }
        });
        if chain.get("filters").is_none() {
            chain["filters"] = network.into();
        }
        let own = chain.as_object_mut().unwrap().remove("tls");
        if let Some(tls) = own.as_ref().or(self.value.get("tls")) {
            chain["transport_socket"] = transport_socket("Downstream", tls);
        }
        chain
    }
}

/// An access log in a file, from its short form.
fn access_log(short: &Value) -> Value {
    let (format, json, filter) = match short {
        Value::Object(fields) => (fields.get("format"), fields.get("json"), fields.get("filter")),
        text => (Some(text), None, None),
    };
    let format = match (format, json) {
        (Some(text), _) => {
            json!({"text_format_source": {"inline_string": format!("{}\n", text.as_str().unwrap())}})
        }
        (None, Some(json)) => json!({"json_format": json}),
        (None, None) => Value::Null,
    };
    let mut file = json!({"@type": "envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": LOG});
    merge(&mut file, (!format.is_null()).then(|| json!({"log_format": format})).as_ref());
    let rest = ["format", "json", "filter"];
    let more = short.as_object().into_iter().flatten().filter(|(name, _)| !rest.contains(&name.as_str()));
    let more: Map<String, Value> = more.map(|(n, v)| (n.clone(), v.clone())).collect();
    merge(&mut file["log_format"], Some(&Value::Object(more)).filter(|m| m.as_object().is_some_and(|m| !m.is_empty())));
    let mut log = json!({"name": "envoy.access_loggers.file", "typed_config": file});
    merge(&mut log, filter.map(|f| json!({"filter": f})).as_ref());
    log
}

/// The transport socket of a short form of TLS.
fn transport_socket(side: &str, short: &Value) -> Value {
    let mut context = short.clone();
    let fields = context.as_object_mut().unwrap();
    let mut common = fields.remove("common").unwrap_or(json!({}));
    if let Some(names) = fields.remove("certificates") {
        let files = |name: &Value| {
            let file = |kind: &str| json!({"filename": format!("$CERTS/{}.{kind}", name.as_str().unwrap())});
            json!({"certificate_chain": file("pem"), "private_key": file("key")})
        };
        common["tls_certificates"] = names.as_array().unwrap().iter().map(files).collect();
    }
    if let Some(validation) = fields.remove("validation") {
        common["validation_context"] = validation;
    }
    fields.insert("common_tls_context".to_owned(), common);
    fields.insert("@type".to_owned(), format!("tls.v3.{side}TlsContext").into());
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// Puts the fields of an object into another.
fn merge(into: &mut Value, from: Option<&Value>) {
    for (name, value) in from.and_then(Value::as_object).into_iter().flatten() {
        into[name] = value.clone();
    }
}

/// Puts the texts of files of certificates where they are mentioned.
fn fill(value: &mut Value, certificates: &Certificates) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|v| fill(v, certificates)),
        Value::Array(items) => items.iter_mut().for_each(|v| fill(v, certificates)),
        Value::String(text) => {
            while let Some((before, rest)) = text.split_once("$(") {
                let (file, after) = rest.split_once(')').unwrap();
                *text = [before, &certificates.read(file).unwrap(), after].concat();
            }
        }
        _ => {}
    }
}

/// Completes names of types and of files of certificates.
fn complete(value: &mut Value, folder: &str) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get_mut("@type") {
                let common = match name {
                    _ if name.starts_with("envoy.") => "",
                    _ if name.starts_with("tls.v3.") || name.starts_with("raw_buffer.v3.") => TLS,
                    _ => HTTP_FILTERS,
                };
                *name = format!("type.googleapis.com/{common}{name}");
            }
            fields.values_mut().for_each(|v| complete(v, folder));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| complete(v, folder)),
        Value::String(text) if text.contains("$CERTS") => *text = text.replace("$CERTS", folder),
        _ => {}
    }
}

/// Groups of endpoints, each with `endpoints`.
fn groups(cluster: &Value) -> Vec<Value> {
    let endpoints = cluster["endpoints"].as_array().cloned().unwrap_or_default();
    let grouped = endpoints.iter().any(|e| e.get("endpoints").is_some());
    if grouped { endpoints } else { vec![json!({"endpoints": endpoints})] }
}

fn endpoint_name(endpoint: &Value) -> &str {
    endpoint.as_str().or_else(|| endpoint["name"].as_str()).unwrap()
}

fn cluster(name: &str, mut fields: Value, port: &impl Fn(&str) -> u16) -> Value {
    let mut assignment = Vec::new();
    for mut group in groups(&fields) {
        let endpoints = group["endpoints"].as_array().cloned().unwrap_or_default();
        let endpoints: Vec<Value> = endpoints.iter().map(|e| endpoint(e, port)).collect();
        let fields = group.as_object_mut().unwrap();
        fields.remove("endpoints");
        fields.insert("lb_endpoints".to_owned(), endpoints.into());
        assignment.push(group);
    }
    let object = fields.as_object_mut().unwrap();
    object.remove("endpoints");
    let mut assigned = json!({"cluster_name": name, "endpoints": assignment});
    merge(&mut assigned, object.remove("assignment").as_ref());
    let mut cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assigned});
    if let Some(tls) = fields.as_object_mut().unwrap().remove("tls") {
        cluster["transport_socket"] = transport_socket("Upstream", &tls);
    }
    if let Some(http) = fields.as_object_mut().unwrap().remove("http") {
        let mut options = json!({"@type": HTTP_OPTIONS});
        merge(&mut options, Some(&http));
        cluster["typed_extension_protocol_options"] = json!({HTTP_OPTIONS: options});
    }
    merge(&mut cluster, Some(&fields));
    cluster
}

fn endpoint(endpoint: &Value, port: &impl Fn(&str) -> u16) -> Value {
    let name = endpoint_name(endpoint);
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port(name)}});
    let mut made = json!({"endpoint": {"address": address}});
    for (field, value) in endpoint.as_object().into_iter().flatten() {
        if BACKEND_FIELDS.contains(&field.as_str()) {
            continue;
        }
        match field.as_str() {
            "hostname" | "health_check_config" => made["endpoint"][field] = value.clone(),
            _ => made[field] = value.clone(),
        }
    }
    made
}

impl Ask {
    fn read(value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let line = value.as_str().unwrap_or_else(|| text("ask"));
        let (request, expected) = match line.split_once(" -> ") {
            Some((request, expected)) => (request, Some(expected.trim().to_owned())),
            None => (line, None),
        };
        let (method, path) = request.trim().split_once(' ').unwrap_or_default();
        Self {
            method: method.to_owned(),
            path: path.trim().to_owned(),
            expected,
            headers: pairs(value.get("headers")),
            body: match value.get("size").and_then(Value::as_u64) {
                Some(size) => "x".repeat(size as usize),
                None => text("body").to_owned(),
            },
            times: value.get("times").and_then(Value::as_u64).unwrap_or(1) as usize,
            exact: value.get("exact").is_some_and(|v| v == true),
            pause: value.get("pause").and_then(Value::as_u64).unwrap_or(0),
            tls: value.get("tls").map(Tls::read),
            raw: Script::read(value),
            trailers: pairs(value.get("trailers")),
            protocol: value.get("protocol").and_then(Value::as_str).map(str::to_owned),
            h2_only: value.get("h2_only").is_some_and(|v| v == true),
            answered: expected_fields(value.get("answered")),
            upstream: expected_fields(value.get("upstream")),
        }
    }

    /// Whether it is asked again over HTTP/2.
    pub fn is_asked_again(&self) -> bool {
        self.times == 1 && self.tls.is_none() && self.raw.is_none()
    }

    /// Whether it is asked over HTTP/2 and not otherwise.
    pub fn is_h2_only(&self) -> bool {
        self.h2_only
    }
}

/// Names with a value or a list of values.
fn pairs(value: Option<&Value>) -> Vec<(String, String)> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    let pairs = fields.flat_map(|(name, value)| {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        values.into_iter().map(|v| (name.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
    });
    pairs.collect()
}

fn expected_fields(value: Option<&Value>) -> Fields {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned))).collect()
}
