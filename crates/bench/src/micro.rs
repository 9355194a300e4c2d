//! The pieces of a request alone: the benches of the crates that do the work, with the profile that ships.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Crates with benches.
const CRATES: [&str; 3] = ["serin-http1", "serin-http2", "serin-traffic"];

/// Runs them all, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--quiet", "--profile", "dist", "--benches"]);
    for name in CRATES {
        command.args(["--package", name]);
    }
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    let status = command.status().context("cargo is needed: the benches are built from source")?;
    ensure!(status.success(), "a bench failed");
    Ok(())
}
