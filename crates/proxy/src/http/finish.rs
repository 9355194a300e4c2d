//! The end of every request, in one place: counters and access log, written when the request's record is dropped.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use serin_http1::{RequestHead, ResponseHead};
use serin_telemetry::access_log::Record as LogRecord;
use tokio::time::Instant;

use super::ConnectionContext;
use crate::metric;
use crate::worker::{View, Worker};

/// What is remembered of a request.
pub(crate) struct Record {
    context: Rc<ConnectionContext>,
    view: Rc<View>,
    started: Instant,
    /// The start by the calendar, when something is logged.
    wall: Option<SystemTime>,
    /// Status answered, 0 for none.
    pub(crate) status: u16,
    /// Envoy response flag.
    pub(crate) flag: &'static str,
    /// Body bytes from the client.
    pub(crate) received: u64,
    /// Body bytes to the client.
    pub(crate) sent: u64,
    pub(crate) upstream: Option<SocketAddr>,
    cluster: String,
    route: String,
    pub(crate) attempts: u32,
    /// Kept only when something is logged.
    request: Option<RequestHead>,
    response: Option<ResponseHead>,
}

impl Record {
    pub(crate) fn new(context: &Rc<ConnectionContext>, view: &Rc<View>, started: Instant) -> Self {
        let listener = &view.listener;
        listener.stats.add(context.worker.id, metric::http::RQ_TOTAL, 1);
        listener.stats.add(context.worker.id, metric::http::RQ_ACTIVE, 1);
        Self {
            context: context.clone(),
            view: view.clone(),
            started,
            wall: (!listener.logs.is_empty()).then(SystemTime::now),
            status: 0,
            flag: "-",
            received: 0,
            sent: 0,
            upstream: None,
            cluster: String::new(),
            route: String::new(),
            attempts: 0,
            request: None,
            response: None,
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.context.worker
    }

    fn logged(&self) -> bool {
        !self.view.listener.logs.is_empty()
    }

    /// Remembers the request as it came.
    pub(crate) fn request(&mut self, head: &RequestHead) {
        if self.logged() {
            self.request = Some(head.clone());
        }
    }

    /// Remembers where it goes.
    pub(crate) fn cluster(&mut self, name: &str) {
        if self.logged() {
            name.clone_into(&mut self.cluster);
        }
    }

    /// Remembers which route it took.
    pub(crate) fn route(&mut self, name: &str) {
        if self.logged() {
            name.clone_into(&mut self.route);
        }
    }

    /// Remembers the answer.
    pub(crate) fn response(&mut self, head: &ResponseHead) {
        self.status = head.status;
        if self.logged() {
            self.response = Some(head.clone());
        }
    }

    pub(crate) fn count(&self, index: usize) {
        self.view.listener.stats.add(self.context.worker.id, index, 1);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let id = self.context.worker.id;
        let stats = &self.view.listener.stats;
        stats.sub(id, metric::http::RQ_ACTIVE);
        if self.status == 0 {
            self.flag = if self.flag == "-" { "DC" } else { self.flag };
            stats.add(id, metric::http::RQ_RX_RESET, 1);
        } else {
            stats.add(id, metric::http::RQ_COMPLETED, 1);
            stats.add(id, metric::class(metric::http::RQ_1XX, self.status), 1);
        }
        for (format, writer) in &self.view.listener.logs {
            let mut line = String::with_capacity(256);
            format.write(self, &mut line);
            writer.write(line);
        }
    }
}

impl LogRecord for Record {
    fn command(&self, name: &str) -> Option<String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match name {
            "START_TIME" => jiff::Timestamp::try_from(self.wall?).ok().map(|t| format!("{t:.3}")),
            "PROTOCOL" => self.request.as_ref().map(|r| r.version.as_str().to_owned()),
            "RESPONSE_CODE" => Some(self.status.to_string()),
            "RESPONSE_FLAGS" => some(self.flag),
            "BYTES_RECEIVED" => Some(self.received.to_string()),
            "BYTES_SENT" => Some(self.sent.to_string()),
            "DURATION" => Some(self.started.elapsed().as_millis().to_string()),
            "UPSTREAM_HOST" => self.upstream.map(|a| a.to_string()),
            "UPSTREAM_CLUSTER" => some(&self.cluster),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Some(self.attempts.to_string()),
            "DOWNSTREAM_REMOTE_ADDRESS" => Some(self.context.peer.to_string()),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Some(self.context.peer.ip().to_string()),
            "DOWNSTREAM_LOCAL_ADDRESS" => self.context.local.map(|a| a.to_string()),
            "ROUTE_NAME" => some(&self.route),
            _ => None,
        }
    }

    fn request_header(&self, name: &str) -> Option<String> {
        let head = self.request.as_ref()?;
        let value = match name {
            ":method" => Some(head.method()),
            ":path" => Some(head.target()),
            ":authority" => head.fields.get("host"),
            name => head.fields.get(name),
        };
        value.map(|v| String::from_utf8_lossy(v).into_owned())
    }

    fn response_header(&self, name: &str) -> Option<String> {
        let value = self.response.as_ref()?.fields.get(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}
