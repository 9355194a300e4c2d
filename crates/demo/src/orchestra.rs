//! Stands the mesh up on one machine, watches over it, and ends it.

mod documents;
mod options;
mod plan;
mod processes;
mod ready;
mod release;
mod report;
mod scenario;
mod supervise;

use std::cell::Cell;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

pub use options::{DataPlane, DemoOptions};
use plan::Plan;
use processes::Processes;

/// Runs the demo until Ctrl-C, SIGTERM or the end of its time.
///
/// # Errors
/// When a port is busy, a file is missing, or something does not come up.
pub fn run(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(options))
}

async fn play(options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let folder = tempfile::Builder::new().prefix("serin-demo-").tempdir().context("cannot make a temporary folder")?;
    let rules = options.rules(folder.path())?;
    let plan = Plan::make(options, folder.path(), &rules)?;
    documents::write_all(&plan)?;
    let mut processes = Processes::start(&plan)?;
    // Whether the release ended as it should, of one whose mesh stays up.
    let told = Cell::new(true);
    let played = async {
        ready::wait(&plan, &mut processes).await?;
        let places = ready::places(&plan).await;
        report::ready(&plan, &processes, &places, options.json)?;
        let limit = options.duration;
        let story = async {
            let Some(scenario) = options.release else { return std::future::pending().await };
            let right = release::play(scenario, &plan, &places, options.json).await?;
            if options.keep {
                told.set(right);
                report::kept(&plan, options.json)?;
                return std::future::pending().await;
            }
            Ok(right)
        };
        let supervised = supervise::run(&plan, &mut processes);
        let played = async {
            tokio::select! {
                supervised = supervised => supervised.map(|()| true),
                told = story => told,
            }
        };
        match limit {
            None => played.await,
            Some(limit) => tokio::time::timeout(limit, played)
                .await
                .unwrap_or(Ok(options.release.is_none() || (options.keep && told.get()))),
        }
    };
    let outcome = tokio::select! {
        outcome = played => outcome,
        _ = terminate.recv() => Ok(told.get()),
        _ = interrupt.recv() => Ok(told.get()),
    };
    processes.end_all().await;
    outcome.map(|right| if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
