//! `serin release simulate`: how a plan would go under made-up or recorded traffic.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serin_delivery::{
    Action, Applied, Arm, Command, EventKind, Evidence, Phase, Said, Status, advance, command, overlay,
};
use serin_model::{Analysis, Release};

use super::plan::{releases, time};

/// The longest simulation, in seconds.
const LIMIT: u64 = 30 * 24 * 3600;

/// Options of `simulate`.
#[derive(Debug, Clone, Args)]
pub(super) struct SimulateOptions {
    /// File with a Release document
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Use recorded traffic instead of generated traffic: CSV with the columns second, requests and failed, and with
    /// candidate_requests and candidate_failed if there was a candidate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rps", "error_rate", "candidate_error_rate", "slower"])]
    traffic: Option<PathBuf>,
    /// Requests per second to the service
    #[arg(long, default_value_t = 50.0)]
    rps: f64,
    /// Percentage of the stable version's requests that fail
    #[arg(long, default_value_t = 0.1)]
    error_rate: f64,
    /// Percentage of the candidate's requests that fail; default: the same as --error-rate
    #[arg(long)]
    candidate_error_rate: Option<f64>,
    /// Factor by which the candidate's requests are slower
    #[arg(long, default_value_t = 1.0)]
    slower: f64,
    /// Seed of the random numbers; another seed generates other traffic
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn simulate(options: &SimulateOptions) -> anyhow::Result<ExitCode> {
    let (releases, broken) = releases(&options.file)?;
    let Some(release) = releases.into_iter().next().filter(|_| !broken) else {
        bail!("{}: no sound Release in it", options.file.display());
    };
    // Nobody is there to be asked.
    let analysis = Analysis { queries: Vec::new(), ..release.analysis.clone() };
    let release = &Release { analysis, ..release };
    let mut traffic = Traffic::new(options)?;
    let mut status = Status::default();
    let mut weights = Vec::new();
    let mut out = format!("{:>8}  {:<18} {:>8}  {}\n", "TIME", "PHASE", "WEIGHT", "WHAT");
    let (mut now, mut answered) = (0u64, 0);
    while now < LIMIT * 1000 {
        let share = overlay(release, &status).map_or(0.0, |o| o.weight.percent() / 100.0);
        if !traffic.second(share) {
            let _ = writeln!(out, "{:>8}  the recorded traffic ends", time(now as f64 / 1000.0));
            break;
        }
        weights.push(status.weights.configured);
        now += 1000;
        let (mut events, actions) = advance(release, &mut status, &traffic.evidence, now);
        for action in actions {
            let Action::Hook(hook) = action else { continue };
            let says = Command::Hooked { hook, result: Ok(()) };
            events.extend(
                command(release, &mut status, &traffic.evidence, Said::new("simulated", says), now).unwrap_or_default(),
            );
        }
        if status.phase == Phase::AwaitingApproval && answered != status.since {
            answered = status.since;
            let says = Command::Approve("in the simulation".to_owned());
            events.extend(
                command(release, &mut status, &traffic.evidence, Said::new("simulated", says), now).unwrap_or_default(),
            );
        }
        for event in events.iter().filter(|e| e.event != EventKind::Evidence && !e.reason.is_empty()) {
            let phase = event.phase.words();
            let _ = writeln!(
                out,
                "{:>8}  {phase:<18} {:>6} %  {}",
                time(now as f64 / 1000.0),
                event.weights.configured,
                event.reason
            );
        }
        if status.phase.is_final() || status.held {
            break;
        }
    }
    let candidate = &traffic.evidence.candidate;
    let _ = writeln!(out, "\n{}  {} after {}", drawn(&weights), status.phase.words(), time(now as f64 / 1000.0));
    let _ = writeln!(out, "{} requests reached the candidate, {} failed.", candidate.requests, candidate.failed);
    super::print(&out)?;
    Ok(match status.phase {
        Phase::Promoted => ExitCode::SUCCESS,
        Phase::RolledBack => ExitCode::from(1),
        _ => ExitCode::from(2),
    })
}

/// The candidate's weight over the time, in a line.
fn drawn(weights: &[f64]) -> String {
    const COLUMNS: usize = 60;
    const LEVELS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = weights.len().div_ceil(COLUMNS).max(1);
    let level = |part: &[f64]| {
        let most = part.iter().copied().fold(0.0, f64::max);
        LEVELS.get((most / 100.0 * 8.0).ceil() as usize).copied().unwrap_or('█')
    };
    weights.chunks(width).map(level).collect()
}

/// Requests of one second: all of them, and how likely one of each version fails.
struct Second {
    requests: u64,
    failing: f64,
    candidate_failing: f64,
}

/// Requests, made up or recorded.
struct Traffic<'a> {
    options: &'a SimulateOptions,
    recorded: Option<VecDeque<Second>>,
    evidence: Evidence,
    rng: fastrand::Rng,
    owed: f64,
}

