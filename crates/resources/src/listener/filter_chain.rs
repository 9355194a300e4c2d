//! Filter chains: which connections a chain is for, and what becomes of them.

use std::num::NonZeroU16;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as pb_rbac;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb_tcp;
use prost::Name as _;

use super::Filter;
use crate::connection_manager::HttpConnectionManager;
use crate::convert;
use crate::http_filter::{Rbac, RbacRules};
use crate::network::Network;
use crate::tcp_proxy::TcpProxy;
use crate::tls::DownstreamTls;
use crate::{Audit, Error, Path};

/// Network filters, and the connections that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: String,
    /// The connections.
    pub matches: FilterChainMatch,
    /// Its TLS; `None` is plain text.
    pub tls: Option<DownstreamTls>,
    /// The time for a handshake; zero leaves it to the proxy.
    pub handshake_timeout: Duration,
    /// The filters of connections; all of these must let a connection in.
    pub gates: Vec<Rbac>,
    /// The network filter at the end.
    pub filter: Filter,
}

/// The connections that a chain is for; what is empty matches every connection.
///
/// How one of several chains is chosen: `serin_traffic::filter_chain`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// The port to which the client connected.
    pub destination_port: Option<NonZeroU16>,
    /// The addresses to which the client connected.
    pub destinations: Vec<Network>,
    /// The addresses of whoever made the connection.
    pub direct_sources: Vec<Network>,
    /// Whether the client is on this machine.
    pub source_type: SourceType,
    /// The addresses of the client.
    pub sources: Vec<Network>,
    /// The ports of the client.
    pub source_ports: Vec<u16>,
    /// What carries the bytes.
    pub transport: TransportProtocol,
    /// The servers that the client wants (SNI), in lower case; one that begins with `*.` stands for all below it.
    pub server_names: Vec<String>,
    /// The protocols above TLS of which the client speaks one.
    pub protocols: Vec<String>,
}

/// What carries the bytes of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransportProtocol {
    /// It does not matter.
    #[default]
    Any,
    /// No TLS.
    RawBuffer,
    /// TLS, which is found only by an inspector.
    Tls,
}

/// Whether a client is on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceType {
    /// It does not matter.
    #[default]
    Any,
    /// It has a loopback address, or the same address as the listener.
    SameIpOrLoopback,
    /// It has another address.
    External,
}

impl FilterChain {
    /// Creates a chain for all connections.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            name: String::new(),
            matches: FilterChainMatch::default(),
            tls: None,
            handshake_timeout: Duration::ZERO,
            gates: Vec::new(),
            filter,
        }
    }

    /// Decodes the chain of connections that no other matches. What it would match itself does not count (Envoy's rule).
    pub(super) fn decode_default(value: &pb::FilterChain, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        decode(value, FilterChainMatch::default(), audit, path)
    }

    pub(super) fn encode(&self) -> pb::FilterChain {
        let (name, config) = match &self.filter {
            Filter::Http(http) => (HTTP, convert::any(&http.encode())),
            Filter::Tcp(tcp) => (TCP, convert::any(&tcp.encode())),
        };
        let filter =
            pb::Filter { name: name.to_owned(), config_type: Some(pb::filter::ConfigType::TypedConfig(config)) };
        let gates = self.gates.iter().map(|rbac| {
            let config = pb::filter::ConfigType::TypedConfig(convert::any(&encode_gate(rbac)));
            pb::Filter { name: RBAC.to_owned(), config_type: Some(config) }
        });
        pb::FilterChain {
            name: self.name.clone(),
            filter_chain_match: (self.matches != FilterChainMatch::default()).then(|| self.matches.encode()),
            filters: gates.chain([filter]).collect(),
            transport_socket: self.tls.as_ref().map(DownstreamTls::encode),
            transport_socket_connect_timeout: (!self.handshake_timeout.is_zero())
                .then(|| convert::proto_duration(self.handshake_timeout)),
            ..Default::default()
        }
    }
}

/// Decodes the chains of a listener.
pub(super) fn decode_all(value: &pb::Listener, audit: &mut Audit, path: &Path<'_>) -> Result<Vec<FilterChain>, Error> {
    let path = path.field("filter_chains");
    if value.filter_chains.is_empty() && value.default_filter_chain.is_none() {
        return Err(path.error("is required, unless there is a default_filter_chain"));
    }
    let mut chains: Vec<FilterChain> = Vec::with_capacity(value.filter_chains.len());
    for (i, chain) in value.filter_chains.iter().enumerate() {
        let here = path.index(i);
        let of_match = here.field("filter_chain_match");
        let matches = chain.filter_chain_match.as_ref().map(|m| FilterChainMatch::decode(m, audit, &of_match));
        let matches = matches.transpose()?.unwrap_or_default();
        if matches.has_duplicates() {
            return Err(of_match.error("names an address range or a port twice"));
        }
        if let Some(first) = chains.iter().position(|other| other.matches.is_ambiguous_with(&matches)) {
            let message =
                format!("matches connections exactly as filter_chains[{first}] does: one of them must differ");
            return Err(of_match.error(message));
        }
        chains.push(decode(chain, matches, audit, &here)?);
    }
    Ok(chains)
}

