//! Connections to endpoints: making them, keeping them, choosing whom to connect to.

mod connect;
mod dns;
mod pool;

pub(crate) use connect::{
    ConnectError, Gauge, H1Connection, H2Connection, H2Stream, Place, Upstream, connect, multiplexed, open, raw,
};
pub(crate) use dns::resolve;
pub(crate) use pool::{HostPool, Pools};
