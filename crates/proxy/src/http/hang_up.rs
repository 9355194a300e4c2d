//! Finds out whether an HTTP/1 client that sends no more is still connected.
//!
//! A client may close its sending half and wait for the response (RFC 9112 §9.6 lets it). On the wire that looks like a client
//! that closed its socket; only what is written tells them apart: a closed socket answers with a reset. Envoy takes every
//! such end for a close. Here an interim response (RFC 9110 §15.2.1, which every HTTP/1.1 client must be able to skip) asks.

use std::time::Duration;

use serin_transport::{PeerState, ReadHalf};

/// The interval at which the socket is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The number of looks after which a client that closed its half, and is still there, is asked again.
const ASK_AGAIN: u32 = 20;
/// The number of looks for which a client that closed its half and cannot be asked may take a response that does not go on.
const GRACE: u32 = 20;
/// The interim response that asks.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Waits until the client is gone. `interim` says that it may be asked: it speaks HTTP/1.1 and its response has not begun.
pub(super) async fn hung_up(socket: &ReadHalf, interim: bool) {
    let mut watch = Watch::new(interim);
    loop {
        tokio::time::sleep(LOOK).await;
        if watch.is_gone(socket).await {
            return;
        }
    }
}

/// The state of a client from one look to the next.
pub(super) struct Watch {
    /// Looks since it closed its half.
    closed: u32,
    interim: bool,
}

impl Watch {
    pub(super) fn new(interim: bool) -> Self {
        Self { closed: 0, interim }
    }

    /// Looks at the socket, and asks.
    pub(super) async fn is_gone(&mut self, socket: &ReadHalf) -> bool {
        match socket.peer_state().await {
            PeerState::Gone => return true,
            PeerState::Open => return false,
            PeerState::SendsNoMore => {}
        }
        let asks = self.interim && self.closed.is_multiple_of(ASK_AGAIN);
        self.closed += 1;
        if asks && socket.try_write(INTERIM).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock) {
            return true;
        }
        !self.interim && self.closed > GRACE
    }
}
