//! One binary with one subcommand for each role. No logic here: it parses the command line and calls the crate of the role.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serin: a service mesh for canary releases.
#[derive(Parser)]
#[command(name = "serin", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Bookinfo with Serin as the mesh on this machine
    Demo(serin_demo::DemoOptions),
    /// Run the control plane on folders of documents
    Pilot(serin_pilot::PilotOptions),
    /// Run the data plane next to a workload or as a gateway
    Proxy(serin_proxy::ProxyOptions),
    /// Check documents without a pilot
    Analyze(serin_console::AnalyzeOptions),
    /// Print a bootstrap for Envoy or a gRPC client
    Bootstrap(serin_console::BootstrapOptions),
    /// Show and control releases
    Release(serin_console::ReleaseOptions),
    /// Run one of Bookinfo's applications
    #[command(hide = true)]
    DemoApp(serin_demo::AppOptions),
    /// Run Envoy as a proxy of the demo, and drain it on SIGTERM
    #[command(hide = true)]
    DemoEnvoy(serin_demo::EnvoyOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    match run(&cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    raise_descriptor_limit();
    match command {
        Command::Demo(options) => serin_demo::run(options),
        Command::Pilot(options) => {
            exit_with_parent(options.exit_with_parent)?;
            serin_pilot::run(options).map(done)
        }
        Command::Proxy(options) => {
            exit_with_parent(options.exit_with_parent)?;
            serin_proxy::run(options).map(done)
        }
        Command::Analyze(options) => serin_console::analyze(options),
        Command::Bootstrap(options) => serin_console::bootstrap(options),
        Command::Release(options) => serin_console::release(options),
        Command::DemoApp(options) => {
            exit_with_parent(true)?;
            serin_demo::app(options).map(done)
        }
        Command::DemoEnvoy(options) => {
            exit_with_parent(true)?;
            serin_demo::envoy(options).map(done)
        }
    }
}

/// Asks the kernel to end this process when the one that started it ends, so that nothing is left behind.
fn exit_with_parent(wanted: bool) -> anyhow::Result<()> {
    if wanted {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    Ok(())
}

/// Every connection is a descriptor: takes as many as may be had. A failure leaves what there is.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("SERIN_LOG").unwrap_or_else(|_| EnvFilter::new("info,h2=warn,hyper=warn"));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .init();
}
