//! The end of every request, in one place: counters and access log, written when the request's record is dropped.

mod commands;
mod logging;
mod operators;
mod tls_commands;
mod trace;

use serin_traffic::grpc::GrpcStatus;
use serin_traffic::log_filter::{DOWNSTREAM_END, Facts};
use serin_traffic::response_flag::ResponseFlag;
use std::borrow::Cow;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serin_http1::framing::Framing;
use serin_http1::{Codec, Error, HeaderBlock, RequestHead, ResponseHead, Version};
use serin_resources::FormatString;
use serin_resources::connection_manager::HttpConnectionManager;
use serin_resources::listener::Filter;
use serin_resources::orca::OrcaReport;
use serin_resources::tracing::Tracing;
use serin_telemetry::istio::Ending;
use serin_traffic::header_edit::HeaderContext;
use serin_transport::tls::TlsInfo;
use tokio::time::Instant;

use super::ConnectionContext;
use super::local_reply::LocalReply;
use super::request::RequestInfo;
use super::upgrade::Verdict;
use crate::metric;
use crate::runtime::answer_key;
use crate::snapshot::ChainRuntime;
use crate::spans;
use crate::timer::Timers;
use crate::wire::WireBytes;
use crate::worker::{LocalCluster, View, Worker};
use commands::Answered;
use trace::Traced;

/// The record of a request: its route, upstream, response and times, for logs, metrics and spans.
pub(crate) struct StreamInfo {
    context: Rc<ConnectionContext>,
    view: Rc<View>,
    started: Instant,
    /// The start by the calendar, when something is logged.
    wall: Option<SystemTime>,
    /// Status answered, 0 for none.
    pub(crate) status: u16,
    /// Envoy response flag.
    pub(crate) flag: ResponseFlag,
    /// The reason why a reply of our own was given, where more is known than the flag says.
    pub(crate) details: Option<Cow<'static, str>>,
    /// The reason of a handshake with an upstream that failed.
    pub(crate) transport_failure: Option<String>,
    /// The properties of the upstream's TLS.
    pub(crate) upstream_tls: Option<Arc<TlsInfo>>,
    /// Body bytes from the client.
    pub(crate) received: u64,
    /// Body bytes to the client.
    pub(crate) sent: u64,
    upstream: Option<SocketAddr>,
    /// Our end of its connection, where somebody may want to know, and its protocol.
    pub(crate) upstream_local: Option<SocketAddr>,
    pub(crate) upstream_protocol: Option<Codec>,
    /// Endpoints that were asked, by number and address, where somebody may want to know.
    attempted: Vec<(usize, SocketAddr)>,
    /// Bytes on the wire of either side.
    pub(crate) downstream_wire: WireBytes,
    pub(crate) upstream_wire: WireBytes,
    /// Bytes of the framing fields of the response and the request, which their heads do not have.
    framing_bytes: u64,
    length_bytes: u64,
    /// The status of a response that is followed, while that is logged.
    followed: Cell<Option<u16>>,
    /// What of the request is logged at the moment.
    moment: Cell<(i32, &'static str)>,
    /// True when the fault filter held it up.
    pub(crate) is_delayed: Cell<bool>,
    /// The time that it took, once the response is complete.
    pub(crate) took: Option<Duration>,
    /// The times from its start until all of it had come, and until the first byte of its response came.
    request_took: Option<Duration>,
    first_byte: Option<Duration>,
    /// The upstream, where its requests are counted.
    peer: Option<UpstreamInfo>,
    is_grpc: bool,
    /// True when another attempt was wanted, and the policy allowed no more.
    pub(crate) retries_exhausted: bool,
    /// True when a health check of this proxy was answered.
    pub(crate) is_health_check: Cell<bool>,
    /// True when its beginning was logged.
    has_begun: bool,
    /// True when it was let to go on with another protocol.
    is_upgrade: bool,
    /// True when the request was a call, whatever the response is.
    pub(crate) is_call: bool,
    grpc_status: Option<GrpcStatus>,
    version: Version,
    /// The address of the client, as far as earlier proxies are trusted.
    pub(crate) client: Option<IpAddr>,
    /// The cluster that it goes to.
    cluster: Option<Rc<LocalCluster>>,
    route: String,
    virtual_host: String,
    pub(crate) attempts: u32,
    /// Kept only when something is logged.
    request: Option<RequestHead>,
    response: Option<ResponseHead>,
    trailers: Option<HeaderBlock>,
    /// Its span, when it is traced.
    span: Option<Box<Traced>>,
}

/// The reason of a codec's refusal as access logs say it (Envoy: `Http1ResponseCodeDetails`, `Http2ResponseCodeDetails`).
fn details_of(error: Error) -> &'static str {
    match error {
        Error::HeadTooLarge | Error::TargetTooLong => "headers_too_large",
        Error::TooManyFields => "too_many_headers",
        Error::Connection => "connection_header_rejected",
        Error::Target => "invalid_url",
        Error::BodyDisallowed => "body_disallowed",
        Error::TransferEncoding | Error::UnknownCoding => "invalid_transfer_encoding",
        _ => "codec_error",
    }
}

