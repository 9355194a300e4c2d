//! Listener: an address and what is spoken there.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as pb_rbac;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb_tcp;
use prost::{Message as _, Name as _};

use crate::access_log::AccessLog;
use crate::connection_manager::{HttpConnectionManager, RouteSource};
use crate::convert;
use crate::http_filter::{HttpFilter, Rbac, RbacRules};
use crate::tcp_proxy::TcpProxy;
use crate::{Audit, Error, Path};

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name LDS knows it by.
    pub name: String,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The side that connects: clients, or the local application.
    pub direction: Direction,
    /// The filters of connections; all of these must let a connection in.
    pub gates: Vec<Rbac>,
    /// The network filter of its connections.
    pub filter: Filter,
}

/// The network filter at the end of a listener's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// HTTP is spoken.
    Http(Box<HttpConnectionManager>),
    /// Bytes are passed on.
    Tcp(TcpProxy),
}

impl Filter {
    /// HTTP, handled like this.
    #[must_use]
    pub fn http(manager: HttpConnectionManager) -> Self {
        Self::Http(Box::new(manager))
    }

    /// The source of its routes, if it has any.
    #[must_use]
    pub fn routes(&self) -> Option<&RouteSource> {
        match self {
            Self::Http(http) => Some(&http.routes),
            Self::Tcp(_) => None,
        }
    }

    /// Its HTTP filters.
    #[must_use]
    pub fn http_filters(&self) -> &[HttpFilter] {
        match self {
            Self::Http(http) => &http.filters,
            Self::Tcp(_) => &[],
        }
    }

    /// Prefix of its statistics.
    #[must_use]
    pub fn stat_prefix(&self) -> &str {
        match self {
            Self::Http(http) => &http.stat_prefix,
            Self::Tcp(tcp) => &tcp.stat_prefix,
        }
    }

    /// Its access logs.
    #[must_use]
    pub fn access_logs(&self) -> &[AccessLog] {
        match self {
            Self::Http(http) => &http.access_logs,
            Self::Tcp(_) => &[],
        }
    }
}

/// The direction of a listener's traffic, seen from the workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Listener {
    /// Decodes the bytes of an LDS resource.
    ///
    /// # Errors
    /// Names the first field that is malformed or must not be ignored.
    pub fn decode(bytes: &[u8], audit: &mut Audit) -> Result<Self, Error> {
        let path = Path::root("Listener");
        let value = pb::Listener::decode(bytes).map_err(|e| path.error(e.to_string()))?;
        Self::from_proto(&value, audit, &path)
    }

    pub(crate) fn from_proto(value: &pb::Listener, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Listener as pb::Listener, audit, path;
            supported: name, address, filter_chains, default_filter_chain, traffic_direction, listener_filters;
            ignored: stat_prefix, stats_matcher, per_connection_buffer_limit_bytes,
                per_connection_buffer_high_watermark_timeout, metadata, drain_type, listener_filters_timeout,
                continue_on_listener_filters_timeout, freebind, socket_options, tcp_fast_open_queue_length,
                connection_balance_config, reuse_port, enable_reuse_port, access_log, tcp_backlog_size,
                max_connections_to_accept_per_socket_event, enable_mptcp, ignore_global_conn_limit, bypass_overload_manager,
                tcp_keepalive;
            refused: additional_addresses, fcds_config, filter_chain_matcher, use_original_dst, deprecated_v1, transparent,
                udp_listener_config, api_listener, bind_to_port, listener_specifier);
        for (i, filter) in value.listener_filters.iter().enumerate() {
            if !HARMLESS_LISTENER_FILTERS.contains(&filter.name.as_str()) {
                let message = format!("listener filter '{}' is not supported", filter.name);
                return Err(path.field("listener_filters").index(i).error(message));
            }
        }
        let chain = match (value.filter_chains.as_slice(), &value.default_filter_chain) {
            ([only], None) => only,
            ([], Some(only)) => only,
            _ => return Err(path.field("filter_chains").error("exactly one filter chain is supported")),
        };
        let (gates, filter) = filter_chain(chain, audit, &path.field("filter_chains").index(0))?;
        let address = convert::socket_address(value.address.as_ref(), &path.field("address"))?;
        Ok(Self {
            name: if value.name.is_empty() { address.to_string() } else { value.name.clone() },
            address,
            direction: match value.traffic_direction {
                1 => Direction::Inbound,
                2 => Direction::Outbound,
                _ => Direction::Unspecified,
            },
            gates,
            filter,
        })
    }

    /// The bytes of an LDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
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
        pb::Listener {
            name: self.name.clone(),
            address: Some(convert::proto_address(&self.address.ip().to_string(), self.address.port())),
            filter_chains: vec![pb::FilterChain { filters: gates.chain([filter]).collect(), ..Default::default() }],
            traffic_direction: match self.direction {
                Direction::Unspecified => core::TrafficDirection::Unspecified,
                Direction::Inbound => core::TrafficDirection::Inbound,
                Direction::Outbound => core::TrafficDirection::Outbound,
            } as i32,
            ..Default::default()
        }
        .encode_to_vec()
    }
}

const HTTP: &str = "envoy.filters.network.http_connection_manager";
const TCP: &str = "envoy.filters.network.tcp_proxy";
const RBAC: &str = "envoy.filters.network.rbac";

/// Filters that only look: without them nothing goes elsewhere.
const HARMLESS_LISTENER_FILTERS: [&str; 2] =
    ["envoy.filters.listener.tls_inspector", "envoy.filters.listener.http_inspector"];

/// The filters of a chain: who may connect, then what becomes of the connection.
fn filter_chain(value: &pb::FilterChain, audit: &mut Audit, path: &Path<'_>) -> Result<(Vec<Rbac>, Filter), Error> {
    audit!(value, pb::FilterChain as pb::FilterChain, audit, path;
        supported: filters, filter_chain_match;
        ignored: metadata, transport_socket_connect_timeout, name;
        refused: use_proxy_proto, transport_socket);
    if value.filter_chain_match.as_ref().is_some_and(|m| *m != pb::FilterChainMatch::default()) {
        return Err(Audit::refuse(path, "filter_chain_match"));
    }
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
    Ok((gates, last_filter(last, audit, &filters_path.index(before.len()))?))
}

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
