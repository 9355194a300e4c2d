//! The process of simulated proxies, seen from the one that measures.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use super::session::{KINDS, Kind, Mode};
use crate::peer::Running;

/// The clients and their process.
pub(crate) struct Fleet {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    process: Running,
}

/// The classes that clients are distributed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Classes {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// The state of all clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Clients that lack something.
    pub(crate) waiting: usize,
    /// Time of the last acknowledgement.
    pub(crate) last: u64,
    /// Streams that failed.
    pub(crate) broken: u64,
    /// The reason of one failure.
    pub(crate) error: Option<String>,
}

/// Counts of some clients since they began to expect something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Times of the last acknowledgement of every client that lacks nothing.
    pub(crate) last: Vec<u64>,
    /// The same of every client.
    pub(crate) all: Vec<u64>,
    pub(crate) bytes: u64,
    pub(crate) responses: u64,
    pub(crate) resources: [u64; KINDS.len()],
}

/// The types of which one must come.
pub(crate) type OneOf = &'static [Kind];

impl Fleet {
    /// Starts the process.
    pub(crate) fn start(server: SocketAddr, mode: Mode, threads: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pilot-clients", "--server", &server.to_string(), "--mode", mode.name()]);
        command.args(["--threads", &threads.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("the clients have no input")?;
        let output = child.stdout.take().context("the clients have no output")?;
        Ok(Self { input, output: BufReader::new(output).lines(), process: Running(child) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn ask(&mut self, command: &str) -> anyhow::Result<Value> {
        writeln!(self.input, "{command}").context("the clients ended")?;
        let line = self.output.next().context("the clients ended")??;
        Ok(serde_json::from_str(&line)?)
    }

    /// Begins to connect clients.
    pub(crate) fn connect(&mut self, clients: &Range<usize>, classes: Classes) -> anyhow::Result<()> {
        let Classes { first, count } = classes;
        self.ask(&format!("connect {} {} {first} {count}", clients.start, clients.end)).map(drop)
    }

    /// Closes the connections of clients.
    pub(crate) fn disconnect(&mut self, clients: &Range<usize>) -> anyhow::Result<()> {
        self.ask(&format!("disconnect {} {}", clients.start, clients.end)).map(drop)
    }

    /// Sets all counts to nothing; these clients then wait for a response of each set of types.
    pub(crate) fn expect(&mut self, clients: &Range<usize>, types: &[OneOf]) -> anyhow::Result<()> {
        let mask = |one_of: &OneOf| one_of.iter().fold(0, |mask, kind| mask | kind.bit()).to_string();
        let masks: Vec<String> = types.iter().map(mask).collect();
        self.ask(&format!("expect {} {} {}", clients.start, clients.end, masks.join(","))).map(drop)
    }

    /// Returns the state of the clients.
    pub(crate) fn poll(&mut self) -> anyhow::Result<State> {
        let said = self.ask("poll")?;
        let number = |name: &str| said[name].as_u64().unwrap_or(0);
        Ok(State {
            waiting: number("waiting") as usize,
            last: number("last"),
            broken: number("broken"),
            error: said["error"].as_str().map(str::to_owned),
        })
    }

    /// Returns the counts of clients.
    pub(crate) fn collect(&mut self, clients: &Range<usize>) -> anyhow::Result<Counts> {
        let said = self.ask(&format!("collect {} {}", clients.start, clients.end))?;
        let numbers = |name: &str| -> Vec<u64> {
            said[name].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        let mut counts = Counts {
            last: numbers("last"),
            all: numbers("all"),
            bytes: said["bytes"].as_u64().unwrap_or(0),
            responses: said["responses"].as_u64().unwrap_or(0),
            ..Counts::default()
        };
        counts.resources.iter_mut().zip(numbers("resources")).for_each(|pair| *pair.0 = pair.1);
        Ok(counts)
    }
}
