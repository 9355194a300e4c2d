//! One run: a pilot and its proxies, and every operation in turn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::bail;

use super::clients::now;
use super::documents::Folder;
use super::fleet::{Classes, Counts, Fleet};
use super::operation::Operation;
use super::server::{Program, Server};
use super::session::KINDS;
use super::{PilotOptions, Size};
use crate::cpu;

/// All figures of a pilot at one size.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pilot: &'static str,
    pub(crate) size: Size,
    /// Processors that the pilot uses while nothing changes.
    pub(crate) idle: f64,
    pub(crate) figures: Vec<Figures>,
}

/// The figures of an operation.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) operation: &'static str,
    pub(crate) edits: usize,
    /// Proxies that should get each edit.
    pub(crate) proxies: usize,
    /// Milliseconds to the last acknowledgement, of each proxy and edit.
    pub(crate) millis: Vec<f64>,
    /// Times that a proxy lacked an edit when the time was over.
    pub(crate) missed: usize,
    /// Streams that failed.
    pub(crate) broken: u64,
    /// Processor seconds of the pilot, for each edit, without those that it uses anyway.
    pub(crate) cpu: Vec<f64>,
    /// Processor seconds of the simulated proxies, of all edits.
    pub(crate) client_cpu: f64,
    /// Seconds from each edit to the last acknowledgement of all, of all edits.
    pub(crate) active: f64,
    /// Seconds of the whole measurement, with the pauses.
    pub(crate) wall: f64,
    /// Processor seconds that neither the pilot nor the simulated proxies used.
    pub(crate) others: f64,
    pub(crate) bytes: u64,
    pub(crate) responses: u64,
    pub(crate) resources: [u64; KINDS.len()],
    /// KiB afterwards.
    pub(crate) resident: u64,
}

/// The end of an edit.
#[derive(Debug, Default)]
struct Settled {
    /// Proxies that lacked something when the time was over.
    missed: usize,
    broken: u64,
}

/// Processor time so far.
struct Sample {
    at: u64,
    pilot: BTreeMap<u32, u64>,
    clients: u64,
    busy: u64,
}

/// The time of one edit.
struct Span {
    before: Sample,
    after: Sample,
    /// Time of the change.
    started: u64,
}

/// A pilot under measurement.
struct Bench<'a> {
    options: &'a PilotOptions,
    size: Size,
    folder: Folder,
    server: Server,
    fleet: Fleet,
    idle: f64,
}

/// Time without a response after which an edit is over.
const QUIET: Duration = Duration::from_millis(150);
/// Time between looks at the clients.
const LOOK: Duration = Duration::from_millis(20);
/// Time over which the processor time of a pilot says that it is idle.
const WINDOW: Duration = Duration::from_millis(100);
/// Time for all proxies to get everything.
const CONNECTED: Duration = Duration::from_secs(300);
/// Time after which the pilot believes that a file is gone for good.
const GRACE: Duration = Duration::from_millis(2500);

/// Measures a pilot at one size.
pub(crate) fn run(options: &PilotOptions, program: &Program, size: Size) -> anyhow::Result<Run> {
    let scratch = tempfile::Builder::new().prefix("serin-pilot-").tempdir()?;
    let folder = Folder::write(&scratch.path().join("mesh"), size.shape)?;
    eprintln!("{}: {} services, {} proxies", program.name(), size.shape.services, size.proxies);
    let server = program.start(folder.path(), scratch.path())?;
    let threads = options.client_threads.unwrap_or_else(processors);
    let fleet = Fleet::start(server.xds, options.mode, threads)?;
    let mut bench = Bench { options, size, folder, server, fleet, idle: 1.0 };
    bench.first()?;
    let mut figures = Vec::new();
    for operation in options.operations() {
        figures.push(bench.operation(operation)?);
    }
    Ok(Run { pilot: program.name(), size, idle: bench.idle, figures })
}

