//! Where a request's instructions go: Serin under callgrind, by inclusive cost. Instructions are counted, not timed, so
//! the figure is the same on a noisy machine; what the kernel does is not in it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::case::{self, Case, Extra, Job};
use crate::configuration::envoy;
use crate::load::{self, Aim};
use crate::peer::Running;
use crate::rounds::{backend, free_port};

/// Options of `profile`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProfileOptions {
    /// Case whose requests are sent
    #[arg(long, default_value = "h1-small")]
    case: String,
    /// Number of requests to count
    #[arg(long, default_value_t = 500)]
    requests: u32,
    /// Number of functions to list
    #[arg(long, default_value_t = 40)]
    top: usize,
    /// Path of the serin binary; it needs line tables, which the dist profile has
    #[arg(long, default_value = "target/dist/serin")]
    serin: PathBuf,
}

/// Counts and prints.
pub(crate) fn run(options: &ProfileOptions) -> anyhow::Result<()> {
    let case = case::chosen(std::slice::from_ref(&options.case))?.first().copied().context("no case")?;
    if case.unable.is_some() || case.load.close || matches!(case.extra, Extra::Idle { .. }) {
        bail!("--case {}: its requests cannot be counted one by one", case.name);
    }
    let scratch = tempfile::Builder::new().prefix("serin-profile-").tempdir()?;
    let job = Job { listen: free_port()?, upstream: free_port()?, core: 0 };
    let file = scratch.path().join("bootstrap.json");
    std::fs::write(&file, envoy::bootstrap(job, case.setup).to_string())?;
    let out = scratch.path().join("callgrind.out");
    let _backend = backend(&case, job.upstream)?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--instr-atstart=no", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(&options.serin).args(["proxy", "--concurrency", "1", "--bootstrap"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running(command.spawn().context("valgrind is needed (Debian: valgrind)")?);
    running.wait_for(job.listen).context("Serin does not start under valgrind")?;

    let aim = Aim { address: job.listen, core: 1, scratch: scratch.path() };
    count(&case, aim, 100)?;
    let pid = running.0.id().to_string();
    control(&["-i", "on", &pid])?;
    count(&case, aim, options.requests)?;
    control(&["-i", "off", &pid])?;
    control(&["-d", &pid])?;
    drop(running);
    report(&out, &case, options)
}

fn count(case: &Case, aim: Aim<'_>, requests: u32) -> anyhow::Result<()> {
    let outcome = load::h2load::exactly(case, aim, requests)?;
    ensure!(outcome.failed == 0 && outcome.requests == u64::from(requests), "not all requests were answered");
    Ok(())
}

fn control(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("callgrind_control").args(arguments).output().context("valgrind is needed")?;
    ensure!(output.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn report(out: &std::path::Path, case: &Case, options: &ProfileOptions) -> anyhow::Result<()> {
    // A dump that was asked for is numbered.
    let dump = [out.with_extension("out.1"), out.to_owned()].into_iter().find(|f| f.is_file());
    let dump = dump.context("callgrind wrote nothing")?;
    let output = Command::new("callgrind_annotate").args(["--inclusive=yes", "--threshold=100"]).arg(dump).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    let total = lines.next().context("callgrind_annotate said nothing")?;
    let number =
        |line: &str| -> Option<u64> { line.trim_start().split([' ', '(']).next()?.replace(',', "").parse().ok() };
    let total = number(total).context("callgrind_annotate said no total")?;
    let per_request = |instructions: u64| instructions / u64::from(options.requests);
    let mut table = format!(
        "{}: {} instructions a request in user space, counted over {}; by inclusive cost:\n\n",
        case.name,
        per_request(total),
        options.requests
    );
    for line in lines.take(options.top) {
        let name = line.rsplit(':').next().map_or(line, |_| line.split_once(':').map_or(line, |(_, name)| name));
        let name = name.split(" [").next().unwrap_or(name);
        table.push_str(&format!("{:>8}  {name}\n", per_request(number(line).unwrap_or(0))));
    }
    eprintln!("{table}");
    Ok(())
}
