//! The demo as a fixture: real pilot, real proxies, real applications, on free ports.
//!
//! Every test that uses it runs with Serin's proxy, and with real Envoy when `SERIN_TEST_ENVOY` names its binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, wait_until};

/// A running demo.
pub struct Demo {
    /// The line that it printed when it was ready.
    pub line: Value,
    /// The demo's process.
    pub process: Process,
    rules: TempDir,
}

/// A demo that is about to start.
pub struct Builder {
    command: Command,
    rules: TempDir,
}

impl Builder {
    /// A demo of that binary, with the rules of `examples` copied to a folder of its own.
    ///
    /// # Errors
    /// When the rules cannot be copied.
    pub fn new(binary: &str, examples: &Path) -> anyhow::Result<Self> {
        let mut builder = Self::serin(binary, examples)?;
        if let Some(envoy) = std::env::var_os("SERIN_TEST_ENVOY") {
            builder.command.args(["--data-plane", "envoy", "--envoy"]).arg(envoy);
        }
        Ok(builder)
    }

    /// One that runs with Serin's proxy always.
    ///
    /// # Errors
    /// When the rules cannot be copied.
    pub fn serin(binary: &str, examples: &Path) -> anyhow::Result<Self> {
        let rules = tempfile::Builder::new().prefix("serin-rules-").tempdir()?;
        for entry in std::fs::read_dir(examples)?.flatten() {
            std::fs::copy(entry.path(), rules.path().join(entry.file_name()))?;
        }
        let mut command = Command::new(binary);
        command.args(["demo", "--free-ports", "--json", "--for", "40m", "--config"]).arg(rules.path());
        Ok(Self { command, rules })
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Writes a rule file before the start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rule(self, name: &str, text: &str) -> anyhow::Result<Self> {
        std::fs::write(self.rules.path().join(name), text)?;
        Ok(self)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(mut self) -> anyhow::Result<Demo> {
        let mut process = Process::start(&mut self.command)?;
        let line = process.first_line(Duration::from_secs(180))?;
        let line = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        Ok(Demo { line, process, rules: self.rules })
    }
}

impl Demo {
    /// Where the page is reached.
    ///
    /// # Errors
    /// When the demo's line lacks it.
    pub fn entrance(&self) -> anyhow::Result<SocketAddr> {
        let url = self.line["productpage"].as_str().context("no productpage")?;
        let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        Ok(authority.parse()?)
    }

    /// A client of the page.
    ///
    /// # Errors
    /// When the demo's line lacks the address.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.entrance()?))
    }

    /// Path of a rule file.
    #[must_use]
    pub fn rule_file(&self, name: &str) -> PathBuf {
        self.rules.path().join(name)
    }

    /// Saves a rule file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.rule_file(name), text)?)
    }

    /// What stands in a rule file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.rule_file(name))?)
    }

    /// The entries of the demo's line for a service.
    #[must_use]
    pub fn proxies(&self, service: &str) -> Vec<Value> {
        let all = self.line["proxies"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|p| p["service"] == service).collect()
    }

    /// Waits until the pilot says that every connected proxy has what it should have.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn wait_synced(&self, patience: Duration) -> anyhow::Result<()> {
        let admin = self.line["pilot"]["admin"].as_str().context("no pilot admin")?;
        let address: SocketAddr = admin.trim_start_matches("http://").parse()?;
        let expected = self.line["proxies"].as_array().map_or(0, Vec::len);
        wait_until(patience, || {
            let response = Client::new(address).get("/debug/syncz", &[]).ok()?;
            let list: Value = serde_json::from_slice(&response.body).ok()?;
            let list = list.as_array()?;
            let synced = |p: &Value| {
                p["types"].as_array().is_some_and(|t| t.len() >= 4 && t.iter().all(|t| t["state"] == "SYNCED"))
            };
            (list.len() >= expected && list.iter().all(synced)).then_some(())
        })
        .context("proxies are not in sync")
    }

    /// Ends the demo and makes sure that it left nothing behind.
    ///
    /// # Errors
    /// When a process of its is still there.
    pub fn end(mut self) -> anyhow::Result<()> {
        let pids: Vec<u32> = self.pids();
        self.process.terminate(Duration::from_secs(20))?;
        let left: Vec<u32> = pids.into_iter().filter(|pid| is_ours(*pid)).collect();
        ensure!(left.is_empty(), "left running: {left:?}");
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let proxies = self.line["proxies"].as_array().cloned().unwrap_or_default();
        let mut pids: Vec<u32> =
            proxies.iter().flat_map(|p| [number(&p["pid"]), number(&p["app_pid"])]).flatten().collect();
        pids.extend(number(&self.line["pilot"]["pid"]));
        pids
    }
}

/// Whether a process of that id exists and is one of the demo's.
fn is_ours(pid: u32) -> bool {
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.contains("serin") || command.contains("envoy")
}
