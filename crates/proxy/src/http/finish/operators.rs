//! The operators that say more of a request than its response: paths, bytes, times, endpoints. Source: Envoy, "Access logging".

use std::net::SocketAddr;
use std::time::Duration;

use serin_http1::{Codec, HeaderBlock};
use serin_resources::substitution::FormatContext as _;
use serin_traffic::grpc::GrpcStatus;

use super::StreamInfo;
use crate::times::{masked, start_time};

impl StreamInfo {
    /// The value of an operator of this file; `None` for others, and for what is not known.
    pub(super) fn operator(&self, name: &str, argument: Option<&str>) -> Option<String> {
        let (down, up) = (self.downstream_wire, self.upstream_wire);
        let number = |n: u64| Some(n.to_string());
        match name {
            "ACCESS_LOG_TYPE" => Some(self.moment.get().1.to_owned()),
            "GRPC_STATUS_NUMBER" => {
                self.response_header("grpc-status").or_else(|| self.response_trailer("grpc-status"))
            }
            "GRPC_STATUS" => grpc_status(
                &self.response_header("grpc-status").or_else(|| self.response_trailer("grpc-status"))?,
                argument,
            ),
            "UPSTREAM_PROTOCOL" => self.upstream_protocol.map(|codec| match codec {
                Codec::Http1 => "HTTP/1.1".to_owned(),
                Codec::Http2 => "HTTP/2".to_owned(),
            }),
            "CUSTOM_FLAGS" => Some(String::new()),
            "UPSTREAM_CONNECTION_ID" => self.upstream.is_none().then(|| "0".to_owned()),
            "STREAM_ID" => self.request_header("x-request-id"),
            "TRACE_ID" => self.span.as_ref().map(|span| span.trace_id()),
            "SPAN_ID" => self.span.as_ref().map(|span| span.span_id()),
            "COMMON_DURATION" => self.between(argument?),
            "REQUEST_HEADERS_BYTES" => number(self.request.as_ref().map_or(0, |head| {
                let pseudo = [":method".len() + head.method().len(), ":path".len() + head.target().len()];
                let scheme = ":scheme".len() + head.scheme.as_str().len();
                // `host` is `:authority` there.
                let authority = if head.fields.contains("host") { ":authority".len() - "host".len() } else { 0 };
                (bytes_of(&head.fields) + pseudo.iter().sum::<usize>() + scheme + authority) as u64 + self.length_bytes
            })),
            "RESPONSE_HEADERS_BYTES" => number(
                self.response
                    .as_ref()
                    .map_or(0, |head| (bytes_of(&head.fields) + ":status".len() + 3) as u64 + self.framing_bytes),
            ),
            "RESPONSE_TRAILERS_BYTES" => number(self.trailers.as_ref().map_or(0, |t| bytes_of(t) as u64)),
            "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => number(0),
            "DOWNSTREAM_WIRE_BYTES_RECEIVED" => number(down.received),
            "DOWNSTREAM_WIRE_BYTES_SENT" => number(down.sent),
            "DOWNSTREAM_HEADER_BYTES_RECEIVED" | "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => {
                number(down.received_head)
            }
            "DOWNSTREAM_HEADER_BYTES_SENT" | "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => number(down.sent_head),
            "UPSTREAM_WIRE_BYTES_RECEIVED" => number(up.received),
            "UPSTREAM_WIRE_BYTES_SENT" => number(up.sent),
            "UPSTREAM_HEADER_BYTES_RECEIVED" | "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED" => {
                number(up.received_head)
            }
            "UPSTREAM_HEADER_BYTES_SENT" | "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT" => number(up.sent_head),
            "UPSTREAM_HOST_NAME" => self.names(self.attempted.last().into_iter(), false),
            "UPSTREAM_HOST_NAME_WITHOUT_PORT" => self.names(self.attempted.last().into_iter(), true),
            "UPSTREAM_HOST_NAMES_ATTEMPTED" => self.names(self.attempted.iter(), false),
            "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => self.names(self.attempted.iter(), true),
            "UPSTREAM_HOSTS_ATTEMPTED" => self.addresses(|address| address.to_string()),
            "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => self.addresses(|address| address.ip().to_string()),
            "UPSTREAM_LOCAL_ADDRESS" => self.upstream_local.map(|a| a.to_string()),
            "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => masked(self.upstream_local?.ip(), argument),
            "UPSTREAM_LOCAL_PORT" => self.upstream_local.map(|a| a.port().to_string()),
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => masked(self.upstream?.ip(), argument),
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => masked(self.remote().ip(), argument),
            "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => masked(self.context.peer.ip(), argument),
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
                masked(self.context.local?.ip(), argument)
            }
            "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => self.context.local.map(|a| a.to_string()),
            "DOWNSTREAM_DIRECT_LOCAL_PORT" => self.context.local.map(|a| a.port().to_string()),
            "EMIT_TIME" => start_time(jiff::Timestamp::now(), argument),
            _ => None,
        }
    }

    /// A time between two points, if both were reached in that order.
    fn between(&self, argument: &str) -> Option<String> {
        let mut parts = argument.split(':');
        let (start, end) = (self.point(parts.next()?)?, self.point(parts.next()?)?);
        let time = end.checked_sub(start)?;
        Some(match parts.next() {
            Some("us") => time.as_micros().to_string(),
            Some("ns") => time.as_nanos().to_string(),
            _ => time.as_millis().to_string(),
        })
    }

    /// The time from the beginning until a point of a request's life.
    fn point(&self, name: &str) -> Option<Duration> {
        match name {
            "DS_RX_BEG" => Some(Duration::ZERO),
            "DS_RX_END" => self.request_took,
            "US_TX_BEG" | "US_TX_END" => self.upstream.and(self.request_took),
            "US_RX_BEG" | "US_RX_BODY_BEG" => self.upstream.and(self.first_byte),
            "DS_TX_BEG" => self.first_byte,
            "US_RX_END" => self.upstream.and(self.took),
            "DS_TX_END" => self.took,
            _ => None,
        }
    }

    /// Names of endpoints, or their addresses where they have none.
    fn names<'a>(&self, choices: impl Iterator<Item = &'a (usize, SocketAddr)>, without_port: bool) -> Option<String> {
        let members = self.cluster.as_ref().map(|cluster| cluster.members.as_slice()).unwrap_or_default();
        let name = |(choice, address): &(usize, SocketAddr)| {
            let given = members.get(*choice).map(|m| m.endpoint.hostname.clone()).filter(|name| !name.is_empty());
            let name = given.unwrap_or_else(|| address.to_string());
            match name.rsplit_once(':') {
                Some((host, port)) if without_port && port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
                _ => name,
            }
        };
        joined(choices.map(name))
    }

    fn addresses(&self, text: impl Fn(&SocketAddr) -> String) -> Option<String> {
        joined(self.attempted.iter().map(|(_, address)| text(address)))
    }
}

/// What there is, each once.
fn joined(texts: impl Iterator<Item = String>) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    (!all.is_empty()).then(|| all.join(","))
}

/// Names and values without what stands between them.
fn bytes_of(fields: &HeaderBlock) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The status of a call in words, or as the number that it is where it has none.
fn grpc_status(value: &str, form: Option<&str>) -> Option<String> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let code: u32 = value.parse().ok()?;
    let name = NAMES.get(code as usize).filter(|_| form != Some("NUMBER"));
    Some(match (name, form) {
        (None, _) => GrpcStatus::new(code).code().to_string(),
        (Some(&"OK"), _) => "OK".to_owned(),
        (Some(name), Some("SNAKE_STRING")) => {
            let mut snake = String::new();
            for (at, c) in name.char_indices() {
                if at > 0 && c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_uppercase());
            }
            if snake == "CANCELED" { "CANCELLED".to_owned() } else { snake }
        }
        (Some(name), _) => (*name).to_owned(),
    })
}