/// The filters of a chain: who may connect, then what becomes of the connection.
fn decode(
    value: &pb::FilterChain,
    matches: FilterChainMatch,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<FilterChain, Error> {
    audit!(value, pb::FilterChain as pb::FilterChain, audit, path;
        supported: filters, filter_chain_match, name, transport_socket, transport_socket_connect_timeout;
        ignored: metadata;
        refused: use_proxy_proto);
    let filters_path = path.field("filters");
    let Some((last, before)) = value.filters.split_last() else {
        return Err(filters_path.error("needs network filters, the last http_connection_manager or tcp_proxy"));
    };
    let mut gates = Vec::new();
    for (i, filter) in before.iter().enumerate() {
        let here = filters_path.index(i);
        match &filter.config_type {
            Some(pb::filter::ConfigType::TypedConfig(any)) if any.type_url == pb_rbac::Rbac::type_url() => {
                let rbac: pb_rbac::Rbac = convert::from_any(any, &here)?;
                gates.push(gate(&rbac, audit, &here.field("typed_config"))?);
            }
            _ => return Err(here.error(format!("network filter '{}' is not supported here, only rbac", filter.name))),
        }
    }
    let filter = last_filter(last, audit, &filters_path.index(before.len()))?;
    let tls = DownstreamTls::of_socket(value.transport_socket.as_ref(), audit, path)?;
    let timeout = value.transport_socket_connect_timeout.as_ref();
    let timeout = convert::optional_duration(timeout, &path.field("transport_socket_connect_timeout"))?;
    let handshake_timeout = timeout.unwrap_or_default();
    Ok(FilterChain { name: value.name.clone(), matches, tls, handshake_timeout, gates, filter })
}

impl FilterChainMatch {
    /// Returns true when nothing could decide between the two for some connection, because each property has a value in common.
    fn is_ambiguous_with(&self, other: &Self) -> bool {
        fn have_common<T: PartialEq>(ours: &[T], theirs: &[T]) -> bool {
            (ours.is_empty() && theirs.is_empty()) || ours.iter().any(|one| theirs.contains(one))
        }
        self.destination_port == other.destination_port
            && have_common(&self.destinations, &other.destinations)
            && have_common(&self.direct_sources, &other.direct_sources)
            && self.source_type == other.source_type
            && have_common(&self.sources, &other.sources)
            && have_common(&self.source_ports, &other.source_ports)
            && self.transport == other.transport
            && have_common(&self.server_names, &other.server_names)
            && have_common(&self.protocols, &other.protocols)
    }

    /// Returns true when a range or a port is named twice, which Envoy takes for rules that overlap.
    fn has_duplicates(&self) -> bool {
        fn any<T: PartialEq>(all: &[T]) -> bool {
            all.iter().enumerate().any(|(i, one)| all.iter().take(i).any(|other| other == one))
        }
        any(&self.destinations)
            || any(&self.direct_sources)
            || any(&self.sources)
            || any(&self.source_ports)
            || any(&self.server_names)
            || any(&self.protocols)
    }

    fn decode(value: &pb::FilterChainMatch, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::FilterChainMatch as pb::FilterChainMatch, audit, path;
            supported: destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges,
                source_ports, transport_protocol, server_names, application_protocols;
            ignored: ;
            refused: address_suffix, suffix_len);
        let port = |number: u32, here: &Path<'_>| {
            let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
            port.ok_or_else(|| here.error("must be from 1 to 65535"))
        };
        let ranges = |field: &'static str, ranges: &[core::CidrRange]| {
            let here = path.field(field);
            let ranges = ranges.iter().enumerate();
            ranges.map(|(i, range)| Network::decode(range, &here.index(i))).collect::<Result<Vec<_>, _>>()
        };
        let source_ports = value.source_ports.iter().enumerate();
        let source_ports =
            source_ports.map(|(i, number)| port(*number, &path.field("source_ports").index(i)).map(u16::from));
        let destination_port = value.destination_port.as_ref();
        Ok(Self {
            destination_port: destination_port.map(|p| port(p.value, &path.field("destination_port"))).transpose()?,
            destinations: ranges("prefix_ranges", &value.prefix_ranges)?,
            direct_sources: ranges("direct_source_prefix_ranges", &value.direct_source_prefix_ranges)?,
            source_type: match value.source_type {
                0 => SourceType::Any,
                1 => SourceType::SameIpOrLoopback,
                2 => SourceType::External,
                _ => return Err(path.field("source_type").error("is not known")),
            },
            sources: ranges("source_prefix_ranges", &value.source_prefix_ranges)?,
            source_ports: source_ports.collect::<Result<Vec<_>, _>>()?,
            transport: match value.transport_protocol.as_str() {
                "" => TransportProtocol::Any,
                "raw_buffer" => TransportProtocol::RawBuffer,
                "tls" => TransportProtocol::Tls,
                _ => return Err(Audit::refuse(path, "transport_protocol")),
            },
            server_names: value
                .server_names
                .iter()
                .enumerate()
                .map(|(i, name)| server_name(name, &path.field("server_names").index(i)))
                .collect::<Result<_, _>>()?,
            protocols: value.application_protocols.clone(),
        })
    }

    fn encode(&self) -> pb::FilterChainMatch {
        let ranges = |ranges: &[Network]| ranges.iter().map(Network::encode).collect();
        pb::FilterChainMatch {
            destination_port: self.destination_port.map(|port| convert::wrap_u32(port.get().into())),
            prefix_ranges: ranges(&self.destinations),
            direct_source_prefix_ranges: ranges(&self.direct_sources),
            source_type: self.source_type as i32,
            source_prefix_ranges: ranges(&self.sources),
            source_ports: self.source_ports.iter().map(|port| (*port).into()).collect(),
            transport_protocol: match self.transport {
                TransportProtocol::Any => String::new(),
                TransportProtocol::RawBuffer => "raw_buffer".to_owned(),
                TransportProtocol::Tls => "tls".to_owned(),
            },
            server_names: self.server_names.clone(),
            application_protocols: self.protocols.clone(),
            ..Default::default()
        }
    }
}

