//! Real Envoy as the proxy of the demo. Envoy exits immediately on SIGTERM. Therefore a parent process first tells it to drain,
//! as Istio's agent does.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;

/// Options of the hidden command.
#[derive(Debug, Clone, Args)]
pub struct EnvoyOptions {
    /// Envoy binary
    #[arg(long)]
    envoy: PathBuf,
    /// Bootstrap file
    #[arg(long)]
    config: PathBuf,
    /// Address of the admin interface
    #[arg(long)]
    admin: SocketAddr,
    /// Replace this process with Envoy, instead of supervising Envoy
    #[arg(long)]
    become_envoy: bool,
}

/// Time between telling Envoy to leave and ending it.
const DRAIN: Duration = Duration::from_millis(2500);

/// Runs Envoy until it ends or is told to leave.
///
/// # Errors
/// When Envoy cannot be started.
pub fn run(options: &EnvoyOptions) -> anyhow::Result<()> {
    if options.become_envoy {
        // The caller asked the kernel to end this process with its parent; that holds across exec.
        let error = std::process::Command::new(&options.envoy)
            .arg("-c")
            .arg(&options.config)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
            .exec();
        return Err(error).with_context(|| format!("cannot run {}", options.envoy.display()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch_over(options))
}

async fn watch_over(options: &EnvoyOptions) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg("demo-envoy")
        .arg("--become-envoy")
        .arg("--envoy")
        .arg(&options.envoy)
        .arg("--config")
        .arg(&options.config)
        .arg("--admin")
        .arg(options.admin.to_string())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start Envoy")?;
    tokio::select! {
        status = child.wait() => {
            let status = status?;
            anyhow::ensure!(status.success(), "Envoy ended: {status}");
            return Ok(());
        }
        _ = terminate.recv() => {}
    }
    let client = Client::new();
    for path in ["/healthcheck/fail", "/drain_listeners?graceful&skip_exit"] {
        let _ = client.post(&format!("http://{}{path}", options.admin), Duration::from_millis(500)).await;
    }
    tokio::select! {
        () = tokio::time::sleep(DRAIN) => {}
        _ = terminate.recv() => {}
        _ = child.wait() => return Ok(()),
    }
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
    Ok(())
}
