//! The options of sockets: what is written leaves at once. On the loopback interface, where most of a sidecar's
//! connections are, nothing is ever lost or congested; the simplest congestion control, which any process may choose,
//! then saves what others (BBR's model and pacing) would compute for every segment.
//!
//! A socket that refuses an option works without it, so errors are ignored. Options that decide whether a socket can be
//! bound are not here but in `listener`.

use std::net::SocketAddr;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;

const SIMPLEST: &[u8] = b"reno";

/// Prepares a listener at `address`; what is accepted inherits it, so that a new connection takes no call for it.
pub(crate) fn prepare_listener(socket: &Socket, address: SocketAddr) {
    let _ = socket.set_tcp_nodelay(true);
    if address.ip().is_loopback() {
        let _ = socket.set_tcp_congestion(SIMPLEST);
    }
}

/// Prepares a connection that was accepted from `peer` by a listener at `local`.
pub(crate) fn prepare_accepted(stream: &TcpStream, peer: SocketAddr, local: SocketAddr) {
    if peer.ip().is_loopback() && !local.ip().is_loopback() {
        let _ = SockRef::from(stream).set_tcp_congestion(SIMPLEST);
    }
}

/// Prepares a connection that was made to `peer`.
pub(crate) fn prepare_connected(stream: &TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    if peer.ip().is_loopback() {
        let _ = SockRef::from(stream).set_tcp_congestion(SIMPLEST);
    }
}
