//! The rounds: every contender once in each, so that only neighbours in time are compared.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::calls::Calls;
use crate::case::{self, Case, Extra, Job};
use crate::load::{self, Aim, paced};
use crate::peer::{Peer, Running};
use crate::report::{Idle, Measured, Report};
use crate::{ProxyOptions, cpu};

/// The contender's core.
pub(crate) const CORE: usize = 0;
/// Load and backend.
pub(crate) const OTHER: usize = 1;

/// Runs everything and writes the report.
pub(crate) fn run(options: &ProxyOptions) -> anyhow::Result<()> {
    ensure!(std::thread::available_parallelism()?.get() > 1, "two processors are needed: one for the contender alone");
    raise_descriptor_limit();
    let cases = case::chosen(&options.cases)?;
    let mut peers = vec![Peer::Serin];
    for name in &options.peers {
        peers.push(Peer::parse(name)?);
    }
    let scratch = tempfile::Builder::new().prefix("serin-bench-").tempdir()?;
    let job = Job { listen: free_port()?, upstream: free_port()?, core: CORE };
    let mut bench = Bench { options, job, scratch: scratch.path(), report: Report::new(options) };
    for group in case::groups(&cases) {
        let mut contenders = Vec::new();
        for case in &group {
            contenders.push((*case, bench.contenders(case, &peers)?));
        }
        for round in 0..options.rounds {
            for (case, peers) in &contenders {
                for peer in peers {
                    bench.round(case, *peer, round).with_context(|| format!("{} with {}", case.name, peer.name()))?;
                }
            }
        }
        for (case, peers) in &contenders {
            bench.extras(case, peers).with_context(|| case.name)?;
        }
        // What is measured is kept, whatever comes next.
        bench.report.write(&options.output)?;
    }
    eprintln!("\n{}", bench.report.markdown());
    Ok(())
}

struct Bench<'a> {
    options: &'a ProxyOptions,
    job: Job,
    scratch: &'a Path,
    report: Report,
}