/// The upstream of a request.
struct UpstreamInfo {
    cluster: Rc<LocalCluster>,
    /// Endpoints by their numbers: the one that was asked first and the one that was asked last.
    first: Option<usize>,
    last: Option<usize>,
    /// True when more than one attempt was made.
    again: bool,
}

impl StreamInfo {
    pub(crate) fn new(context: &Rc<ConnectionContext>, view: &Rc<View>, started: Instant) -> Self {
        let chain = &view.chain;
        chain.stats.add(context.worker.id, metric::http::RQ_TOTAL, 1);
        chain.stats.add(context.worker.id, metric::http::RQ_ACTIVE, 1);
        Self {
            context: context.clone(),
            view: view.clone(),
            started,
            wall: (!chain.logs.is_empty()).then(SystemTime::now),
            status: 0,
            flag: ResponseFlag::None,
            details: None,
            transport_failure: None,
            upstream_tls: None,
            received: 0,
            sent: 0,
            upstream: None,
            upstream_local: None,
            upstream_protocol: None,
            attempted: Vec::new(),
            downstream_wire: WireBytes::default(),
            upstream_wire: WireBytes::default(),
            framing_bytes: 0,
            length_bytes: 0,
            followed: Cell::new(None),
            moment: Cell::new((DOWNSTREAM_END, "DownstreamEnd")),
            is_delayed: Cell::new(false),
            took: None,
            request_took: None,
            first_byte: None,
            peer: None,
            is_grpc: false,
            retries_exhausted: false,
            is_health_check: Cell::new(false),
            has_begun: false,
            is_upgrade: false,
            is_call: false,
            grpc_status: None,
            version: Version::default(),
            client: None,
            cluster: None,
            route: String::new(),
            virtual_host: String::new(),
            attempts: 0,
            request: None,
            response: None,
            trailers: None,
            span: None,
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The record of a request that is refused for its head, as far as that was understood.
    pub(super) fn refused(
        context: &Rc<ConnectionContext>,
        started: Instant,
        head: &RequestHead,
        error: Option<Error>,
    ) -> Self {
        let mut record = Self::new(context, &context.view().1, started);
        record.version = head.version;
        if !head.method().is_empty() {
            record.request(head);
        }
        record.flag = if error.is_some() { ResponseFlag::DownstreamProtocolError } else { ResponseFlag::None };
        let group = if head.version == Version::Http2 { "http2" } else { "http1" };
        record.details = Some(match error {
            Some(Error::Field) if group == "http2" => Cow::Borrowed("http2.invalid.header.field"),
            Some(error) => Cow::Owned(format!("{group}.{}", details_of(error))),
            None => Cow::Borrowed("request_header_timeout"),
        });
        record
    }

    pub(super) fn context(&self) -> &ConnectionContext {
        &self.context
    }

    pub(super) fn chain(&self) -> &Arc<ChainRuntime> {
        &self.view.chain
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.context.worker
    }

    /// The connection manager that handles it.
    pub(crate) fn manager(&self) -> Option<&HttpConnectionManager> {
        match &self.view.chain.config.filter {
            Filter::Http(http) => Some(http),
            Filter::Tcp(_) => None,
        }
    }

    /// Makes a body of a format before there is a response, but its head and the body that it would have.
    pub(crate) fn formatted(&self, format: &FormatString, request: &RequestHead, reply: &LocalReply) -> String {
        let LocalReply { head, body, details, .. } = reply;
        let facts = Answered { record: self, status: head.status, body, details: details.as_deref() };
        let mut text = String::new();
        format.write(&HeaderContext { request, response: Some(head), facts: &facts }, &mut text);
        text
    }

    /// Returns the facts about the request that filters of logs and of local replies may look at.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            head: self.request.as_ref(),
            status: self.status,
            duration: self.started.elapsed().as_millis() as u64,
            flag: self.flag,
            retries_exhausted: self.retries_exhausted,
            grpc_status: self.grpc_status,
            is_traced: self.span.is_some(),
            is_health_check: self.is_health_check.get(),
            moment: self.moment.get().0,
            random: self.worker().random(),
        }
    }

