//! Lets axum serve on a [`Listener`], for admin interfaces and the demo's applications.
//!
//! As axum's own listeners do, it waits out errors: what a peer did is passed over at once, and when there are no
//! descriptors left it tries again after a second. It limits nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::listener::Listener;
use crate::stream::ByteStream;

/// The time that is waited after an error that no peer has caused.
const AFTER_ERROR: Duration = Duration::from_secs(1);

impl axum::serve::Listener for Listener {
    type Io = ByteStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    tracing::error!("accept error: {error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

/// Returns true when the connection broke before it was accepted.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
