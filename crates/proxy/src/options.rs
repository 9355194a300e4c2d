//! The command line of `serin proxy`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Which variant of the discovery protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum XdsMode {
    /// Only changes travel.
    Delta,
    /// State of the world.
    Sotw,
}

/// Options of `serin proxy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
    serin proxy --xds 127.0.0.1:15010 --workload web-1 --namespace default --labels app=web,version=v1\n  \
    serin proxy --xds 127.0.0.1:15010 --workload entry --gateway --labels istio=ingressgateway\n  \
    serin proxy --bootstrap envoy.yaml")]
pub struct ProxyOptions {
    /// Address of the control plane, HOST:PORT; several are tried in turn
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required_unless_present = "bootstrap",
        conflicts_with = "bootstrap"
    )]
    pub xds: Vec<String>,
    /// Name of the workload beside this proxy
    #[arg(long, value_name = "NAME", required_unless_present = "bootstrap")]
    pub workload: Option<String>,
    /// Namespace of the workload
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Labels of the workload
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Run at an entrance: take listeners from Gateways instead of Sidecars
    #[arg(long)]
    pub gateway: bool,
    /// Address of the workload, as it appears in the node id
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub ip: IpAddr,
    /// Envoy bootstrap file (YAML or JSON) to run instead
    #[arg(long, value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
    /// Worker threads; default is one for each core
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Address of the admin interface; default 127.0.0.1:15000, or the bootstrap's
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<SocketAddr>,
    /// Write the address of the admin interface to this file (useful with port 0)
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// Mebibytes of answers that may wait in memory for clients that do not read; beyond, requests are refused
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_buffered: u32,
    /// Variant of the discovery protocol
    #[arg(long, value_enum, default_value = "delta")]
    pub xds_mode: XdsMode,
    /// Log every request in Envoy's default format to this file ("/dev/stdout" for standard output)
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,
    /// Time to serve on after SIGTERM while clients are asked to leave
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_time: Duration,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `500ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("'{text}' is not a duration such as 500ms, 5s or 2m");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
