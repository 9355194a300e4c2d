//! Services and the instances behind them.

use crate::name::{Hostname, Labels, ObjectName};
use std::collections::BTreeMap;

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// Anything else: bytes.
    Tcp,
}

impl Protocol {
    /// From a protocol's or port's name: `http`, `http2`, `grpc`, with or without `-suffix`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let prefix = name.split('-').next().unwrap_or(name).to_ascii_lowercase();
        match prefix.as_str() {
            "http" | "http1" | "http_proxy" => Some(Self::Http),
            "http2" | "h2c" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "tcp" | "https" | "tls" | "mongo" | "redis" | "mysql" => Some(Self::Tcp),
            _ => None,
        }
    }

    /// Whether requests can be routed one by one.
    #[must_use]
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// The port of an instance that stands behind a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name the instance gives it.
    Name(String),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Number that callers use.
    pub number: u16,
    /// Name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the instances.
    pub target: TargetPort,
}

/// How the instances of a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolution {
    /// They are listed.
    #[default]
    Static,
    /// Their names are looked up.
    Dns,
}

/// A service: a name that callers use.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Fully qualified name.
    pub host: Hostname,
    /// Namespace of the object that declared it.
    pub namespace: String,
    /// Ports, by number.
    pub ports: Vec<Port>,
    /// How instances are found.
    pub resolution: Resolution,
    /// Instances listed in the service itself.
    pub endpoints: Vec<Endpoint>,
    /// Workloads that belong to it.
    pub selector: Option<Labels>,
    /// Namespaces that may see it; `None` is all.
    pub export_to: Option<Vec<String>>,
    /// Whether instances that say they are not ready get requests all the same.
    pub publishes_unready: bool,
    /// Whether it is outside the mesh: policies of workloads do not concern it.
    pub external: bool,
    /// The names, one of which the certificates of its instances must have where a rule names none; empty for any.
    pub certificate_names: Vec<String>,
}

impl Service {
    /// The port of that number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// Whether objects of `namespace` may see it.
    #[must_use]
    pub fn visible_in(&self, namespace: &str) -> bool {
        self.export_to.as_ref().is_none_or(|list| list.iter().any(|n| n == namespace))
    }
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address, or a name where names are resolved.
    pub address: String,
    /// Ports by name; a port that is not named is the service's target port.
    pub ports: BTreeMap<String, u16>,
    /// Labels, for subsets.
    pub labels: Labels,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// `region/zone/subzone`, may be empty.
    pub locality: String,
    /// Whether it says it is ready.
    pub ready: bool,
    /// Whether its workload may have more labels than these: slices of Kubernetes do not tell them.
    pub is_partly_known: bool,
}

impl Endpoint {
    /// A ready instance at an address, with the ports of its service and without labels.
    #[must_use]
    pub fn named(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            ports: BTreeMap::new(),
            labels: Labels::new(),
            weight: 1,
            locality: String::new(),
            ready: true,
            is_partly_known: false,
        }
    }

    /// The port of this instance that stands behind a service port.
    #[must_use]
    pub fn port(&self, port: &Port) -> Option<u16> {
        self.ports.get(&port.name).copied().or_else(|| match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self.ports.get(name).copied(),
        })
    }
}

/// An instance that is declared by itself (WorkloadEntry).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: ObjectName,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// Instances of a Kubernetes service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace.
    pub namespace: String,
    /// Name of the service it belongs to.
    pub service: String,
    /// The instances.
    pub endpoints: Vec<Endpoint>,
}
