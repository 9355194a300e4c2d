//! How connected sockets are set up.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Prepares a connection to `peer`: what is written leaves at once. On the loopback interface, where most of a
/// sidecar's connections are, nothing is ever lost or congested; the simplest congestion control, which any process may
/// choose, then saves what others (BBR's model and pacing) would compute for every segment.
pub(crate) fn prepare(stream: &TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    if peer.ip().is_loopback() {
        let _ = SockRef::from(stream).set_tcp_congestion(b"reno");
    }
}
