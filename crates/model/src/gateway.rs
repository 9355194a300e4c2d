//! Gateways: where traffic enters. Istio's Gateway is lowered to them.

use crate::name::{Hostname, Labels, ObjectName};

/// Listeners on the proxies that a selector names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: ObjectName,
    /// Labels of the proxies.
    pub selector: Labels,
    /// What they serve.
    pub listeners: Vec<GatewayListener>,
}

/// A port with the hosts served on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayListener {
    /// Port number, as the service of the gateway knows it.
    pub port: u16,
    /// Address to listen on; `None` is all.
    pub bind: Option<String>,
    /// Hosts.
    pub hosts: Vec<HostFilter>,
    /// Whether plain text is redirected to https.
    pub https_redirect: bool,
}

/// A host of a listener, and whose rules may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFilter {
    /// Namespace of the rules; `None` is any.
    pub namespace: Option<String>,
    /// The host.
    pub host: Hostname,
}
