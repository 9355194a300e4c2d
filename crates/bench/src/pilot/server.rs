//! The pilots that are measured: Serin's, and istiod where somebody has it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::peer::Running;

/// A program that is a pilot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    Serin(PathBuf),
    Istiod(PathBuf),
}

/// A pilot that runs.
pub(crate) struct Server {
    pub(crate) xds: SocketAddr,
    begun: Begun,
}

/// The plain-text port of istiod.
const ISTIOD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15010);

/// The last lines that a program wrote.
type Said = Arc<Mutex<VecDeque<String>>>;

impl Program {
    /// Returns the program of `NAME=PATH`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('=') {
            Some(("istiod", path)) if !path.is_empty() => Ok(Self::Istiod(path.into())),
            _ => bail!("'{text}' is not istiod=PATH"),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Serin(_) => "serin",
            Self::Istiod(_) => "istiod",
        }
    }

    /// Starts the program on a folder of documents and waits until it serves.
    pub(crate) fn start(&self, folder: &Path, scratch: &Path) -> anyhow::Result<Server> {
        match self {
            Self::Serin(path) => start_serin(path, folder),
            Self::Istiod(path) => start_istiod(path, folder, scratch),
        }
    }
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.begun.process.0.id()
    }

    /// Fails with the program's own words when it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.begun.check()
    }
}

fn start_serin(path: &Path, folder: &Path) -> anyhow::Result<Server> {
    let mut command = Command::new(path);
    command.args(["pilot", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", "none", "--config"]);
    command.arg(folder).env("NO_COLOR", "1");
    let mut begun = Begun::start(command)?;
    let line = begun.wait(|said| Some(said.iter().find(|line| line.contains("serving proxies on "))?.clone()))?;
    let address = line.split("serving proxies on ").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    let xds = address.and_then(|address| address.parse().ok()).with_context(|| format!("no address in '{line}'"))?;
    Ok(Server { xds, begun })
}

/// Starts istiod without Kubernetes: its documents come from files, and its certificates are not needed in plain text.
fn start_istiod(path: &Path, folder: &Path, scratch: &Path) -> anyhow::Result<Server> {
    let mesh = scratch.join("mesh-config.yaml");
    std::fs::write(&mesh, "rootNamespace: istio-system\n")?;
    let mut command = Command::new(path);
    command.args(["discovery", "--registries", "Mock", "--configDir"]).arg(folder).arg("--meshConfig").arg(mesh);
    command.args(["--grpcAddr", &ISTIOD.to_string(), "--httpAddr", "127.0.0.1:0", "--monitoringAddr", "127.0.0.1:0"]);
    command.args(["--httpsAddr", "", "--secureGRPCAddr", "", "--ctrlz_port", "0"]);
    command.env("POD_NAMESPACE", "istio-system").env("ENABLE_CA_SERVER", "false").current_dir(scratch);
    let mut begun = Begun::start(command)?;
    begun.wait(|_| std::net::TcpStream::connect(ISTIOD).ok().map(drop))?;
    Ok(Server { xds: ISTIOD, begun })
}

/// A program that may not serve yet.
struct Begun {
    process: Running,
    said: Said,
}

impl Begun {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().display().to_string();
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let said = Said::default();
        follow(child.stdout.take(), &said);
        follow(child.stderr.take(), &said);
        Ok(Self { process: Running(child), said })
    }

    /// Waits until `ready` returns something; fails with the program's own words when it ends.
    fn wait<T>(&mut self, ready: impl Fn(&VecDeque<String>) -> Option<T>) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(found) = ready(&said) {
                return Ok(found);
            }
            self.check()?;
            if started.elapsed() > Duration::from_secs(60) {
                bail!("the pilot does not serve after 60 s:\n{}", self.words());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.0.try_wait()? {
            bail!("the pilot ended with {status}:\n{}", self.words());
        }
        Ok(())
    }

    /// Returns the last lines, once what was written before the end has been read.
    fn words(&self) -> String {
        std::thread::sleep(Duration::from_millis(300));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// Keeps the last lines of an output, for as long as it is written.
fn follow(output: Option<impl Read + Send + 'static>, said: &Said) {
    let said = said.clone();
    let keep = move |line: String| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(line);
        if said.len() > 40 {
            said.pop_front();
        }
    };
    if let Some(output) = output {
        std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).for_each(keep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_and_a_path() {
        assert_eq!(Program::parse("istiod=/a").unwrap(), Program::Istiod("/a".into()));
        assert!(Program::parse("istiod=").is_err());
        assert!(Program::parse("linkerd=/a").is_err());
    }

    #[test]
    fn a_pilot_that_ends_is_quoted() {
        let error = Program::Serin("/bin/echo".into()).start(Path::new("/"), Path::new("/")).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("--state none"), "{error:#}");
    }
}
