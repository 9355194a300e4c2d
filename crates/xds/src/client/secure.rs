//! Connections to gRPC servers over TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serin_transport::ByteStream;
use serin_transport::tls::ClientTls;
use tonic::codegen::{Service, http::Uri};

/// The time for an address, a connection and a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a server is spoken to over TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificates and rules.
    pub tls: ClientTls,
    /// The name that the server is told; `None` tells none.
    pub name: Option<String>,
}

/// Yields the identity as it is now, for each connection anew; `None` while certificates are not there, and no connection is made.
pub type Secure = Arc<dyn Fn() -> Option<Identity> + Send + Sync>;

/// Makes connections over TLS, and no other ones.
#[derive(Clone)]
pub struct Connector(pub Secure);

impl Service<Uri> for Connector {
    type Response = TokioIo<ByteStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let identity = self.0();
        Box::pin(async move {
            let identity = identity.ok_or_else(|| io::Error::other("the certificates are not there yet"))?;
            let connected = tokio::time::timeout(PATIENCE, connect(&uri, &identity)).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        })
    }
}

async fn connect(uri: &Uri, identity: &Identity) -> io::Result<ByteStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut last = io::Error::other(format!("'{uri}' has no address"));
    for address in tokio::net::lookup_host((host, uri.port_u16().unwrap_or(443))).await? {
        match ByteStream::connect(address).await {
            // A server that refuses this client once refuses it at its other addresses, too.
            Ok(stream) => {
                let secured = stream.connect_tls(&identity.tls, identity.name.as_deref()).await;
                return secured.map_err(|error| io::Error::other(format!("TLS: {error}")));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
