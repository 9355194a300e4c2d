//! What logs say of a connection of bytes. Source: Envoy, "Access logging", operators for TCP.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use serin_resources::substitution::FormatContext;
use serin_traffic::log_filter::{Facts, TCP_CONNECTED, TCP_END, TCP_START};
use serin_traffic::response_flag::ResponseFlag;

use crate::snapshot::ChainRuntime;
use crate::times::start_time;
use crate::worker::LocalCluster;

/// A moment at which a connection is logged.
pub(super) type Moment = (i32, &'static str);

pub(super) const START: Moment = (TCP_START, "TcpConnectionStart");
pub(super) const CONNECTED: Moment = (TCP_CONNECTED, "TcpUpstreamConnected");
const END: Moment = (TCP_END, "TcpConnectionEnd");

/// The record of a connection; it is logged at its end.
pub(super) struct TcpRecord<'a> {
    chain: &'a ChainRuntime,
    started: Instant,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    pub(super) server_name: Option<Rc<str>>,
    pub(super) cluster: Option<Rc<LocalCluster>>,
    /// The endpoint's address, our end of its connection, and its name.
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_local: Option<SocketAddr>,
    pub(super) attempts: u32,
    pub(super) retries_exhausted: bool,
    pub(super) flag: ResponseFlag,
    pub(super) details: Option<&'static str>,
    /// Why no connection to the upstream was made.
    pub(super) failure: Option<String>,
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
    moment: Cell<Moment>,
}

impl<'a> TcpRecord<'a> {
    pub(super) fn new(chain: &'a ChainRuntime, peer: SocketAddr) -> Self {
        Self {
            chain,
            started: Instant::now(),
            peer,
            local: None,
            server_name: None,
            cluster: None,
            upstream: None,
            upstream_local: None,
            attempts: 0,
            retries_exhausted: false,
            flag: ResponseFlag::None,
            details: None,
            failure: None,
            received: Cell::new(0),
            sent: Cell::new(0),
            moment: Cell::new(END),
        }
    }

    /// Logs the connection as it is.
    pub(super) fn log(&self, moment: Moment) {
        self.moment.set(moment);
        for log in &self.chain.logs {
            if log.filter.as_ref().is_none_or(|filter| filter.passes(&self.facts())) {
                let mut line = String::with_capacity(256);
                log.format.write_line(self, &mut line);
                log.writer.write(line);
            }
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            head: None,
            status: 0,
            duration: self.started.elapsed().as_millis() as u64,
            flag: self.flag,
            retries_exhausted: self.retries_exhausted,
            grpc_status: None,
            is_traced: false,
            is_health_check: false,
            moment: self.moment.get().0,
            random: 0,
        }
    }

    fn flags(&self, long: bool) -> String {
        let own = if long { self.flag.long() } else { self.flag.as_str() };
        let limit = if long { "UpstreamRetryLimitExceeded" } else { "URX" };
        if self.retries_exhausted { format!("{own},{limit}") } else { own.to_owned() }
    }
}

impl Drop for TcpRecord<'_> {
    fn drop(&mut self) {
        self.log(END);
    }
}

impl FormatContext for TcpRecord<'_> {
    fn command(&self, name: &str, argument: Option<&str>) -> Option<String> {
        let number = |n: u64| Some(n.to_string());
        let ip = |address: Option<SocketAddr>| crate::times::masked(address?.ip(), argument);
        let text = |address: Option<SocketAddr>| address.map(|a| a.to_string());
        let port = |address: Option<SocketAddr>| address.map(|a| a.port().to_string());
        match name {
            "START_TIME" => {
                let began = SystemTime::now() - self.started.elapsed();
                start_time(jiff::Timestamp::try_from(began).ok()?, argument)
            }
            "EMIT_TIME" => start_time(jiff::Timestamp::now(), argument),
            "ACCESS_LOG_TYPE" => Some(self.moment.get().1.to_owned()),
            "BYTES_RECEIVED" | "DOWNSTREAM_WIRE_BYTES_RECEIVED" | "UPSTREAM_WIRE_BYTES_SENT" => {
                number(self.received.get())
            }
            "BYTES_SENT" | "DOWNSTREAM_WIRE_BYTES_SENT" | "UPSTREAM_WIRE_BYTES_RECEIVED" => number(self.sent.get()),
            "RESPONSE_CODE" => number(0),
            name if name.ends_with("HEADERS_BYTES")
                || name.ends_with("TRAILERS_BYTES")
                || name.contains("HEADER_BYTES")
                || name.ends_with("_RETRANSMITTED") =>
            {
                number(0)
            }
            "RESPONSE_FLAGS" => Some(self.flags(false)),
            "RESPONSE_FLAGS_LONG" => Some(self.flags(true)),
            "CONNECTION_TERMINATION_DETAILS" => self.details.map(str::to_owned),
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => self.failure.clone(),
            "DURATION" => number(self.started.elapsed().as_millis() as u64),
            "UPSTREAM_CLUSTER" => Some(self.cluster.as_ref()?.config.stat_name().to_owned()),
            "UPSTREAM_CLUSTER_RAW" => Some(self.cluster.as_ref()?.config.name.clone()),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => number(self.attempts.into()),
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => text(self.upstream),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => ip(self.upstream),
            "UPSTREAM_REMOTE_PORT" => port(self.upstream),
            "UPSTREAM_LOCAL_ADDRESS" => text(self.upstream_local),
            "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => ip(self.upstream_local),
            "UPSTREAM_LOCAL_PORT" => port(self.upstream_local),
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => text(Some(self.peer)),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                ip(Some(self.peer))
            }
            "DOWNSTREAM_REMOTE_PORT" | "DOWNSTREAM_DIRECT_REMOTE_PORT" => port(Some(self.peer)),
            "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => text(self.local),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => ip(self.local),
            "DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT" => port(self.local),
            "FILTER_CHAIN_NAME" => Some(self.chain.config.name.clone()).filter(|name| !name.is_empty()),
            "REQUESTED_SERVER_NAME" => self.server_name.as_deref().map(str::to_owned),
            "ENVIRONMENT" => argument.and_then(|name| std::env::var(name).ok()),
            "HOSTNAME" => crate::times::hostname(),
            _ => None,
        }
    }

    fn request_header(&self, _: &str) -> Option<String> {
        None
    }

    fn response_header(&self, _: &str) -> Option<String> {
        None
    }
}
