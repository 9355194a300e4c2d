//! The rounds: every contender once in each, so that only neighbours in time are compared.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::case::{self, Case};
use crate::peer::{Job, Peer, Running};
use crate::report::{Measured, Report};
use crate::{ProxyOptions, cpu, load};

/// The contender's core.
const CORE: usize = 0;
/// Load and backend.
const OTHER: usize = 1;

/// Runs everything and writes the report.
pub(crate) fn run(options: &ProxyOptions) -> anyhow::Result<()> {
    ensure!(std::thread::available_parallelism()?.get() > 1, "two processors are needed: one for the contender alone");
    let cases = case::chosen(&options.cases)?;
    let mut peers = vec![Peer::Serin];
    for name in &options.peers {
        peers.push(Peer::parse(name)?);
    }
    let mut report = Report::new(options);
    peers.retain(|peer| match peer.missing(options) {
        None => true,
        Some(reason) => {
            eprintln!("not measured: {reason}");
            report.missing.push(reason);
            false
        }
    });
    ensure!(peers.first() == Some(&Peer::Serin), "Serin itself must be there: {}", report.missing.join("; "));
    let scratch = tempfile::Builder::new().prefix("serin-bench-").tempdir()?;
    let (upstream, listen) = (free_port()?, free_port()?);
    let _backend = backend(upstream)?;
    for case in &cases {
        if case.close && peers.contains(&Peer::Floor) {
            report.missing.push(format!("floor with {}: it closes nothing, so it cannot end a connection", case.name));
        }
        for round in 0..options.rounds {
            for peer in peers.iter().filter(|p| !(case.close && **p == Peer::Floor)) {
                let job = Job { listen, upstream, core: CORE };
                let measured = measure(*peer, case, job, options, scratch.path())
                    .with_context(|| format!("{} with {}", case.name, peer.name()))?;
                eprintln!(
                    "{:<10} round {:>2}  {:<8} {:>7.2} µs/request  {:>7} requests  {} failed{}",
                    case.name,
                    round + 1,
                    peer.name(),
                    measured.micros,
                    measured.requests,
                    measured.failed,
                    if measured.disturbed { "  (disturbed)" } else { "" },
                );
                report.add(case, round, *peer, measured);
            }
        }
    }
    report.write(&options.output)
}

fn measure(
    peer: Peer,
    case: &Case,
    job: Job,
    options: &ProxyOptions,
    scratch: &std::path::Path,
) -> anyhow::Result<Measured> {
    let running = peer.start(job, options, scratch)?;
    let pid = running.0.id();
    load::run(case, job.listen, OTHER, 1, scratch)?;
    let (before, busy) = (cpu::usage(pid), cpu::busy(CORE));
    let outcome = load::run(case, job.listen, OTHER, options.seconds, scratch)?;
    let (after, busy) = (cpu::usage(pid), cpu::busy(CORE).saturating_sub(busy));
    let nanos = after.nanos - before.nanos;
    let ticks = (after.user + after.system).saturating_sub(before.user + before.system).max(1) as f64;
    let others = busy.saturating_sub(nanos) as f64 / (f64::from(options.seconds) * 1e9);
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

fn backend(listen: SocketAddr) -> anyhow::Result<Running> {
    let mut command = Command::new("taskset");
    command.args(["-c", &OTHER.to_string()]).arg(std::env::current_exe()?).arg("backend");
    command.args(["--listen", &listen.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let running = Running(command.spawn().context("taskset is needed (Debian: util-linux)")?);
    std::thread::sleep(Duration::from_millis(300));
    Ok(running)
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
