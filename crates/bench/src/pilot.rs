//! The cost of a change for the control plane: its processor time, the bytes that it sends, and the time until every
//! proxy has acknowledged the change.
//!
//! A folder of documents, a pilot on it, and a process of simulated proxies. One change at a time is made in the folder;
//! the next one waits until the pilot is idle again. Nothing here asserts a target.

pub(crate) mod clients;
mod documents;
mod fleet;
mod floor;
mod measure;
mod operation;
mod server;
mod session;
mod table;
mod wire;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use documents::{ADDRESSES, Shape};
use floor::Pushes;
use operation::Operation;
use server::Program;
use session::Mode;

/// Options of `pilot`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PilotOptions {
    /// Number of services
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Number of endpoints of each service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Number of versions of each service; each is a subset
    #[arg(long, default_value_t = 3)]
    versions: usize,
    /// Number of simulated proxies
    #[arg(long, default_value_t = 200)]
    proxies: usize,
    /// Number of classes of proxies; the proxies of a class have the same namespace and labels
    #[arg(long, default_value_t = 1)]
    classes: usize,
    /// Number of edits of each operation; `reconnect` is done a tenth as often
    #[arg(long, default_value_t = 40)]
    edits: usize,
    /// Variant of the xDS protocol
    #[arg(long, value_enum, default_value_t = Mode::Delta)]
    mode: Mode,
    /// Operations to measure; default: all, with --sweep only `weight`
    #[arg(long = "operation", value_name = "NAME", value_enum, num_args = 1..)]
    operations: Vec<Operation>,
    /// Path of the serin binary
    #[arg(long, default_value = "target/dist/serin")]
    serin: PathBuf,
    /// Another pilot to measure with the same documents: istiod=PATH
    #[arg(long = "peer", value_name = "istiod=PATH")]
    peers: Vec<String>,
    /// Output file for all figures
    #[arg(long, value_name = "FILE.json")]
    save: Option<PathBuf>,
    /// Measure the growth in services, then in proxies
    #[arg(long)]
    sweep: bool,
    /// Numbers of services of the sweep, each with --proxies
    #[arg(long, value_delimiter = ',', default_value = "500,1000,2000,4000")]
    sweep_services: Vec<usize>,
    /// Numbers of proxies of the sweep, each with --services
    #[arg(long, value_delimiter = ',', default_value = "100,200,400")]
    sweep_proxies: Vec<usize>,
    /// Seconds after which a proxy that lacks a change is counted as missed
    #[arg(long, default_value_t = 10)]
    timeout: u64,
    /// Number of threads of the simulated proxies; default: one for each processor
    #[arg(long)]
    client_threads: Option<usize>,
    /// Measure only the simulated proxies: a server pushes this number of bytes to each of them, --edits times
    #[arg(long, value_name = "BYTES")]
    floor: Option<usize>,
}

/// The size of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) shape: Shape,
    pub(crate) proxies: usize,
}

impl PilotOptions {
    /// Returns the sizes to measure, each once.
    fn sizes(&self) -> Vec<Size> {
        let mut pairs = Vec::new();
        if self.sweep {
            pairs.extend(self.sweep_services.iter().map(|services| [*services, self.proxies]));
            pairs.extend(self.sweep_proxies.iter().map(|proxies| [self.services, *proxies]));
        } else {
            pairs.push([self.services, self.proxies]);
        }
        let mut sizes: Vec<Size> = Vec::new();
        for [services, proxies] in pairs {
            let shape = Shape { services, endpoints: self.endpoints, versions: self.versions };
            if !sizes.iter().any(|size| size.shape.services == services && size.proxies == proxies) {
                sizes.push(Size { shape, proxies });
            }
        }
        sizes
    }

    fn operations(&self) -> Vec<Operation> {
        use Operation::{Class, Endpoint, Reconnect, Rule, Service, Subset, Weight};
        match self.operations.as_slice() {
            [] if self.sweep => vec![Weight],
            [] => vec![Weight, Endpoint, Service, Subset, Rule, Reconnect, Class],
            chosen => chosen.to_vec(),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.versions >= 2, "--versions: the routes need two versions");
        ensure!((1..ADDRESSES - 4).contains(&self.endpoints), "--endpoints: 1 to {}", ADDRESSES - 5);
        ensure!(self.classes > 0 && self.edits > 0, "--classes, --edits: at least 1");
        for size in self.sizes() {
            ensure!((1..=60_000).contains(&size.shape.services), "--services: 1 to 60000");
            ensure!(size.proxies > 0, "--proxies: at least 1");
        }
        Ok(())
    }
}

/// Measures everything and prints the table.
pub(crate) fn run(options: &PilotOptions) -> anyhow::Result<()> {
    options.check()?;
    crate::rounds::raise_descriptor_limit();
    if let Some(bytes) = options.floor {
        let threads = options.client_threads.unwrap_or_else(measure::processors);
        return print(&floor::run(Pushes { proxies: options.proxies, bytes, rounds: options.edits, threads })?);
    }
    let mut programs = vec![Program::Serin(std::path::absolute(&options.serin)?)];
    for peer in &options.peers {
        programs.push(Program::parse(peer)?);
    }
    let mut runs = Vec::new();
    for size in options.sizes() {
        for program in &programs {
            let run = measure::run(options, program, size);
            runs.push(run.with_context(|| program.name())?);
            if let Some(file) = &options.save {
                std::fs::write(file, serde_json::to_string_pretty(&table::json(options, &runs))?)?;
            }
        }
    }
    let mut text = table::markdown(&runs);
    if options.sweep {
        text.push_str(&table::charts(options, &runs));
    }
    print(&text)?;
    let missed: usize = runs.iter().flat_map(|run| &run.figures).map(|figures| figures.missed).sum();
    ensure!(missed == 0, "{missed} times, a proxy lacked a change after {} s", options.timeout);
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: PilotOptions,
    }

    fn parse(arguments: &str) -> PilotOptions {
        Cli::try_parse_from(std::iter::once("x").chain(arguments.split_whitespace())).unwrap().options
    }

    #[test]
    fn the_command_line_chooses_sizes_and_operations() {
        let options = parse("--services 7 --proxies 3 --operation weight class --mode sotw --peer istiod=/i");
        assert_eq!(options.sizes().len(), 1);
        assert_eq!(options.operations(), [Operation::Weight, Operation::Class]);
        assert_eq!(options.mode, Mode::Sotw);
        options.check().unwrap();
        assert_eq!(parse("").operations().len(), 7);
    }

    #[test]
    fn a_sweep_measures_each_size_once() {
        let sizes = parse("--sweep").sizes();
        let pairs: Vec<_> = sizes.iter().map(|size| (size.shape.services, size.proxies)).collect();
        assert_eq!(pairs, [(500, 200), (1000, 200), (2000, 200), (4000, 200), (1000, 100), (1000, 400)]);
        assert_eq!(parse("--sweep").operations(), [Operation::Weight]);
    }

    #[test]
    fn sizes_without_meaning_are_refused() {
        for arguments in ["--versions 1", "--endpoints 252", "--services 0", "--proxies 0", "--classes 0", "--edits 0"]
        {
            assert!(parse(arguments).check().is_err(), "{arguments}");
        }
    }
}
