//! The command line of `serin pilot`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Options of `serin pilot`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  serin pilot --config ./mesh\n  serin pilot --config ./services --config ./rules --xds 0.0.0.0:15010"
)]
pub struct PilotOptions {
    /// Folder with documents, watched for changes; may be repeated, all folders are read as one
    #[arg(long, value_name = "DIR", required = true)]
    pub config: Vec<PathBuf>,
    /// Listen address of the xDS server for proxies
    #[arg(long, value_name = "HOST:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15010))]
    pub xds: SocketAddr,
    /// Listen address of the admin interface
    #[arg(long, value_name = "HOST:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15014))]
    pub admin: SocketAddr,
    /// File for the state of releases; the audit log is stored next to it. Default: an existing releases.json of any --config folder,
    /// otherwise releases.json in the folder .NAME.serin next to the first --config folder NAME, or in the user's state directory if
    /// that folder cannot be written. 'none' stores nothing: after a restart, every release starts from the beginning
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// How long to keep the objects of a file that is empty or missing, or that lacks objects at its end, because it may be half-written
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = serin_ingest::duration)]
    pub file_grace: Duration,
    /// Additional host name of the admin interface, besides IP addresses, localhost and this machine's host name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub admin_name: Vec<String>,
    /// File with one line TOKEN NAME ROLE for each user of the API (roles: viewer, releaser, admin)
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Let requests through without the policies that are not implemented yet (TLS to a service, PeerAuthentication,
    /// AuthorizationPolicy, RequestAuthentication and similar), instead of rejecting the requests that they guard
    #[arg(long)]
    pub allow_unenforced_policies: bool,
    /// Stop when the parent process ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}