/// A server name: a whole one, or one below which all match. Envoy: `FilterChainManagerImpl::addFilterChains`.
fn server_name(name: &str, path: &Path<'_>) -> Result<String, Error> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.contains('*') || rest.is_empty() {
        return Err(path.error("is no server name: a wildcard stands only for the first labels"));
    }
    Ok(name.to_ascii_lowercase())
}

const HTTP: &str = "envoy.filters.network.http_connection_manager";
const TCP: &str = "envoy.filters.network.tcp_proxy";
const RBAC: &str = "envoy.filters.network.rbac";

fn gate(value: &pb_rbac::Rbac, audit: &mut Audit, path: &Path<'_>) -> Result<Rbac, Error> {
    audit!(value, pb_rbac::Rbac as pb_rbac::Rbac, audit, path;
        supported: rules, shadow_rules, stat_prefix;
        ignored: shadow_rules_stat_prefix, enforcement_type;
        refused: matcher, shadow_matcher, delay_deny);
    let rules = value.rules.as_ref().map(|r| RbacRules::decode(r, audit, &path.field("rules")));
    let shadow = value.shadow_rules.as_ref().map(|r| RbacRules::decode(r, audit, &path.field("shadow_rules")));
    Ok(Rbac { rules: rules.transpose()?, shadow: shadow.transpose()?, prefix: value.stat_prefix.clone() })
}

fn encode_gate(value: &Rbac) -> pb_rbac::Rbac {
    pb_rbac::Rbac {
        rules: value.rules.as_ref().map(RbacRules::encode),
        shadow_rules: value.shadow.as_ref().map(RbacRules::encode),
        stat_prefix: value.prefix.clone(),
        ..Default::default()
    }
}

fn last_filter(filter: &pb::Filter, audit: &mut Audit, here: &Path<'_>) -> Result<Filter, Error> {
    let Some(pb::filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(here.error("needs typed_config"));
    };
    let config = here.field("typed_config");
    if any.type_url == pb_tcp::TcpProxy::type_url() {
        let tcp: pb_tcp::TcpProxy = convert::from_any(any, here)?;
        return Ok(Filter::Tcp(TcpProxy::decode(&tcp, audit, &config)?));
    }
    if any.type_url != pb_hcm::HttpConnectionManager::type_url() {
        let message = format!(
            "network filter '{}' is not supported at the end of a chain, only http_connection_manager and tcp_proxy",
            filter.name
        );
        return Err(here.error(message));
    }
    let manager: pb_hcm::HttpConnectionManager = convert::from_any(any, here)?;
    Ok(Filter::http(HttpConnectionManager::decode(&manager, audit, &config)?))
}
