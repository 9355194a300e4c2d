//! What one workload's proxy listens to, and who a proxy is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::gateway::HostFilter;
use crate::name::{Labels, ObjectName};
use crate::service::Protocol;

/// Listeners of the proxies that a selector names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Its name.
    pub name: ObjectName,
    /// Labels of the workloads; empty is the whole namespace.
    pub selector: Labels,
    /// Traffic to the workload.
    pub ingress: Vec<IngressListener>,
    /// Traffic from the workload; `None` inherits.
    pub egress: Option<Vec<EgressListener>>,
}

/// A port on which the proxy takes traffic for its application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressListener {
    /// Port number.
    pub port: u16,
    /// Address to listen on; `None` leaves it to the proxy.
    pub bind: Option<IpAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where the application listens.
    pub application: SocketAddr,
    /// What it demands of its clients that is not carried out, in words: requests are refused.
    pub refused: Option<String>,
}

/// A port on which the application hands its requests to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressListener {
    /// Address to listen on; `None` when the listener's place is left to the proxy.
    pub listen: Option<SocketAddr>,
    /// Whether every service is reached here by its authority (`HTTP_PROXY`), not only those with this port.
    pub any_port: bool,
    /// Hosts that are reachable.
    pub hosts: Vec<HostFilter>,
}

/// Which kind of proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyRole {
    /// Beside a workload.
    Sidecar,
    /// At an entrance.
    Gateway,
    /// No proxy: a gRPC client that asks for itself.
    Grpc,
}

/// Who a proxy is, from its node id and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyIdentity {
    /// Kind of proxy.
    pub role: ProxyRole,
    /// Workload name and namespace.
    pub name: ObjectName,
    /// Its address.
    pub ip: IpAddr,
    /// Labels of the workload.
    pub labels: Labels,
}

/// Says why a string is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidNodeId(String);

impl ProxyIdentity {
    /// Where listeners are bound that do not say where: everywhere, but for a proxy that lives on loopback only there.
    #[must_use]
    pub fn default_bind(&self) -> IpAddr {
        match self.ip {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Parses Istio's node id, `sidecar~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local` (or `router~…`, `grpc~…`).
    ///
    /// # Errors
    /// [`InvalidNodeId`], which says which part is wrong.
    pub fn parse(node_id: &str, labels: Labels) -> Result<Self, InvalidNodeId> {
        Self::parse_parts(node_id, labels).map_err(InvalidNodeId)
    }

    fn parse_parts(node_id: &str, labels: Labels) -> Result<Self, String> {
        let shown: String = node_id.chars().take(120).collect();
        let form = "expected sidecar~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local";
        let parts: Vec<&str> = node_id.split('~').collect();
        let [role, ip, id, domain] = parts.as_slice() else {
            return Err(format!("node id '{shown}' has {} parts separated by '~', {form}", parts.len()));
        };
        let role = match *role {
            "sidecar" => ProxyRole::Sidecar,
            "router" => ProxyRole::Gateway,
            "grpc" => ProxyRole::Grpc,
            other => {
                return Err(format!(
                    "node id '{shown}': unknown proxy type '{other}', use sidecar, router or grpc; {form}"
                ));
            }
        };
        let ip = ip.parse().map_err(|_| format!("node id '{shown}': '{ip}' is not an IP address; {form}"))?;
        let (name, namespace) = id
            .rsplit_once('.')
            .filter(|(name, namespace)| !name.is_empty() && !namespace.is_empty())
            .ok_or_else(|| format!("node id '{shown}': '{id}' is not NAME.NAMESPACE; {form}"))?;
        if !domain.starts_with(namespace) {
            return Err(format!("node id '{shown}': domain '{domain}' is not in namespace '{namespace}'; {form}"));
        }
        Ok(Self { role, name: ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }, ip, labels })
    }
}
