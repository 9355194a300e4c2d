//! When a request is logged, and what is remembered for that alone.

use serin_http1::RequestHead;
use serin_http1::framing::{Declared, Framing};
use serin_traffic::log_filter::{DOWNSTREAM_START, TUNNEL_ESTABLISHED};

use super::StreamInfo;
use crate::http::attempt::Answer;
use crate::http::body::RequestBody;
use crate::metric;
use crate::wire::{BodySink, WireBytes};

impl StreamInfo {
    /// Remembers how the upstream was spoken to.
    pub(in crate::http) fn upstream(&mut self, answer: &mut Answer) {
        self.upstream_tls = answer.tls.take();
        self.upstream_protocol = Some(answer.exchange.codec());
        if self.view.chain.is_remembered {
            self.upstream_local = answer.exchange.local_addr();
        }
    }

    /// Remembers what was on the wire to and from the client.
    pub(in crate::http) fn wires(&mut self, body: &RequestBody<'_>, sink: &BodySink<'_>) {
        let ((received, received_head), (sent, sent_head)) = (body.wire(), sink.wire());
        self.downstream_wire = WireBytes { received, received_head, sent, sent_head };
        let stats = &self.view.chain.stats;
        stats.add(self.context.worker.id, metric::http::CX_RX_BYTES, received);
        stats.add(self.context.worker.id, metric::http::CX_TX_BYTES, sent);
    }

    /// Logs that another protocol begins, where that is wanted.
    pub(in crate::http) fn tunnel_begins(&self) {
        if self.manager().is_some_and(|http| http.log_moments.tunnel) {
            self.log_at((TUNNEL_ESTABLISHED, "DownstreamTunnelSuccessfullyEstablished"));
        }
    }

    /// Returns true when its beginning is to be logged.
    pub(in crate::http) fn wants_beginning(&self) -> bool {
        !self.has_begun && self.manager().is_some_and(|http| http.log_moments.start)
    }

    /// Logs that a request begins.
    pub(in crate::http) fn begins(&mut self) {
        self.has_begun = true;
        self.log_at((DOWNSTREAM_START, "DownstreamStart"));
    }

    /// Remembers how the response is framed.
    pub(in crate::http) fn framed(&mut self, framing: Framing, declared: Declared) {
        let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as u64 + 1;
        self.framing_bytes = match (framing, declared) {
            (Framing::Length(n), _) | (Framing::Empty, Declared::Length(n)) => {
                "content-length".len() as u64 + digits(n)
            }
            (Framing::Chunked | Framing::UntilClose, _) => ("transfer-encoding".len() + "chunked".len()) as u64,
            (Framing::Empty, _) => 0,
        };
    }

    /// Writes to the logs that want it.
    pub(in crate::http) fn log(&self) {
        for log in &self.view.chain.logs {
            if log.filter.as_ref().is_none_or(|filter| filter.passes(&self.facts())) {
                let mut line = String::with_capacity(256);
                log.format.write_line(self, &mut line);
                log.writer.write(line);
            }
        }
    }

    /// Writes to the logs at another moment than the end.
    pub(in crate::http) fn log_at(&self, moment: (i32, &'static str)) {
        let end = self.moment.replace(moment);
        self.log();
        self.moment.set(end);
    }

    /// Remembers that a response is followed to where it leads, rather than passed on.
    pub(in crate::http) fn follows(&self, status: u16) {
        self.followed.set(Some(status));
    }

    /// Logs a response that was followed. By now the request is what it became (Envoy: `ActiveStream::recreateStream`).
    pub(in crate::http) fn log_followed(&mut self, head: &RequestHead) {
        if self.followed.get().is_none() {
            return;
        }
        self.request(head);
        self.log();
        self.followed.set(None);
        self.attempts = 0;
        self.attempted.clear();
    }

    /// Remembers how the request's body is framed.
    pub(in crate::http) fn sized(&mut self, framing: Framing) {
        self.length_bytes = if let Framing::Length(n) = framing { length_bytes(n) } else { 0 };
    }
}

/// Bytes of `content-length` and its value.
fn length_bytes(length: u64) -> u64 {
    "content-length".len() as u64 + u64::from(length.checked_ilog10().unwrap_or(0)) + 1
}
