//! The command line of `serin demo`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use super::scenario::{self, Scenario};

/// Program that runs as every proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataPlane {
    /// Serin's own proxy.
    Serin,
    /// Real Envoy.
    Envoy,
}

/// Options of `serin demo`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  serin demo\n  serin demo --config ./rules --free-ports --json\n  serin demo --release bad --keep\n  serin demo --scratch\n  serin demo --data-plane envoy --envoy /usr/local/bin/envoy"
)]
pub struct DemoOptions {
    /// Folder of rules to use and watch; default: examples/bookinfo, or a built-in copy if that folder does not exist
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Program that runs as every proxy
    #[arg(long, value_enum, default_value = "serin")]
    pub data_plane: DataPlane,
    /// Envoy binary for --data-plane envoy
    #[arg(long, value_name = "PATH", default_value = "envoy")]
    pub envoy: PathBuf,
    /// Services that run without a proxy
    #[arg(long, value_name = "SERVICE,...", value_delimiter = ',')]
    pub without_proxy: Vec<String>,
    /// Use free ports for everything, instead of fixed ports
    #[arg(long)]
    pub free_ports: bool,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = serin_ingest::duration)]
    pub duration: Option<Duration>,
    /// Run a release of reviews v3 under load, then stop; the exit code is 0 if it ended as expected
    #[arg(long, value_enum, conflicts_with = "config")]
    pub release: Option<Scenario>,
    /// Keep running after the release has ended, until Ctrl-C
    #[arg(long, requires = "release")]
    pub keep: bool,
    /// Copy examples/bookinfo to a temporary folder, and use and watch the copy
    #[arg(long, conflicts_with = "config")]
    pub scratch: bool,
    /// Print one JSON line when everything is ready, and one for each event of a release
    #[arg(long)]
    pub json: bool,
}

/// The rules that come with the program: copies of the example, whose edits make nothing be compiled again.
const BUILT_IN: [(&str, &str); 3] = [
    ("bookinfo-gateway.yaml", include_str!("../../rules/bookinfo-gateway.yaml")),
    ("destination-rules.yaml", include_str!("../../rules/destination-rules.yaml")),
    ("reviews.yaml", include_str!("../../rules/reviews.yaml")),
];

impl DemoOptions {
    /// The folder of rules.
    pub(super) fn rules(&self, scratch: &Path) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.config {
            ensure!(folder.is_dir(), "--config {}: no such folder", folder.display());
            return folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()));
        }
        let here = Path::new("examples/bookinfo");
        if here.is_dir() && self.release.is_none() && !self.scratch {
            return here.canonicalize().context("cannot read examples/bookinfo");
        }
        let copy = scratch.join("rules");
        std::fs::create_dir_all(&copy)?;
        for (name, built_in) in BUILT_IN {
            let edited = std::fs::read_to_string(here.join(name)).ok().filter(|_| self.scratch);
            let text = edited.as_deref().unwrap_or(built_in);
            let text = if self.release.is_some() { scenario::rules(text) } else { text.to_owned() };
            std::fs::write(copy.join(name), text)?;
        }
        Ok(copy)
    }
}
