//! Builds Serin as it ships and counts the instructions of a request, function by function.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Runs `serin-bench profile` with these arguments.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    cargo(&["build", "--profile", "dist", "--package", "serin"], &[])?;
    cargo(&["run", "--quiet", "--profile", "dist", "--package", "serin-bench", "--", "profile"], arguments)
}

fn cargo(step: &[&str], more: &[String]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(step).args(more).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", step.join(" "));
    Ok(())
}