impl Bench<'_> {
    /// Who takes part in a case; the report says who does not, and why.
    fn contenders(&mut self, case: &Case, peers: &[Peer]) -> anyhow::Result<Vec<Peer>> {
        if let Some(reason) = case.unable {
            self.report.missing.push(format!("{} ({}): {reason}", case.name, case.about));
            return Ok(Vec::new());
        }
        let mut able = Vec::new();
        for peer in peers {
            let reason = match (peer.unable(case), peer.program(case.setup, self.options)) {
                (Some(reason), _) => reason.to_owned(),
                (None, Err(error)) => format!("{error:#}"),
                (None, Ok(program)) => {
                    self.report.version(*peer, &program);
                    able.push(*peer);
                    continue;
                }
            };
            eprintln!("not measured: {} with {}: {reason}", case.name, peer.name());
            self.report.missing.push(format!("{} with {}: {reason}", case.name, peer.name()));
        }
        Ok(if able.first() == Some(&Peer::Serin) { able } else { Vec::new() })
    }

    fn aim(&self) -> Aim<'_> {
        Aim { address: self.job.listen, core: OTHER, scratch: self.scratch }
    }

    fn start(&self, case: &Case, peer: Peer) -> anyhow::Result<(Running, Running)> {
        let backend = backend(case, self.job.upstream)?;
        Ok((peer.start(self.job, case.setup, self.options, self.scratch)?, backend))
    }

    /// One measurement of a round.
    fn round(&mut self, case: &Case, peer: Peer, round: usize) -> anyhow::Result<()> {
        if let Extra::Idle { finished } = case.extra {
            let idle = self.idle(case, peer, finished)?;
            eprintln!(
                "{:<13} round {:>2}  {:<8} {:>8.0} bytes/connection",
                case.name,
                round + 1,
                peer.name(),
                idle.bytes
            );
            self.report.add_idle(case, peer, idle);
            return Ok(());
        }
        let measured = self.measure(case, peer)?;
        eprintln!(
            "{:<13} round {:>2}  {:<8} {:>7.2} µs/request  {:>7} requests  {} failed{}",
            case.name,
            round + 1,
            peer.name(),
            measured.micros,
            measured.requests,
            measured.failed,
            if measured.disturbed { "  (disturbed)" } else { "" },
        );
        self.report.add(case, peer, measured);
        Ok(())
    }

    fn measure(&self, case: &Case, peer: Peer) -> anyhow::Result<Measured> {
        let (running, _backend) = self.start(case, peer)?;
        let (pid, seconds) = (running.0.id(), self.options.seconds);
        load::run(case, self.aim(), 1)?;
        let (before, busy) = (cpu::usage(pid), cpu::busy(CORE));
        let outcome = load::run(case, self.aim(), seconds)?;
        let (after, busy) = (cpu::usage(pid), cpu::busy(CORE).saturating_sub(busy));
        let nanos = after.nanos - before.nanos;
        let ticks = (after.user + after.system).saturating_sub(before.user + before.system).max(1) as f64;
        let others = busy.saturating_sub(nanos) as f64 / (f64::from(seconds) * 1e9);
        ensure!(outcome.requests > 0, "not one request was answered");
        Ok(Measured {
            micros: nanos as f64 / 1e3 / outcome.requests as f64,
            user: (after.user - before.user) as f64 / ticks,
            requests: outcome.requests,
            failed: outcome.failed,
            resident: cpu::resident(pid),
            disturbed: others > 0.05,
        })
    }

    /// What is measured once the rounds are done: system calls, latency at half of what the slowest takes.
    fn extras(&mut self, case: &Case, peers: &[Peer]) -> anyhow::Result<()> {
        if matches!(case.extra, Extra::Idle { .. }) {
            return Ok(());
        }
        for peer in peers {
            if let Some(calls) = self.calls(case, *peer)? {
                self.report.add_calls(case, *peer, calls);
            }
        }
        let Some(peak) = self.report.slowest(case).filter(|_| case.extra == Extra::Latency) else { return Ok(()) };
        let rate = (peak / 2.0 / f64::from(self.options.seconds)).floor();
        for round in 0..self.options.rounds {
            for peer in peers {
                let _running = self.start(case, *peer)?;
                load::run(case, self.aim(), 1)?;
                let latency = paced::run(case, self.aim(), rate, f64::from(self.options.seconds))?;
                eprintln!(
                    "{:<13} round {:>2}  {:<8} at {rate}/s: p50 {:.0} p99 {:.0} p99.9 {:.0} µs",
                    case.name,
                    round + 1,
                    peer.name(),
                    latency.p50,
                    latency.p99,
                    latency.p999
                );
                self.report.add_latency(case, *peer, rate, latency);
            }
        }
        Ok(())
    }

    /// System calls a request.
    fn calls(&self, case: &Case, peer: Peer) -> anyhow::Result<Option<f64>> {
        let (running, _backend) = self.start(case, peer)?;
        load::run(case, self.aim(), 1)?;
        let Some(calls) = Calls::of(&cpu::family(running.0.id())) else { return Ok(None) };
        let outcome = load::run(case, self.aim(), 1)?;
        Ok(calls.end().map(|calls| calls as f64 / outcome.requests as f64))
    }

    /// Memory of connections that did something and wait.
    fn idle(&self, case: &Case, peer: Peer, finished: u32) -> anyhow::Result<Idle> {
        const FIRST: u32 = 20;
        let (running, _backend) = self.start(case, peer)?;
        let pid = running.0.id();
        let h2 = case.setup.front.is_h2();
        let open = |count: u32| -> anyhow::Result<Vec<_>> {
            (0..count).map(|_| load::idle::open(self.job.listen, h2, finished)).collect()
        };
        let _first = open(FIRST)?;
        std::thread::sleep(Duration::from_millis(500));
        let before = cpu::resident(pid);
        let _rest = open(case.load.connections)?;
        std::thread::sleep(Duration::from_millis(500));
        let after = cpu::resident(pid);
        let grown = after.saturating_sub(before) as f64 * 1024.0;
        Ok(Idle { before, bytes: grown / f64::from(case.load.connections) })
    }
}

pub(crate) fn backend(case: &Case, listen: SocketAddr) -> anyhow::Result<Running> {
    let mut command = Command::new("taskset");
    command.args(["-c", &OTHER.to_string()]).arg(std::env::current_exe()?).arg("backend");
    command.args(["--listen", &listen.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    if case.setup.back.is_h2() {
        command.arg("--http2");
    }
    if case.load.messages > 0 {
        command.args(["--messages", &case.load.messages.to_string()]);
    }
    let mut running = Running(command.spawn().context("taskset is needed (Debian: util-linux)")?);
    running.wait_for(listen).context("the backend does not start")?;
    Ok(running)
}

pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Thousands of connections need as many descriptors, here and in the contenders.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
