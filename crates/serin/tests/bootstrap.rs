//! The proxy alone, run from Envoy bootstraps against recording backends.
//!
//! The tests of `behaviour`, `health`, `limits`, `outliers`, `slow`, `sticky`, `tcp`, `tls` and `tracing` run with Serin's proxy, and with real Envoy when `SERIN_TEST_ENVOY` names its binary: the same
//! file, the same requests, the same outcome. The others speak of Serin only: what it refuses, what it logs, how it leaves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[path = "proxy/behaviour.rs"]
mod behaviour;
#[path = "proxy/bodies.rs"]
mod bodies;
#[path = "proxy/breakers.rs"]
mod breakers;
#[path = "proxy/control.rs"]
mod control;
#[path = "proxy/corpus.rs"]
mod corpus;
#[path = "proxy/health.rs"]
mod health;
#[path = "proxy/hostile_requests.rs"]
mod hostile_requests;
#[path = "proxy/hostile_responses.rs"]
mod hostile_responses;
#[path = "proxy/http2.rs"]
mod http2;
#[path = "proxy/leaving.rs"]
mod leaving;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/mirrors.rs"]
mod mirrors;
#[path = "proxy/outliers.rs"]
mod outliers;
#[path = "proxy/slow.rs"]
mod slow;
#[path = "proxy/sticky.rs"]
mod sticky;
#[path = "proxy/tcp.rs"]
mod tcp;
#[path = "proxy/tls.rs"]
mod tls;
#[path = "proxy/tracing.rs"]
mod tracing;

const SERIN: &str = env!("CARGO_BIN_EXE_serin");

/// A 200 answer with this body.
fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
