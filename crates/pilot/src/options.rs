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
    /// Folder with documents, watched for changes; several are read as one
    #[arg(long, value_name = "DIR", required = true)]
    pub config: Vec<PathBuf>,
    /// Address on which proxies are served over xDS
    #[arg(long, value_name = "HOST:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15010))]
    pub xds: SocketAddr,
    /// Address of the admin interface
    #[arg(long, value_name = "HOST:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15014))]
    pub admin: SocketAddr,
    /// File in which the state of releases is kept, with an audit log beside it; without it releases.json in the folder
    /// .NAME.serin beside the first --config folder NAME, or in the user's state directory where that cannot be written; 'none' keeps
    /// nothing, so that a restart begins every release anew
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// How long a file that has become empty, or lacks objects at its end, keeps them: it may be half-written
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = serin_ingest::duration)]
    pub file_grace: Duration,
    /// Names by which browsers may call the admin interface, beside addresses and names of this machine's loopback
    #[arg(long, value_name = "NAME")]
    pub admin_name: Vec<String>,
    /// File with a line TOKEN NAME ROLE for each person who may use the API (roles: viewer, releaser, admin)
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Let requests through without the policies that are not carried out yet (TLS to a service, PeerAuthentication,
    /// AuthorizationPolicy, RequestAuthentication and the like), instead of refusing what they guard
    #[arg(long)]
    pub allow_unenforced_policies: bool,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}
