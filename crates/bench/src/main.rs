//! Compares Serin's proxy with other proxies: the same task, the same core and the same load, one after the other in rounds.
//!
//! It restarts every contender for every measurement, pinned to one core, with the load generator and the backend on
//! another. The cost of a contender is the processor time that the kernel accounts to its threads. Machines drift, so
//! only measurements of the same round are compared: figures are medians, ratios are medians of ratios by round.
//!
//! The cost of a change for the pilot is measured with simulated proxies (`pilot`).
//!
//! It deliberately uses no crate of the mesh: it measures the shipped program.

mod backend;
mod calls;
mod case;
mod configuration;
mod cpu;
mod floor;
mod h2;
mod install;
mod load;
mod micro;
mod peer;
mod pilot;
mod profile;
mod push;
mod report;
mod rounds;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "serin-bench", about = "Compares Serin with other programs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure CPU time per request of the proxy and its peers, in interleaved rounds
    Proxy(ProxyOptions),
    /// Measure the parts of a request separately: parsing, encoding, routing, load balancing
    Micro {
        /// Run only benchmarks whose name contains this text
        filter: Option<String>,
    },
    /// Count the instructions of a request by function, with callgrind
    Profile(profile::ProfileOptions),
    /// Measure how configuration changes affect the latency of requests
    Push(push::PushOptions),
    /// Measure how much a change costs the control plane: CPU time, bytes and time until all proxies have it
    Pilot(pilot::PilotOptions),
    /// Run only the simulated proxies of `pilot`
    #[command(hide = true)]
    PilotClients(pilot::clients::ClientsOptions),
    /// Run only the backend
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        listen: SocketAddr,
        /// Use HTTP/2
        #[arg(long)]
        http2: bool,
        /// Number of gRPC messages in each response
        #[arg(long)]
        messages: Option<usize>,
    },
    /// Run only the floor: a proxy that copies bytes and parses nothing
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
        /// Do not reuse connections to the backend
        #[arg(long)]
        fresh: bool,
    },
    /// Run only the load generator with a fixed rate
    #[command(hide = true)]
    Paced(load::paced::PacedOptions),
}

/// Options of `proxy`.
#[derive(Debug, Clone, Args)]
struct ProxyOptions {
    /// Proxies to compare with Serin: envoy, haproxy, nginx, traefik, caddy, floor
    #[arg(long, value_delimiter = ',', default_value = "envoy,haproxy,nginx,traefik,caddy,floor")]
    peers: Vec<String>,
    /// Cases to run; default: all
    #[arg(long = "case", value_name = "NAME", num_args = 1..)]
    cases: Vec<String>,
    /// Number of rounds; every contender is measured once in each round
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Duration of each measurement in seconds, after one second of warm-up
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Path of the serin binary
    #[arg(long, default_value = "target/dist/serin")]
    serin: PathBuf,
    /// Folder for peers that are not installed on the system; they are installed there as Python packages
    #[arg(long, default_value = "target/bench/peers")]
    installed: PathBuf,
    /// Output folder for proxy.json and proxy.md
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Proxy(options) => rounds::run(&options),
        Command::Micro { filter } => micro::run(filter.as_deref()),
        Command::Push(options) => push::run(&options),
        Command::Pilot(options) => pilot::run(&options),
        Command::PilotClients(options) => pilot::clients::run(&options),
        Command::Profile(options) => profile::run(&options),
        Command::Backend { listen, http2: false, .. } => backend::http1(listen),
        Command::Backend { listen, messages, .. } => backend::http2(listen, messages),
        Command::Floor { listen, upstream, fresh } => floor::run(listen, upstream, fresh),
        Command::Paced(options) => load::paced::generate(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