/// Returns the number of processors.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl Bench<'_> {
    /// Connects all proxies, waits until they have everything, and measures the idle pilot.
    fn first(&mut self) -> anyhow::Result<()> {
        let started = now();
        let (all, classes) = (0..self.size.proxies, self.classes());
        self.fleet.connect(&all, classes)?;
        let Settled { missed, .. } = self.settle(started, CONNECTED)?;
        let counts = self.fleet.collect(&all)?;
        let last = counts.last.iter().max().copied().unwrap_or(started);
        let mib = counts.bytes as f64 / (1 << 20) as f64;
        eprintln!("  all have everything after {:.2} s, {mib:.1} MiB", seconds(last.saturating_sub(started)));
        if missed > 0 {
            bail!("{missed} proxies never got everything");
        }
        let before = self.sample();
        std::thread::sleep(Duration::from_secs(5));
        let after = self.sample();
        self.idle = cpu::between(&before.pilot, &after.pilot) as f64 / (after.at - before.at) as f64;
        eprintln!("  idle: {:.4} processors", self.idle);
        Ok(())
    }

    fn classes(&self) -> Classes {
        Classes { first: 0, count: self.options.classes }
    }

    fn sample(&self) -> Sample {
        Sample {
            at: now(),
            pilot: cpu::threads(self.server.pid()),
            clients: cpu::usage(self.fleet.pid()).nanos,
            busy: (0..processors()).map(cpu::busy).sum(),
        }
    }

    fn operation(&mut self, operation: Operation) -> anyhow::Result<Figures> {
        let edits = operation.times(self.options.edits);
        let proxies = if operation == Operation::Class { 1 } else { self.size.proxies };
        let mut figures = Figures { operation: operation.name(), edits, proxies, ..Figures::default() };
        for number in 0..edits {
            self.edit(operation, number, &mut figures)?;
            let cpu = figures.cpu.last().copied().unwrap_or(0.0) * 1e3;
            let mean = figures.active / (number + 1) as f64 * 1e3;
            eprintln!(
                "  {:<9} {:>3}/{edits}  {cpu:>9.2} ms CPU, {mean:.1} ms until the last (mean){}",
                operation.name(),
                number + 1,
                if figures.missed > 0 { format!(", {} MISSED", figures.missed) } else { String::new() }
            );
        }
        figures.resident = cpu::resident(self.server.pid());
        if operation == Operation::Service {
            (0..edits).try_for_each(|number| self.folder.remove(number))?;
            std::thread::sleep(GRACE);
            self.settle(now(), CONNECTED)?;
        }
        Ok(figures)
    }

    /// Makes one edit and adds what it cost.
    fn edit(&mut self, operation: Operation, number: usize, figures: &mut Figures) -> anyhow::Result<()> {
        let new = self.size.proxies..self.size.proxies + 1;
        let concerned = if operation == Operation::Class { new.clone() } else { 0..self.size.proxies };
        self.fleet.expect(&concerned, operation.expected())?;
        let before = self.sample();
        let (started, patience) = self.begin(operation, number, &concerned)?;
        let settled = self.settle(started, patience)?;
        figures.missed += settled.missed;
        figures.broken += settled.broken;
        let after = self.sample();
        let counts = self.fleet.collect(&concerned)?;
        self.add(figures, &counts, &Span { before, after, started });
        if operation == Operation::Class {
            self.fleet.disconnect(&new)?;
            self.settle(now(), CONNECTED)?;
        }
        Ok(())
    }

    /// Makes the change; returns its time and how long the proxies have for it.
    fn begin(&mut self, operation: Operation, number: usize, who: &Range<usize>) -> anyhow::Result<(u64, Duration)> {
        let timeout = Duration::from_secs(self.options.timeout);
        match operation {
            Operation::Reconnect => {
                let (started, classes) = (now(), self.classes());
                self.fleet.disconnect(who)?;
                self.fleet.connect(who, classes)?;
                Ok((started, timeout.max(CONNECTED)))
            }
            Operation::Class => {
                let started = now();
                self.fleet.connect(who, Classes { first: self.options.classes + number, count: 1 })?;
                Ok((started, timeout))
            }
            _ => Ok((operation.edit(&mut self.folder, number)?, timeout)),
        }
    }

    /// Waits until the proxies have what they wait for and the pilot is idle.
    fn settle(&mut self, started: u64, patience: Duration) -> anyhow::Result<Settled> {
        let nanos = |time: Duration| time.as_nanos() as u64;
        let (mut missed, mut window) = (None, self.sample());
        let mut rate = f64::INFINITY;
        let mut told = 0;
        loop {
            std::thread::sleep(LOOK);
            let state = self.fleet.poll()?;
            let time = now();
            if let Some(error) = state.error.filter(|_| state.broken > told) {
                eprintln!("  {} streams failed so far; one of them: {error}", state.broken);
                told = state.broken * 2;
            }
            if time - window.at >= nanos(WINDOW) {
                let sample = self.sample();
                self.server.check()?;
                rate = cpu::between(&window.pilot, &sample.pilot) as f64 / (sample.at - window.at) as f64;
                window = sample;
            }
            let since = time.saturating_sub(state.last.max(started));
            if missed.is_none() && time - started > nanos(patience) {
                missed = Some(state.waiting);
            }
            let over = match missed {
                None => state.waiting == 0,
                Some(_) => state.waiting == 0 || since > nanos(QUIET) * 10,
            };
            if over && since > nanos(QUIET) && rate < self.idle + 0.1 {
                return Ok(Settled { missed: missed.unwrap_or(0), broken: state.broken });
            }
            if time - started > nanos(patience) * 3 + nanos(CONNECTED) {
                bail!("the pilot is never idle: {} proxies wait", state.waiting);
            }
        }
    }

    fn add(&self, figures: &mut Figures, counts: &Counts, span: &Span) {
        let Span { before, after, started } = span;
        let wall = seconds(after.at - before.at);
        let pilot = seconds(cpu::between(&before.pilot, &after.pilot));
        let clients = seconds(after.clients.saturating_sub(before.clients));
        let last = counts.last.iter().max().copied().unwrap_or(after.at);
        figures.millis.extend(counts.last.iter().map(|last| seconds(last.saturating_sub(*started)) * 1e3));
        figures.cpu.push(pilot - self.idle * wall);
        figures.client_cpu += clients;
        figures.active += seconds(last.saturating_sub(*started));
        figures.wall += wall;
        figures.others += (seconds(after.busy.saturating_sub(before.busy)) - pilot - clients).max(0.0);
        figures.bytes += counts.bytes;
        figures.responses += counts.responses;
        figures.resources.iter_mut().zip(counts.resources).for_each(|pair| *pair.0 += pair.1);
    }
}

