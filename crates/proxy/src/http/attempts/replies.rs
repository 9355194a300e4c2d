//! The local replies to requests whose attempts came to nothing.

use serin_traffic::grpc::GrpcStatus;
use serin_traffic::outcome::Outcome;
use serin_traffic::response_flag::ResponseFlag;

use super::super::local_reply::LocalReply;
use super::super::upload::Side;
use crate::metric;
use crate::runtime::ClusterRuntime;

/// The local reply after a last attempt that failed like this.
pub(in crate::http) fn failed(outcome: Outcome, retried: bool, cluster: &ClusterRuntime, worker: usize) -> LocalReply {
    if outcome == Outcome::Overflow {
        cluster.state.stats.add(worker, metric::cluster::RQ_PENDING_OVERFLOW, 1);
    }
    let reply = LocalReply::new(outcome.status(), outcome.reason(retried), outcome.flag());
    let mut reply = reply.because(outcome.details());
    if outcome == Outcome::Overflow {
        reply.head.fields.append(b"x-envoy-overloaded", b"true");
    }
    reply
}

/// The local reply when there is no endpoint; where a policy is the reason, it is named.
pub(in crate::http) fn nobody(cluster: &ClusterRuntime, worker: usize) -> LocalReply {
    let Some(policy) = &cluster.config.refused else {
        let reply = LocalReply::new(503, "no healthy upstream", ResponseFlag::NoHealthyUpstream);
        return reply.because("no_healthy_upstream");
    };
    cluster.state.stats.add(worker, metric::cluster::RQ_REFUSED, 1);
    let details = format!("refused_by_policy{{{policy}}}");
    let name = &cluster.config.name;
    // The name of a cluster that stands for a refusal alone says nothing but why.
    let text = match name.starts_with("refused|") {
        true => format!("serin: requests are refused: {policy}"),
        false => format!("serin: requests to {name} are refused: {policy}"),
    };
    LocalReply::new(503, text, ResponseFlag::NoHealthyUpstream).because(details)
}

/// The local reply when the time for the whole stream is up (Envoy: `max_stream_duration`).
pub(in crate::http) fn ended() -> LocalReply {
    LocalReply {
        grpc: Some(GrpcStatus::DEADLINE_EXCEEDED),
        ..LocalReply::new(504, "downstream duration timeout", ResponseFlag::None).because("max_duration_timeout")
    }
}

/// The local reply to a request whose trailers are more than they may be.
pub(in crate::http) fn too_large(details: &'static str) -> LocalReply {
    let reply = LocalReply::new(431, "Request Header Fields Too Large", ResponseFlag::DownstreamProtocolError);
    LocalReply { close: true, ..reply.because(details) }
}

/// The local reply to a request whose trailers have a name that is refused.
pub(in crate::http) fn bad_trailer() -> LocalReply {
    metric::count_codec(serin_http1::Version::Http11, metric::codec::UNDERSCORES_REJECTED, 1);
    let reply = LocalReply::new(400, "Bad Request", ResponseFlag::DownstreamProtocolError);
    LocalReply { close: true, ..reply.because("http1.unexpected_underscore") }
}

pub(in crate::http) fn bad_request() -> LocalReply {
    let reply = LocalReply::new(400, "Bad Request", ResponseFlag::DownstreamProtocolError).because("http1.codec_error");
    LocalReply { close: true, ..reply }
}

/// The local reply when not all of the request came in time (Envoy: `request_timeout`).
pub(in crate::http) fn request_late() -> LocalReply {
    let reply = LocalReply::new(408, "request timeout", ResponseFlag::None).because("request_overall_timeout");
    LocalReply { close: true, ..reply }
}

/// The local reply when one side was silent for too long (Envoy: stream idle timeout).
pub(in crate::http) fn stalled(side: Side) -> LocalReply {
    let status = if side == Side::Client { 408 } else { 504 };
    LocalReply {
        close: side == Side::Client,
        ..LocalReply::new(status, "stream timeout", ResponseFlag::StreamIdleTimeout).because("stream_idle_timeout")
    }
}