impl<'a> Traffic<'a> {
    fn new(options: &'a SimulateOptions) -> anyhow::Result<Self> {
        let applied = Applied { done: 1, of: 1, ..Applied::default() };
        let evidence =
            Evidence { applied, stable_ready: 1, candidate_ready: 1, baseline_ready: 1, ..Evidence::default() };
        let recorded = options.traffic.as_ref().map(|file| {
            let text = serin_folders::read_file(file)
                .text
                .map_err(|why| anyhow::anyhow!("cannot read {}: {why}", file.display()))?;
            recorded(&text).with_context(|| format!("in {}", file.display()))
        });
        let rng = fastrand::Rng::with_seed(options.seed);
        Ok(Self { options, recorded: recorded.transpose()?, evidence, rng, owed: 0.0 })
    }

    /// A second goes by; false when there is nothing more.
    fn second(&mut self, share: f64) -> bool {
        let second = match &mut self.recorded {
            Some(recorded) => match recorded.pop_front() {
                Some(second) => second,
                None => return false,
            },
            None => {
                self.owed += self.options.rps;
                let requests = self.owed as u64;
                self.owed -= requests as f64;
                let failing = self.options.error_rate / 100.0;
                let worse = self.options.candidate_error_rate.map_or(failing, |rate| rate / 100.0);
                Second { requests, failing, candidate_failing: worse }
            }
        };
        for _ in 0..second.requests {
            let candidate = self.rng.f64() < share;
            let failing = if candidate { second.candidate_failing } else { second.failing };
            let failed = self.rng.f64() < failing;
            // Times as they are: a long tail above some tens of milliseconds.
            let slower = if candidate { self.options.slower } else { 1.0 };
            let millis = 20.0 * slower * (-(1.0 - self.rng.f64()).ln()).powf(1.5) + 5.0;
            let arm: &mut Arm = if candidate { &mut self.evidence.candidate } else { &mut self.evidence.stable };
            arm.requests += 1;
            arm.failed += u64::from(failed);
            let bound = 2f64.powf(((millis * 1000.0).log2() * 8.0).ceil() / 8.0) as u64;
            *arm.times.entry(bound).or_default() += 1;
        }
        true
    }
}

/// Reads recorded traffic. Seconds that are left out had no requests; where the candidate had none, it fails as the other does.
fn recorded(text: &str) -> anyhow::Result<VecDeque<Second>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().context("it is empty")?;
    let columns: Vec<&str> = header.split(',').map(str::trim).collect();
    let place = |name: &str| columns.iter().position(|c| *c == name);
    let needed = |name: &str| place(name).with_context(|| format!("line 1: there is no column {name}"));
    let (at, requests, failed) = (needed("second")?, needed("requests")?, needed("failed")?);
    let candidate = (place("candidate_requests"), place("candidate_failed"));
    let mut seconds: VecDeque<Second> = VecDeque::new();
    let mut first = None;
    for (number, line) in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |column: usize| -> anyhow::Result<u64> {
            let text = cells.get(column).copied().unwrap_or_default();
            text.parse().with_context(|| format!("line {}: '{text}' is not a number", number + 1))
        };
        let (all, bad) = (cell(requests)?, cell(failed)?);
        let (own, own_bad) = match candidate {
            (Some(own), Some(own_bad)) => (cell(own)?, cell(own_bad)?),
            _ => (0, 0),
        };
        let offset = cell(at)?.checked_sub(*first.get_or_insert(cell(at)?));
        let offset = offset.filter(|o| *o as usize >= seconds.len() && *o < LIMIT);
        let offset = offset.with_context(|| format!("line {}: its second does not follow", number + 1))?;
        anyhow::ensure!(
            bad <= all && own_bad <= own && own <= all && own_bad <= bad,
            "line {}: requests and failed are of both versions together, and at least the candidate's",
            number + 1
        );
        let rate = |bad: u64, all: u64| bad as f64 / all.max(1) as f64;
        let failing = rate(bad - own_bad, all - own);
        let candidate_failing = if own == 0 { failing } else { rate(own_bad, own) };
        seconds.resize_with(offset as usize, || Second { requests: 0, failing: 0.0, candidate_failing: 0.0 });
        seconds.push_back(Second { requests: all, failing, candidate_failing });
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_traffic_is_read_second_by_second() {
        let text = "second,requests,failed,candidate_requests,candidate_failed\n100,10,2,4,2\n102,5,1,0,0\n";
        let seconds = recorded(text).unwrap();
        let found: Vec<_> = seconds.iter().map(|s| (s.requests, s.failing, s.candidate_failing)).collect();
        assert_eq!(found, [(10, 0.0, 0.5), (0, 0.0, 0.0), (5, 0.2, 0.2)]);
        for (text, why) in [
            ("", "it is empty"),
            ("second,failed\n", "line 1: there is no column requests"),
            ("second,requests,failed\n1,2,x\n", "line 2: 'x' is not a number"),
            ("second,requests,failed\n5,2,0\n4,2,0\n", "line 3: its second does not follow"),
            ("second,requests,failed\n5,2,3\n", "line 2: requests and failed"),
        ] {
            let error = format!("{:#}", recorded(text).err().unwrap());
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn weights_are_drawn_in_sixty_columns_at_most() {
        assert_eq!(drawn(&[0.0, 5.0, 50.0, 100.0]), "·▁▄█");
        assert_eq!(drawn(&[100.0; 1000]).chars().count(), 59);
    }
}
