//! Listener: an address and what is spoken there.
#![expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]

mod filter_chain;

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as pb_http_inspector;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as pb_tls_inspector;
use prost::{Message as _, Name as _};

use crate::access_log::AccessLog;
use crate::connection_manager::{HttpConnectionManager, RouteSource};
use crate::convert;
use crate::http_filter::HttpFilter;
use crate::tcp_proxy::TcpProxy;
use crate::{Audit, Error, Path};

pub use filter_chain::{FilterChain, FilterChainMatch, SourceType, TransportProtocol};

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name LDS knows it by.
    pub name: String,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The name of its statistics instead of its address; may be empty.
    pub stat_prefix: String,
    /// Bytes that a connection may buffer (Envoy's default is 1 MiB).
    pub buffer_limit: u32,
    /// The side that connects: clients, or the local application.
    pub direction: Direction,
    /// The filters that look at connections before a chain is chosen.
    pub listener_filters: Vec<ListenerFilter>,
    /// The chains, of which each connection gets the one that matches it most specifically.
    pub chains: Vec<FilterChain>,
    /// The chain of connections that no other matches; without one they are closed.
    pub default_chain: Option<FilterChain>,
}

/// A filter that looks at a connection before its chain is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerFilter {
    /// `envoy.filters.listener.tls_inspector`: chains are chosen by what a TLS client asks for.
    TlsInspector,
    /// `envoy.filters.listener.http_inspector`. Nothing depends on what it finds yet.
    HttpInspector,
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

    /// Returns how HTTP is handled, if it is.
    #[must_use]
    pub fn manager(&self) -> Option<&HttpConnectionManager> {
        match self {
            Self::Http(http) => Some(http),
            Self::Tcp(_) => None,
        }
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
            Self::Tcp(tcp) => &tcp.access_logs,
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
    /// Creates a listener whose connections all get the same network filter.
    #[must_use]
    pub fn new(name: String, address: SocketAddr, direction: Direction, filter: Filter) -> Self {
        let chains = vec![FilterChain::new(filter)];
        let (stat_prefix, listener_filters) = (String::new(), Vec::new());
        Self {
            name,
            address,
            stat_prefix,
            buffer_limit: BUFFER_LIMIT,
            direction,
            listener_filters,
            chains,
            default_chain: None,
        }
    }

    /// Returns the name of its statistics (Envoy: the address as it is configured, with underscores for colons).
    #[must_use]
    pub fn stat_prefix(&self) -> String {
        match self.stat_prefix.as_str() {
            "" => self.address.to_string().replace(':', "_"),
            given => given.to_owned(),
        }
    }

    /// Returns every chain, the default chain last.
    pub fn all_chains(&self) -> impl Iterator<Item = &FilterChain> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// Returns true when the first bytes of a connection are looked at before its chain is chosen. Without an inspector nothing is known
    /// of what a TLS client asks for.
    #[must_use]
    pub fn inspects_tls(&self) -> bool {
        self.listener_filters.contains(&ListenerFilter::TlsInspector)
    }

    /// Returns the sources of the routes of its chains.
    pub fn route_sources(&self) -> impl Iterator<Item = &RouteSource> {
        self.all_chains().filter_map(|chain| chain.filter.routes())
    }

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
            supported: name, address, stat_prefix, filter_chains, default_filter_chain, traffic_direction, listener_filters,
                per_connection_buffer_limit_bytes;
            ignored: stats_matcher,
                per_connection_buffer_high_watermark_timeout, metadata, drain_type, listener_filters_timeout,
                continue_on_listener_filters_timeout, freebind, socket_options, tcp_fast_open_queue_length,
                connection_balance_config, reuse_port, enable_reuse_port, access_log, tcp_backlog_size,
                max_connections_to_accept_per_socket_event, enable_mptcp, ignore_global_conn_limit, bypass_overload_manager,
                tcp_keepalive;
            refused: additional_addresses, fcds_config, filter_chain_matcher, use_original_dst, deprecated_v1, transparent,
                udp_listener_config, api_listener, bind_to_port, listener_specifier);
        let listener_filters = value.listener_filters.iter().enumerate();
        let listener_filters = listener_filters
            .map(|(i, filter)| {
                use pb::listener_filter::ConfigType;
                // What it is says its configuration; its name may be any.
                let what = match &filter.config_type {
                    Some(ConfigType::TypedConfig(any)) => any.type_url.as_str(),
                    _ => filter.name.as_str(),
                };
                if what == TLS_INSPECTOR || what == pb_tls_inspector::TlsInspector::type_url() {
                    return Ok(ListenerFilter::TlsInspector);
                }
                if what == HTTP_INSPECTOR || what == pb_http_inspector::HttpInspector::type_url() {
                    return Ok(ListenerFilter::HttpInspector);
                }
                let message = format!("listener filter '{}' is not supported", filter.name);
                Err(path.field("listener_filters").index(i).error(message))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let chains = filter_chain::decode_all(value, audit, path)?;
        let default_path = path.field("default_filter_chain");
        let default_chain = value.default_filter_chain.as_ref();
        let default_chain =
            default_chain.map(|chain| FilterChain::decode_default(chain, audit, &default_path)).transpose()?;
        let address = convert::socket_address(value.address.as_ref(), &path.field("address"))?;
        Ok(Self {
            name: if value.name.is_empty() { address.to_string() } else { value.name.clone() },
            address,
            stat_prefix: value.stat_prefix.clone(),
            buffer_limit: value.per_connection_buffer_limit_bytes.as_ref().map_or(BUFFER_LIMIT, |v| v.value),
            direction: match value.traffic_direction {
                1 => Direction::Inbound,
                2 => Direction::Outbound,
                _ => Direction::Unspecified,
            },
            listener_filters,
            chains,
            default_chain,
        })
    }

    /// The bytes of an LDS resource.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let inspector = |filter: &ListenerFilter| {
            let (name, config) = match filter {
                ListenerFilter::TlsInspector => {
                    (TLS_INSPECTOR, convert::any(&pb_tls_inspector::TlsInspector::default()))
                }
                ListenerFilter::HttpInspector => (HTTP_INSPECTOR, convert::any(&pb_http_inspector::HttpInspector {})),
            };
            let config = Some(pb::listener_filter::ConfigType::TypedConfig(config));
            pb::ListenerFilter { name: name.to_owned(), config_type: config, ..Default::default() }
        };
        pb::Listener {
            name: self.name.clone(),
            stat_prefix: self.stat_prefix.clone(),
            per_connection_buffer_limit_bytes: (self.buffer_limit != BUFFER_LIMIT)
                .then(|| convert::wrap_u32(self.buffer_limit)),
            address: Some(convert::proto_address(&self.address.ip().to_string(), self.address.port())),
            listener_filters: self.listener_filters.iter().map(inspector).collect(),
            filter_chains: self.chains.iter().map(FilterChain::encode).collect(),
            default_filter_chain: self.default_chain.as_ref().map(FilterChain::encode),
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

/// Bytes that a connection buffers unless a listener says otherwise.
const BUFFER_LIMIT: u32 = 1024 * 1024;
const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
