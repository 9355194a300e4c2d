//! Local replies: responses that the proxy gives itself.

use std::borrow::Cow;
use std::fmt::Write as _;

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
    pub(crate) details: Option<Cow<'static, str>>,
    /// The status that a gRPC client gets instead of what the HTTP status stands for.
    pub(crate) grpc: Option<GrpcStatus>,
    /// True when its body is a line of JSON.
    pub(crate) is_json: bool,
}

/// The content type of a body that has no other.
pub(super) const PLAIN: &[u8] = b"text/plain";

impl LocalReply {
    pub(crate) fn new(status: u16, body: impl AsRef<[u8]>, flag: ResponseFlag) -> Self {
        let body = body.as_ref().to_vec();
        let mut head = ResponseHead::new(status);
        if !body.is_empty() {
            head.fields.append(b"content-type", PLAIN);
        }
        Self { head: Box::new(head), body, flag, details: None, close: status == 400, grpc: None, is_json: false }
    }

    /// The same, with the reason that access logs say (`%RESPONSE_CODE_DETAILS%`).
    #[must_use]
    pub(crate) fn because(self, details: impl Into<Cow<'static, str>>) -> Self {
        Self { details: Some(details.into()), ..self }
    }

    /// A redirect to that place.
    pub(crate) fn redirect(status: u16, location: &[u8]) -> Self {
        let mut reply = Self::empty(status, ResponseFlag::None).because("direct_response");
        reply.head.fields.append(b"location", location);
        reply
    }

    /// A status without a body.
    pub(crate) fn empty(status: u16, flag: ResponseFlag) -> Self {
        Self::new(status, "", flag)
    }

    /// Takes the form that its client understands: a gRPC client gets whatever it is as a gRPC status in a trailers-only response
    /// (gRPC over HTTP/2 protocol page); a reply without a body has no content type (Envoy: `Utility::prepareLocalReply`).
    pub(crate) fn for_request(mut self, head: &RequestHead) -> Self {
        if self.body.is_empty() && !self.head.fields.contains("grpc-status") {
            self.head.fields.remove("content-type");
        }
        if !is_grpc(head) || self.head.fields.contains("grpc-status") {
            return self;
        }
        let status = self.grpc.unwrap_or_else(|| GrpcStatus::from_http(self.head.status));
        let mut reply = self.into_grpc(status);
        if head.method() == b"HEAD" {
            reply.head.fields.remove("grpc-message");
        }
        reply
    }

    /// The response as a gRPC status.
    pub(crate) fn into_grpc(self, status: GrpcStatus) -> Self {
        let Self { mut head, body, .. } = self;
        head.status = 200;
        head.fields.set("content-type", b"application/grpc");
        head.fields.set("grpc-status", status.code().to_string().as_bytes());
        let text = if self.is_json { body.strip_suffix(b"\n").unwrap_or(&body) } else { &body };
        if !text.is_empty() {
            head.fields.set("grpc-message", percent_encoded(text).as_bytes());
        }
        Self { head, body: Vec::new(), ..self }
    }
}

/// `Percent-Encoded` of gRPC over HTTP/2.
fn percent_encoded(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
