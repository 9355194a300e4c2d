//! `serin bootstrap`: the bootstrap that a data plane other than Serin's needs to connect to the pilot.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serin_xds::bootstrap::{Client, envoy, grpc};

use crate::error::Error;

/// The data plane that uses the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Envoy (pass the file with -c)
    Envoy,
    /// A gRPC client (name the file in GRPC_XDS_BOOTSTRAP)
    Grpc,
}

/// Options of `serin bootstrap`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    serin bootstrap envoy --xds 127.0.0.1:15010 --workload web-1 --labels app=web,version=v1 > envoy.json\n  \
    serin bootstrap grpc --xds 127.0.0.1:15010 --workload shop-1 > grpc.json; GRPC_XDS_BOOTSTRAP=grpc.json ./shop")]
pub struct BootstrapOptions {
    /// Data plane that uses the bootstrap
    #[arg(value_enum)]
    pub peer: Peer,
    /// xDS address of the pilot
    #[arg(long, value_name = "IP:PORT")]
    pub xds: SocketAddr,
    /// Name of the workload
    #[arg(long, value_name = "NAME")]
    pub workload: String,
    /// Namespace of the workload
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Labels of the workload
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Bootstrap for an Envoy that runs as a gateway: it takes listeners from Gateways instead of Sidecars
    #[arg(long)]
    pub gateway: bool,
    /// IP address of the workload, as it appears in the node id
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub ip: IpAddr,
    /// Listen address of Envoy's admin interface
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,
}

fn label(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text.split_once('=').ok_or_else(|| Error::Label(text.to_owned()))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Prints it as JSON.
///
/// # Errors
/// When the options contradict each other, or it cannot be written.
pub fn bootstrap(options: &BootstrapOptions) -> anyhow::Result<ExitCode> {
    let role = match (options.peer, options.gateway) {
        (Peer::Grpc, true) => bail!("--gateway is for Envoy: a gRPC client is at no entrance"),
        (Peer::Grpc, false) => "grpc",
        (Peer::Envoy, true) => "router",
        (Peer::Envoy, false) => "sidecar",
    };
    let client = Client {
        role,
        workload: &options.workload,
        namespace: &options.namespace,
        ip: options.ip,
        labels: options.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        xds: options.xds,
    };
    let value = match options.peer {
        Peer::Envoy => envoy(&client, options.admin),
        Peer::Grpc => grpc(&client),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&value)?)?;
    Ok(ExitCode::SUCCESS)
}
