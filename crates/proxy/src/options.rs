//! The command line of `serin proxy`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::Error;

/// Variant of the xDS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum XdsMode {
    /// Incremental: only changes are sent.
    Delta,
    /// State of the world: all resources of a type are sent.
    Sotw,
}

/// Options of `serin proxy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    serin proxy --xds 127.0.0.1:15010 --workload web-1 --namespace default --labels app=web,version=v1\n  \
    serin proxy --xds 127.0.0.1:15010 --workload entry --gateway --labels istio=ingressgateway\n  \
    serin proxy --bootstrap envoy.yaml")]
pub struct ProxyOptions {
    /// Address of the control plane; several addresses are tried in turn
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required_unless_present = "bootstrap",
        conflicts_with = "bootstrap"
    )]
    pub xds: Vec<String>,
    /// Name of the workload that this proxy serves
    #[arg(long, value_name = "NAME", required_unless_present = "bootstrap")]
    pub workload: Option<String>,
    /// Namespace of the workload
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Labels of the workload
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Run as a gateway: take listeners from Gateways instead of Sidecars
    #[arg(long)]
    pub gateway: bool,
    /// IP address of the workload, as it appears in the node id
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub ip: IpAddr,
    /// Envoy bootstrap file (YAML or JSON) to use instead of --xds and --workload
    #[arg(long, value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
    /// Number of worker threads; default: one per core
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Listen address of the admin interface; default: 127.0.0.1:15000, or the address in the bootstrap
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<SocketAddr>,
    /// Write the address of the admin interface to this file (useful with port 0)
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// Memory limit in MiB for responses that wait for clients that do not read; at the limit, requests are rejected
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_buffered: u32,
    /// Variant of the xDS protocol
    #[arg(long, value_enum, default_value = "delta")]
    pub xds_mode: XdsMode,
    /// Log every request in Envoy's default format to this file ("/dev/stdout" for standard output)
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,
    /// How long to continue to serve after SIGTERM, while clients are asked to close their connections
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_time: Duration,
    /// Stop when the parent process ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

fn label(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text.split_once('=').ok_or_else(|| Error::Label(text.to_owned()))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `500ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, Error> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || Error::Duration(text.to_owned());
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