    /// Returns true when somebody may want to know later what the request was.
    pub(super) fn logged(&self) -> bool {
        self.view.chain.is_remembered || self.span.is_some()
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Remembers the request as it came.
    pub(crate) fn request(&mut self, head: &RequestHead) {
        self.version = head.version;
        if self.logged() {
            self.request = Some(head.clone());
        }
    }

    /// Remembers the request as it came, with the framing of its body, and counts it for its protocol.
    pub(super) fn arrived(&mut self, head: &RequestHead, framing: Framing) {
        self.request(head);
        self.sized(framing);
        let of_http2 = head.version == Version::Http2;
        self.count(if of_http2 { metric::http::RQ_HTTP2 } else { metric::http::RQ_HTTP1 });
    }

    /// Remembers the request as it is routed, and begins its span.
    pub(super) fn request_info(&mut self, info: &RequestInfo, head: &mut RequestHead, tracing: Option<&Tracing>) {
        self.client = Some(info.client);
        if let Some(tracing) = tracing {
            self.span = trace::begin(tracing, head, info.internal, self.worker());
        }
        self.request(head);
    }

    /// Remembers the request as it goes to its upstream: logs tell of that.
    pub(super) fn sent_as(&mut self, head: &RequestHead) {
        if self.view.chain.is_remembered {
            self.request = Some(head.clone());
        }
    }

    /// Remembers where it goes.
    pub(crate) fn cluster(&mut self, cluster: &Rc<LocalCluster>) {
        if cluster.tally.is_some() || cluster.config.reported.is_some() || self.context.worker.state.reports_loads() {
            self.peer = Some(UpstreamInfo { cluster: cluster.clone(), first: None, last: None, again: false });
        }
        self.cluster = Some(cluster.clone());
    }

    /// Remembers which endpoint is asked.
    pub(crate) fn endpoint(&mut self, choice: usize, address: SocketAddr) {
        self.upstream = Some(address);
        self.attempts += 1;
        if self.view.chain.is_remembered {
            self.attempted.push((choice, address));
        }
        if let Some(asked) = &mut self.peer {
            asked.again = asked.first.is_some();
            asked.first = asked.first.or(Some(choice));
            asked.last = Some(choice);
        }
    }

    /// Remembers which of several that were asked gave the response.
    pub(super) fn settled(&mut self, choice: usize, address: SocketAddr) {
        self.upstream = Some(address);
        if let Some(asked) = &mut self.peer {
            asked.last = Some(choice);
        }
    }

    /// Remembers which route it took.
    pub(crate) fn route(&mut self, host: &str, name: &str) {
        if self.logged() {
            host.clone_into(&mut self.virtual_host);
            name.clone_into(&mut self.route);
        }
    }

    /// The client: the peer, or whom trusted proxies name (without a port, 0 stands for it).
    fn remote(&self) -> SocketAddr {
        match self.client {
            Some(client) if client != self.context.peer.ip() => SocketAddr::new(client, 0),
            _ => self.context.peer,
        }
    }

    /// Remembers when the first byte of the response came, and when all of the request had come.
    pub(super) fn first_byte(&mut self, took: Duration, timers: &Timers) {
        if self.logged() {
            self.first_byte = Some(took);
            self.request_took = timers.received().map(|at| at.saturating_duration_since(self.started));
        }
    }

    /// Remembers the response.
    pub(crate) fn response(&mut self, head: &ResponseHead) {
        self.status = head.status;
        if self.peer.is_some() {
            self.is_grpc = head.fields.get("content-type").is_some_and(|t| t.starts_with(b"application/grpc"));
        }
        if self.peer.is_some() || self.is_call {
            self.status_of(&head.fields);
        }
        if self.logged() {
            self.response = Some(head.clone());
        }
    }

    /// Remembers trailers.
    pub(crate) fn ended_with(&mut self, trailers: &HeaderBlock) {
        self.status_of(trailers);
        if self.logged() {
            self.trailers = Some(trailers.clone());
        }
    }

    /// Remembers the status of gRPC, which stands in trailers or in a head without more.
    fn status_of(&mut self, fields: &HeaderBlock) {
        self.load_report(fields);
        if self.is_grpc || self.is_call {
            self.grpc_status = GrpcStatus::of(fields);
        }
    }

    /// Takes note of the load that the backend reports, in its head or its trailers.
    fn load_report(&self, fields: &HeaderBlock) {
        let Some(UpstreamInfo { cluster, last: Some(last), .. }) = &self.peer else { return };
        let (Some(config), Some(local)) = (&cluster.config.reported, cluster.hosts.get(*last)) else { return };
        if let Some(report) = OrcaReport::read(fields) {
            local.host.reported(config, &report);
        }
    }

    /// The status of a call, once it is known.
    pub(crate) fn grpc_status(&self) -> Option<GrpcStatus> {
        self.grpc_status
    }

    fn tally(&self, took: Duration) {
        let Some(UpstreamInfo { cluster, last, .. }) = &self.peer else { return };
        let member = last.and_then(|choice| cluster.members.get(choice));
        let tally = member.map_or(&cluster.tally, |member| &member.tally);
        let Self { status, is_grpc: grpc, grpc_status, .. } = *self;
        let flag = self.flag.as_str();
        let grpc_status = grpc_status.map(|status| u16::try_from(status.code()).unwrap_or(u16::MAX));
        if let Some(tally) = tally {
            tally.count(self.context.worker.id, Ending { status, flag, grpc, grpc_status }, took);
        }
    }

    /// Counts how the first attempt went. A client that left before it was answered says nothing about the endpoint.
    fn first_attempt(&self, took: Duration) {
        let Some(UpstreamInfo { cluster, first: Some(first), again, .. }) = &self.peer else { return };
        if !self.context.worker.state.reports_loads() || (self.status == 0 && !again) {
            return;
        }
        let failed = *again
            || self.status >= 500
            || self.grpc_status.is_some_and(GrpcStatus::is_server_error)
            || matches!(self.flag, ResponseFlag::UpstreamConnectionTermination | ResponseFlag::UpstreamRequestTimeout);
        if let Some(local) = cluster.hosts.get(*first) {
            // What the first of several attempts was answered is not known here, only that it was not good enough.
            let answer = if *again { Some(0) } else { answer_key(self.status, self.grpc_status) };
            local.host.first_attempt(self.context.worker.id, took, answer, failed);
        }
    }

    /// Returns true when it was let to go on with another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// Counts a request that may go on with another protocol.
    pub(super) fn upgrade(&mut self, verdict: Option<Verdict>) -> Option<Verdict> {
        if matches!(verdict, Some(Verdict::Accepted(_))) && !std::mem::replace(&mut self.is_upgrade, true) {
            self.count(metric::http::CX_UPGRADES_TOTAL);
            self.count(metric::http::CX_UPGRADES_ACTIVE);
        }
        verdict
    }

    pub(crate) fn count(&self, index: usize) {
        self.view.chain.stats.add(self.context.worker.id, index, 1);
    }
}

impl Drop for StreamInfo {
    fn drop(&mut self) {
        let id = self.context.worker.id;
        let took = self.took.unwrap_or_else(|| self.started.elapsed());
        let stats = &self.view.chain.stats;
        stats.sub(id, metric::http::RQ_ACTIVE);
        if self.is_upgrade {
            stats.sub(id, metric::http::CX_UPGRADES_ACTIVE);
        }
        if self.status == 0 {
            if self.flag == ResponseFlag::None {
                self.flag = ResponseFlag::DownstreamConnectionTermination;
                self.details.get_or_insert(Cow::Borrowed("downstream_remote_disconnect"));
            }
            stats.add(id, metric::http::RQ_RX_RESET, 1);
        } else {
            stats.add(id, metric::http::RQ_COMPLETED, 1);
            stats.add(id, metric::class(metric::http::RQ_1XX, self.status), 1);
            self.view.chain.times.record(id, took);
        }
        self.tally(took);
        self.first_attempt(took);
        if let (Some(span), Some(tracing)) = (&self.span, self.manager().and_then(|m| m.tracing.as_ref())) {
            let span = span.end(tracing, self.view.chain.direction, self);
            spans::tell(&self.context.worker.spans, &tracing.provider, span);
        }
        self.log();
    }
}
