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
    /// The port's name; may be empty.
    pub name: String,
    /// Address to listen on; `None` is all.
    pub bind: Option<String>,
    /// Hosts.
    pub hosts: Vec<HostFilter>,
    /// Whether plain text is redirected to https.
    pub https_redirect: bool,
    /// The end of TLS; `None` is plain text.
    pub tls: Option<ListenerTls>,
}

/// The end of TLS at a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// Like this.
    On(Box<ServerTls>),
    /// In a way that is not carried out: clients that ask for its hosts are turned away, whatever other listeners of the port do.
    NotCarriedOut,
}

/// TLS towards clients. Files are those of the proxy's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The file of the certificate with its chain.
    pub certificate: String,
    /// The file of its private key.
    pub key: String,
    /// The rules for clients; `None` asks them for nothing.
    pub clients: Option<ClientCheck>,
    /// The oldest and the newest version; `None` leaves it to the proxy.
    pub versions: [Option<TlsVersion>; 2],
}

/// The rules for certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCheck {
    /// True when a client must show a certificate.
    pub required: bool,
    /// The file of the authorities that are trusted.
    pub authorities: String,
    /// The file of revoked certificates, if there is one.
    pub revoked: Option<String>,
    /// The names, one of which a certificate must have; empty for any.
    pub names: Vec<String>,
}

/// A version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// A host of a listener, and whose rules may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFilter {
    /// Namespace of the rules; `None` is any.
    pub namespace: Option<String>,
    /// The host.
    pub host: Hostname,
}
