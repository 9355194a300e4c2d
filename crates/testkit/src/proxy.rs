//! A proxy on its own, run from an Envoy bootstrap: Serin's, or real Envoy when `SERIN_TEST_ENVOY` names its binary.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, wait_until};

/// A running proxy.
pub struct Proxy {
    /// Its process.
    pub process: Process,
    /// Its admin interface.
    pub admin: SocketAddr,
    _folder: TempDir,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Proxy {
    /// Runs the data plane under test from a bootstrap; listeners may use port 0.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(serin: &str, bootstrap: &Value) -> anyhow::Result<Self> {
        match std::env::var("SERIN_TEST_ENVOY") {
            Ok(envoy) => Self::run(&envoy, None, bootstrap, "2"),
            Err(_) => Self::serin(serin, bootstrap),
        }
    }

    /// Runs Serin's proxy from a bootstrap, whatever is under test.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn serin(serin: &str, bootstrap: &Value) -> anyhow::Result<Self> {
        Self::with(serin, &[], bootstrap)
    }

    /// Runs Serin's proxy from a bootstrap with these further options; with two workers unless they say how many.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn with(serin: &str, options: &[&str], bootstrap: &Value) -> anyhow::Result<Self> {
        let workers = if options.contains(&"--concurrency") { "" } else { "2" };
        Self::run(serin, Some(options), bootstrap, workers)
    }

    /// Runs Envoy from a bootstrap.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn envoy(binary: &str, bootstrap: &Value) -> anyhow::Result<Self> {
        Self::run(binary, None, bootstrap, "2")
    }

    /// Runs Envoy from a bootstrap with one worker.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn envoy_alone(binary: &str, bootstrap: &Value) -> anyhow::Result<Self> {
        Self::run(binary, None, bootstrap, "1")
    }

    fn run(binary: &str, serin: Option<&[&str]>, bootstrap: &Value, workers: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("serin-proxy-").tempdir()?;
        let mut bootstrap = bootstrap.clone();
        bootstrap["admin"] = json!({"address": socket_address("127.0.0.1:0".parse()?)});
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, serde_json::to_string_pretty(&bootstrap)?)?;
        let address = folder.path().join("admin");
        let mut command = Command::new(binary);
        match serin {
            None => command.args(["--disable-hot-restart", "-l", "error", "--file-flush-interval-msec", "50", "-c"]),
            Some(options) => command.args(["proxy", "--drain-time", "2s"]).args(options).arg("--bootstrap"),
        };
        command.arg(&file).arg("--admin-address-path").arg(&address);
        if !workers.is_empty() {
            command.args(["--concurrency", workers]);
        }
        let mut process = Process::start(&mut command)?;
        let mut read = || match std::fs::read_to_string(&address).ok().and_then(|text| text.trim().parse().ok()) {
            Some(admin) => Some(Some(admin)),
            None => process.has_ended().then_some(None),
        };
        let admin: Option<SocketAddr> = wait_until(PATIENCE, &mut read)?;
        let admin = admin.with_context(|| format!("it ended: {}", process.stderr().join("\n")))?;
        let mut proxy = Self { process, admin, _folder: folder };
        let ready = |proxy: &mut Self| {
            let ready = proxy.page("/ready").is_ok_and(|r| r.0 == 200);
            // A port that it has left may be another's by now: what is answered there is not its word.
            if proxy.process.has_ended() { Some(false) } else { ready.then_some(true) }
        };
        let ready = wait_until(PATIENCE, || ready(&mut proxy));
        let said = || proxy.process.stderr().join("\n");
        ensure!(ready.with_context(said)?, "it ended: {}", said());
        Ok(proxy)
    }

    /// Status and text of an admin page.
    ///
    /// # Errors
    /// When the interface does not answer.
    pub fn page(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = Client::new(self.admin).get(path, &[])?;
        Ok((response.status, response.text()))
    }

    /// Where a listener really listens.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn listener(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let find = || {
            let (_, text) = self.page("/listeners?format=json").ok()?;
            let value: Value = serde_json::from_str(&text).ok()?;
            let listeners = value["listener_statuses"].as_array()?;
            let found = listeners.iter().find(|l| l["name"] == name)?;
            let socket = &found["local_address"]["socket_address"];
            let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
            Some(SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port))
        };
        wait_until(PATIENCE, find).with_context(|| format!("no listener '{name}'"))
    }

    /// A counter or gauge by its dotted name; 0 when there is none.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let text = self.page(&format!("/stats?filter={name}")).map(|(_, text)| text).unwrap_or_default();
        let prefix = format!("{name}: ");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// A `core.v3.Address`.
#[must_use]
pub fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A static cluster of these endpoints.
#[must_use]
pub fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let list: Vec<Value> = endpoints.iter().map(|a| json!({"endpoint": {"address": socket_address(*a)}})).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": list}]},
    })
}

/// A bootstrap with one listener `main` on any free port, one virtual host with these routes, and these clusters.
#[must_use]
pub fn bootstrap(routes: &Value, clusters: &[Value]) -> Value {
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let fault = json!({"name": "envoy.filters.http.fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "route_config": {"name": "main", "validate_clusters": false, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [fault, router],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    let listener = json!({
        "name": "main",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [filter]}],
    });
    json!({"static_resources": {"listeners": [listener], "clusters": clusters}})
}
