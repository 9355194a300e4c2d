//! Local replies: responses that the proxy gives itself.

use serin_http1::{RequestHead, ResponseHead};
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::router::is_grpc;

/// The reason why a request goes no further in the pipeline.
pub(crate) enum Stop {
    /// The proxy sends a local reply.
    Reply(LocalReply),
    /// The client is gone, or sent what cannot be answered: the connection ends.
    DownstreamGone,
    /// Something that cannot be; the client gets a 500.
    Bug(&'static str),
}

/// A complete response.
pub(crate) struct LocalReply {
    pub(crate) head: Box<ResponseHead>,
    pub(crate) body: Vec<u8>,
    /// Envoy response flag.
    pub(crate) flag: ResponseFlag,
    /// True when the connection must close after it.
    pub(crate) close: bool,
    /// The reason why it is given, for access logs (`RESPONSE_CODE_DETAILS`), where more is known than its flag says.
    pub(crate) details: Option<String>,
    /// The status that a gRPC client gets instead of what the HTTP status stands for.
    pub(crate) grpc: Option<GrpcStatus>,
}

impl LocalReply {
    pub(crate) fn new(status: u16, body: impl AsRef<[u8]>, flag: ResponseFlag) -> Self {
        let body = body.as_ref().to_vec();
        let mut head = ResponseHead::new(status);
        if !body.is_empty() {
            head.fields.append(b"content-type", b"text/plain");
        }
        Self { head: Box::new(head), body, flag, details: None, close: false, grpc: None }
    }

    /// A status without a body.
    pub(crate) fn empty(status: u16, flag: ResponseFlag) -> Self {
        Self::new(status, "", flag)
    }

    /// A gRPC client gets the reason as a gRPC status in a trailers-only response (gRPC over HTTP/2 protocol page).
    pub(crate) fn for_request(self, head: &RequestHead) -> Self {
        if !is_grpc(head) || self.head.status < 400 {
            return self;
        }
        let status = self.grpc.unwrap_or_else(|| GrpcStatus::from_http(self.head.status));
        self.into_grpc(status)
    }

    /// The response as a gRPC status.
    pub(crate) fn into_grpc(self, status: GrpcStatus) -> Self {
        let mut head = ResponseHead::new(200);
        head.fields.append(b"content-type", b"application/grpc");
        head.fields.append(b"grpc-status", status.code().to_string().as_bytes());
        if !self.body.is_empty() {
            let message: String = String::from_utf8_lossy(&self.body).chars().map(percent_encode).collect();
            head.fields.append(b"grpc-message", message.as_bytes());
        }
        Self { head: Box::new(head), body: Vec::new(), ..self }
    }
}

fn percent_encode(c: char) -> String {
    if (' '..='~').contains(&c) && c != '%' { c.to_string() } else { "%20".to_owned() }
}
