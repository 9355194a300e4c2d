//! Finds out how far the other end of a connection has closed it, without reading or writing a byte.
//!
//! It reports only what the kernel has told the runtime, which hears of it when no task is ready. A peer that vanished without a word counts as open, and a peer that closed
//! its socket looks like one that closed its sending half until something is written to it.

use std::pin::pin;
use std::task::Poll;

use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// The state of the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// It may send more. Bytes that it has sent may wait to be read.
    Open,
    /// It sends no more, but may still receive.
    SendsNoMore,
    /// It neither sends nor receives.
    Gone,
}

impl PeerState {
    fn new(ready: Ready) -> Self {
        if ready.is_write_closed() {
            Self::Gone
        } else if ready.is_read_closed() {
            Self::SendsNoMore
        } else {
            Self::Open
        }
    }
}

/// Looks at a socket's readiness as the runtime knows it. It never waits: it is a future because tokio has no other way to ask.
pub(crate) async fn state(socket: &TcpStream) -> PeerState {
    let mut ready = pin!(socket.ready(Interest::READABLE | Interest::WRITABLE));
    std::future::poll_fn(|cx| match ready.as_mut().poll(cx) {
        Poll::Ready(Ok(ready)) => Poll::Ready(PeerState::new(ready)),
        Poll::Ready(Err(_)) => Poll::Ready(PeerState::Gone),
        Poll::Pending => Poll::Ready(PeerState::Open),
    })
    .await
}