impl Figures {
    /// Returns the milliseconds that a share of the proxies and edits needed at most.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(&self.millis, share)
    }

    /// Returns the mean processor seconds of the pilot for an edit.
    pub(crate) fn cpu_mean(&self) -> f64 {
        self.cpu.iter().sum::<f64>() / self.cpu.len().max(1) as f64
    }

    /// Returns the share of the processors that the simulated proxies used between the edits and the last acknowledgements.
    pub(crate) fn client_busy(&self) -> f64 {
        self.client_cpu / (self.active * processors() as f64)
    }

    /// Returns a figure for each proxy and edit.
    pub(crate) fn each(&self, total: u64) -> f64 {
        total as f64 / (self.proxies * self.edits).max(1) as f64
    }
}

/// Returns the smallest value that is not exceeded by a share of the values (nearest rank).
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 100.0);
        assert_eq!(percentile(&values, 0.99), 198.0);
        assert_eq!(percentile(&values, 1.0), 200.0);
        assert_eq!(percentile(&[7.0], 0.01), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn figures_are_for_each_proxy_and_edit() {
        let figures = Figures { edits: 4, proxies: 5, cpu: vec![1.0, 3.0], ..Figures::default() };
        assert_eq!(figures.each(100), 5.0);
        assert_eq!(figures.cpu_mean(), 2.0);
    }
}
