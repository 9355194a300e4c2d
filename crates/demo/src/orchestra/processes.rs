//! The processes: starting, restarting, ending them.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::documents::{GATEWAY_NAME, GATEWAY_NAMESPACE, bootstrap_file};
use super::options::DataPlane;
use super::plan::{Part, Plan};

/// A process ended.
pub(super) struct Ended {
    pub(super) part: Part,
    pub(super) pid: u32,
    pub(super) status: Option<ExitStatus>,
}

/// All of them.
pub(super) struct Processes {
    executable: PathBuf,
    running: Vec<(Part, u32)>,
    sender: mpsc::UnboundedSender<Ended>,
    pub(super) ended: mpsc::UnboundedReceiver<Ended>,
}

impl Processes {
    /// Starts everything.
    pub(super) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let (sender, ended) = mpsc::unbounded_channel();
        let executable = std::env::current_exe().context("cannot find my own program")?;
        let mut processes = Self { executable, running: Vec::new(), sender, ended };
        processes.launch(plan, Part::Pilot)?;
        for index in 0..plan.instances.len() {
            processes.launch(plan, Part::App(index))?;
        }
        for (index, instance) in plan.instances.iter().enumerate() {
            if instance.proxy.is_some() {
                processes.launch(plan, Part::Proxy(index))?;
            }
        }
        processes.launch(plan, Part::Gateway)?;
        Ok(processes)
    }

    /// Starts one.
    pub(super) fn launch(&mut self, plan: &Plan, part: Part) -> anyhow::Result<()> {
        let mut command = Command::new(&self.executable);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::env::var("SERIN_LOG").unwrap_or_else(|_| quiet(part).to_owned());
        command.env("SERIN_LOG", log);
        describe(&mut command, plan, part);
        let child = command.spawn().with_context(|| format!("cannot start {part:?}"))?;
        let pid = child.id().unwrap_or_default();
        self.running.push((part, pid));
        tokio::spawn(wait(child, part, pid, self.sender.clone()));
        Ok(())
    }

    /// The process id of a part, while it runs.
    pub(super) fn pid(&self, part: Part) -> Option<u32> {
        self.running.iter().find(|(p, _)| *p == part).map(|(_, pid)| *pid)
    }

    /// Forgets a process that ended.
    pub(super) fn forget(&mut self, pid: u32) {
        self.running.retain(|(_, p)| *p != pid);
    }

    /// Ends everything: told twice, then killed.
    pub(super) async fn end_all(&mut self) {
        for signal in [Signal::TERM, Signal::TERM, Signal::KILL] {
            for (_, pid) in &self.running {
                if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                    let _ = kill_process(pid, signal);
                }
            }
            let patience = Duration::from_millis(if self.running.len() > 20 { 700 } else { 400 });
            let _ = tokio::time::timeout(patience, self.all_ended()).await;
            if self.running.is_empty() {
                return;
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.all_ended()).await;
    }

    async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            match self.ended.recv().await {
                Some(ended) => self.forget(ended.pid),
                None => return,
            }
        }
    }
}

/// The log filter of a part while nobody asks for more.
fn quiet(part: Part) -> &'static str {
    match part {
        Part::Pilot => "warn,serin_applied=info",
        Part::App(_) | Part::Proxy(_) | Part::Gateway => "error",
    }
}

async fn wait(mut child: Child, part: Part, pid: u32, sender: mpsc::UnboundedSender<Ended>) {
    let status = child.wait().await.ok();
    let _ = sender.send(Ended { part, pid, status });
}

fn describe(command: &mut Command, plan: &Plan, part: Part) {
    match part {
        Part::Pilot => {
            command.arg("pilot").arg("--exit-with-parent");
            command.arg("--config").arg(&plan.registry).arg("--config").arg(&plan.rules);
            command.args(["--xds", &plan.pilot_xds.to_string(), "--admin", &plan.pilot_admin.to_string()]);
            command.arg("--state").arg(plan.scratch.join("releases.json"));
        }
        Part::App(index) => describe_app(command, plan, index),
        Part::Proxy(index) => {
            let Some(instance) = plan.instances.get(index) else { return };
            let Some(proxy) = &instance.proxy else { return };
            let labels: Vec<String> = instance.labels().iter().map(|(k, v)| format!("{k}={v}")).collect();
            let identity = Identity { name: &instance.name, namespace: "default", labels: &labels.join(",") };
            describe_proxy(command, plan, &identity, &proxy.admin.to_string());
        }
        Part::Gateway => {
            let (name, namespace) = (GATEWAY_NAME, GATEWAY_NAMESPACE);
            let identity = Identity { name, namespace, labels: "istio=ingressgateway" };
            describe_proxy(command, plan, &identity, &plan.gateway.admin.to_string());
            if plan.data_plane == DataPlane::Serin {
                command.arg("--gateway");
            }
        }
    }
}

fn describe_app(command: &mut Command, plan: &Plan, index: usize) {
    let Some(instance) = plan.instances.get(index) else { return };
    command.arg("demo-app").args(["--service", instance.service, "--version", instance.version]);
    command.args(["--name", &instance.name, "--listen", &instance.app.to_string()]);
    let faults = plan.scenario.map(|s| s.faults(&instance.name, instance.service, instance.version));
    command.args(faults.unwrap_or_default());
    match &instance.proxy {
        Some(proxy) => {
            command.args(["--mesh", &proxy.outbound.to_string()]);
        }
        None => {
            let others: Vec<String> =
                plan.instances.iter().map(|i| format!("{}={}", i.service, i.reached_at())).collect();
            command.args(["--direct", &others.join(",")]);
        }
    }
}

/// The workload that a proxy serves, as the pilot knows it.
struct Identity<'a> {
    name: &'a str,
    namespace: &'a str,
    /// `key=value`, separated by commas.
    labels: &'a str,
}

fn describe_proxy(command: &mut Command, plan: &Plan, identity: &Identity<'_>, admin: &str) {
    let Identity { name, namespace, labels } = *identity;
    if plan.data_plane == DataPlane::Envoy {
        command.arg("demo-envoy").arg("--envoy").arg(&plan.envoy);
        command.arg("--config").arg(bootstrap_file(plan, name)).args(["--admin", admin]);
        return;
    }
    command.arg("proxy").arg("--exit-with-parent");
    command.args([
        "--xds",
        &plan.pilot_xds.to_string(),
        "--workload",
        name,
        "--namespace",
        namespace,
        "--labels",
        labels,
    ]);
    command.args(["--admin", admin, "--concurrency", "1", "--drain-time", "2s"]);
}
