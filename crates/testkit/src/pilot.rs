//! A pilot on its own, on free ports, with a folder of documents; and proxies under it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Response};
use crate::process::{Process, wait_until};
use crate::proxy::Proxy;

/// A running pilot.
pub struct Pilot {
    /// Its process.
    pub process: Process,
    /// Where it serves proxies.
    pub xds: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
    binary: String,
}

/// Folders of a pilot: documents, and beside them its state.
pub struct Folder {
    root: TempDir,
}

impl Folder {
    /// A folder with these files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn new(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = Self { root: tempfile::Builder::new().prefix("serin-pilot-").tempdir()? };
        std::fs::create_dir(folder.documents())?;
        for (name, text) in files {
            folder.save(name, text)?;
        }
        Ok(folder)
    }

    /// Where the documents are.
    #[must_use]
    pub fn documents(&self) -> PathBuf {
        self.root.path().join("mesh")
    }

    /// A path beside the documents.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a document, in place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.documents().join(name), text)?)
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Pilot {
    /// Starts a pilot on a folder, with more arguments.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(binary: &str, folder: &Folder, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::on(binary, &folder.documents(), arguments)
    }

    /// The same on any folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn on(binary: &str, documents: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["pilot", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(documents);
        command.args(arguments).env("NO_COLOR", "1");
        let mut process = Process::start(&mut command)?;
        let line = wait_until(PATIENCE, || {
            let found = process.stderr().into_iter().find(|line| line.contains("serving proxies on "));
            if process.has_ended() { Some(None) } else { found.map(Some) }
        });
        let said = || process.stderr().join("\n");
        let line = line.with_context(said)?.with_context(said)?;
        let address = |after: &str| -> anyhow::Result<SocketAddr> {
            let rest = line.split(after).nth(1).context("no address")?;
            Ok(rest.split([',', ' ']).next().unwrap_or_default().trim().parse()?)
        };
        let (xds, admin) = (address("serving proxies on ")?, address("admin on ")?);
        Ok(Self { process, xds, admin, binary: binary.to_owned() })
    }

    /// A proxy under it: Serin's, or real Envoy when `SERIN_TEST_ENVOY` names its binary.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn proxy(&self, role: &str, workload: &str, labels: &[(&str, &str)]) -> anyhow::Result<Proxy> {
        self.proxy_by(None, role, workload, labels)
    }

    /// The same, which asks for its configuration in this variant of xDS: `GRPC` (state of the world) or `DELTA_GRPC`.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn proxy_by(
        &self,
        variant: Option<&str>,
        role: &str,
        workload: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Proxy> {
        let client = serin_xds::bootstrap::Client {
            role,
            workload,
            namespace: "default",
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            labels: labels.to_vec(),
            xds: self.xds,
        };
        let mut bootstrap = serin_xds::bootstrap::envoy(&client, "127.0.0.1:0".parse()?);
        if let Some(variant) = variant {
            bootstrap["dynamic_resources"]["ads_config"]["api_type"] = variant.into();
        }
        if std::env::var_os("SERIN_TEST_ENVOY").is_none()
            && let Some(fields) = bootstrap.as_object_mut()
        {
            // Serin's proxies tell times in their load reports, and know no metrics service.
            fields.remove("stats_sinks");
        }
        Proxy::start(&self.binary, &bootstrap)
    }

    /// What the admin interface answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn get(&self, path: &str) -> anyhow::Result<Response> {
        Client::new(self.admin).get(path, &[])
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.get(path)?;
        serde_json::from_slice(&response.body).with_context(|| format!("{path}: {}", response.text()))
    }

    /// Says something of a release; the status and the answer.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn says(&self, release: &str, action: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let path = format!("/api/v1/releases/default/{release}/{action}");
        let response = Client::new(self.admin).request("POST", &path, &[], body.to_string().as_bytes())?;
        Ok((response.status, serde_json::from_slice(&response.body).unwrap_or_default()))
    }

    /// A release's status; null while there is none.
    #[must_use]
    pub fn status(&self, release: &str) -> Value {
        self.json(&format!("/api/v1/releases/default/{release}")).map(|v| v["status"].clone()).unwrap_or_default()
    }

    /// Waits until a release's status is so.
    ///
    /// # Errors
    /// When it does not become so.
    pub fn wait_for(&self, release: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        wait_until(PATIENCE, || Some(self.status(release)).filter(|s| is(s)))
            .with_context(|| self.status(release).to_string())
    }

    /// Names of the objects in force.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let list = self.json("/debug/configz").unwrap_or_default();
        let name = |o: &Value| {
            format!("{} {}", o["kind"].as_str().unwrap_or_default(), o["name"].as_str().unwrap_or_default())
        };
        list.as_array().into_iter().flatten().map(name).collect()
    }

    /// Waits until every proxy that is connected, and so many of them, has what it should have.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn wait_synced(&self, proxies: usize) -> anyhow::Result<()> {
        wait_until(PATIENCE, || {
            let list = self.json("/debug/syncz").ok()?;
            let list = list.as_array()?;
            let synced = |p: &Value| {
                p["types"].as_array().is_some_and(|t| t.len() >= 3 && t.iter().all(|t| t["state"] == "SYNCED"))
            };
            (list.len() >= proxies && list.iter().all(synced)).then_some(())
        })
        .context("proxies are not in sync")
    }
}
