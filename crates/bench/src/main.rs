//! Measures Serin's proxy beside others: the same job, the same core, the same load, one after the other in rounds.
//!
//! It starts every contender anew for every measurement, pinned to one core, with the load generator and the backend on
//! another, and charges a contender with the processor time that the kernel accounts to its threads. Machines drift, so
//! only measurements of the same round are compared: figures are medians, ratios are medians of ratios by round.
//!
//! It deliberately knows no crate of the mesh: it measures the program that ships.

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
mod profile;
mod push;
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
    /// The pieces of a request alone: parsing, encoding, routes, choices
    Micro {
        /// Only benches whose name contains this
        filter: Option<String>,
    },
    /// Instructions of a request by function, counted by callgrind
    Profile(profile::ProfileOptions),
    /// What a change of configuration does to the latency of requests
    Push(push::PushOptions),
    /// The backend alone
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        listen: SocketAddr,
        /// Speak HTTP/2
        #[arg(long)]
        http2: bool,
        /// Answer with that many gRPC messages
        #[arg(long)]
        messages: Option<usize>,
    },
    /// The floor alone: a proxy that reads and writes and looks at nothing
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
        /// Use no connection to the backend again
        #[arg(long)]
        fresh: bool,
    },
    /// The load at a fixed rate alone
    #[command(hide = true)]
    Paced(load::paced::PacedOptions),
}

/// Options of `proxy`.
#[derive(Debug, Clone, Args)]
struct ProxyOptions {
    /// Who is measured beside Serin: envoy, haproxy, nginx, traefik, caddy, floor
    #[arg(long, value_delimiter = ',', default_value = "envoy,haproxy,nginx,traefik,caddy,floor")]
    peers: Vec<String>,
    /// Which cases, all when none is given
    #[arg(long = "case", value_name = "NAME", num_args = 1..)]
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
    /// Folder where peers are looked for and installed that do not come with the system (Python packages)
    #[arg(long, default_value = "target/bench/peers")]
    installed: PathBuf,
    /// Folder for proxy.json and proxy.md
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Proxy(options) => rounds::run(&options),
        Command::Micro { filter } => micro::run(filter.as_deref()),
        Command::Push(options) => push::run(&options),
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
