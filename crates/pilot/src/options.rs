//! The command line of `serin pilot`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

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
    /// File in which the state of releases is kept, with an audit log beside it
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
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
