//! One connection as a stream of bytes in both directions.
//!
//! Everything is passed on to what carries the stream; nothing is buffered here. The methods are inlined because callers
//! are in other crates, and a build without link-time optimisation would otherwise make a call of each.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::halves::{ReadHalf, WriteHalf};
use crate::options;
use crate::tls::{self, ClientTls, HandshakeError, ServerTls, Sniffed, Tls, TlsInfo};

/// A connection: bytes in both directions, in order, until each side ends its own.
///
/// Shutting it down ends only the direction towards the peer. Dropping it closes both.
#[derive(Debug)]
pub struct ByteStream(Carrier);

/// The carrier of a stream.
#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

impl ByteStream {
    /// Connects to an address. The time that this may take is the caller's to limit.
    ///
    /// # Errors
    /// When there is no descriptor left, or the address refuses or cannot be reached.
    #[inline]
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.map(Self::from_tcp)
    }

    #[inline]
    pub(crate) fn from_tcp(stream: TcpStream) -> Self {
        Self(Carrier::Tcp(stream))
    }

    fn from_tls(tls: Tls) -> Self {
        Self(Carrier::Tls(Box::new(tls)))
    }

    /// Looks at the first bytes of a connection that was accepted: they stay there. The time that this may take is the caller's to
    /// limit.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn sniff(&self) -> io::Result<Sniffed> {
        match &self.0 {
            Carrier::Tcp(stream) => tls::sniff(stream).await,
            Carrier::Tls(_) => Ok(Sniffed::Other),
        }
    }

    /// Does the handshake of a server. The time that this may take is the caller's to limit.
    ///
    /// # Errors
    /// When it fails; the peer has been told why.
    pub async fn accept_tls(self, server: &ServerTls) -> Result<Self, HandshakeError> {
        match self.0 {
            Carrier::Tcp(stream) => tls::accept(stream, server).await.map(Self::from_tls),
            Carrier::Tls(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    /// Does the handshake of a client, which tells the server the name that it wants, if there is one. The time that this may take is the
    /// caller's to limit.
    ///
    /// # Errors
    /// When it fails; the peer has been told why.
    pub async fn connect_tls(self, client: &ClientTls, name: Option<&str>) -> Result<Self, HandshakeError> {
        match self.0 {
            Carrier::Tcp(stream) => tls::connect(stream, client, name).await.map(Self::from_tls),
            Carrier::Tls(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    /// Returns what its handshake found out, when it is one of TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsInfo>> {
        match &self.0 {
            Carrier::Tcp(_) => None,
            Carrier::Tls(tls) => Some(&tls.info),
        }
    }

    /// Prepares a connection that was made to `peer`: small writes leave at once.
    #[inline]
    pub fn prepare_connected(&self, peer: SocketAddr) {
        match &self.0 {
            Carrier::Tcp(stream) => options::prepare_connected(stream, peer),
            Carrier::Tls(tls) => options::prepare_connected(&tls.socket, peer),
        }
    }

    /// Prepares a connection that came from `peer` to a [shared listener](crate::BoundListener::shared) at `local`. Most
    /// is inherited from the listener, so this rarely costs a system call.
    #[inline]
    pub fn prepare_accepted(&self, peer: SocketAddr, local: SocketAddr) {
        match &self.0 {
            Carrier::Tcp(stream) => options::prepare_accepted(stream, peer, local),
            Carrier::Tls(tls) => options::prepare_accepted(&tls.socket, peer, local),
        }
    }

    /// Chooses whether small writes leave at once (true) or may wait to be joined with others.
    ///
    /// # Errors
    /// When the connection is broken already.
    #[inline]
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.0 {
            Carrier::Tcp(stream) => stream.set_nodelay(nodelay),
            Carrier::Tls(tls) => tls.socket.set_nodelay(nodelay),
        }
    }

    /// Returns the address of this end.
    ///
    /// # Errors
    /// When the kernel does not know it.
    #[inline]
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Carrier::Tcp(stream) => stream.local_addr(),
            Carrier::Tls(tls) => tls.socket.local_addr(),
        }
    }

    /// Returns the address of the other end.
    ///
    /// # Errors
    /// When the connection is broken already.
    #[inline]
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Carrier::Tcp(stream) => stream.peer_addr(),
            Carrier::Tls(tls) => tls.socket.peer_addr(),
        }
    }

    /// Waits until a read would find something: bytes, the end, or an error. A caller that waits so needs no buffer
    /// meanwhile. A read may still find nothing.
    ///
    /// # Errors
    /// When the runtime ends.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Carrier::Tcp(stream) => stream.poll_read_ready(cx),
            Carrier::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Divides the stream, so that its directions can be used by two tasks or futures. Costs one allocation.
    #[inline]
    #[must_use]
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {
            Carrier::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::from_tcp(read), WriteHalf::from_tcp(write))
            }
            Carrier::Tls(tls) => {
                let tls = Arc::new(*tls);
                (ReadHalf::from_tls(tls.clone()), WriteHalf::from_tls(tls))
            }
        }
    }

    /// Leaves the runtime that looked after the stream, and joins that of the caller.
    ///
    /// # Errors
    /// When one of the runtimes cannot change what it watches.
    pub fn into_current_runtime(self) -> io::Result<Self> {
        match self.0 {
            Carrier::Tcp(stream) => TcpStream::from_std(stream.into_std()?).map(Self::from_tcp),
            Carrier::Tls(tls) => tls.into_current_runtime().map(Self::from_tls),
        }
    }
}

impl AsyncRead for ByteStream {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Carrier::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ByteStream {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Carrier::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Carrier::Tls(tls) => tls.poll_write(cx, slices),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            Carrier::Tls(_) => true,
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(tls) => tls.poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
