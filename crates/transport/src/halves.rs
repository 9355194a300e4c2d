//! The two directions of a stream as objects of their own.
//!
//! They share the connection, which closes when both are dropped; dropping the writing half alone tells the peer that no
//! more comes. The halves deliberately cannot be joined again.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::peer::{self, PeerState};
use crate::tls::{Tls, TlsInfo, TlsWrite};

/// The direction from the peer.
#[derive(Debug)]
pub struct ReadHalf(ReadCarrier);

#[derive(Debug)]
enum ReadCarrier {
    Tcp(OwnedReadHalf),
    Tls(Arc<Tls>),
}

impl ReadHalf {
    #[inline]
    pub(crate) fn from_tcp(half: OwnedReadHalf) -> Self {
        Self(ReadCarrier::Tcp(half))
    }

    pub(crate) fn from_tls(tls: Arc<Tls>) -> Self {
        Self(ReadCarrier::Tls(tls))
    }

    /// Returns what its handshake found out, when it is one of TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsInfo>> {
        match &self.0 {
            ReadCarrier::Tcp(_) => None,
            ReadCarrier::Tls(tls) => Some(&tls.info),
        }
    }

    /// Returns our address on the connection.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ReadCarrier::Tcp(half) => half.local_addr(),
            ReadCarrier::Tls(tls) => tls.own_address(),
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
            ReadCarrier::Tcp(half) => half.as_ref().poll_read_ready(cx),
            ReadCarrier::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Reads bytes that are there already. Returns how many; 0 is the end, unless `buffer` has no room.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when nothing is there; others when the connection is broken.
    #[inline]
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            ReadCarrier::Tcp(half) => half.try_read(buffer),
            ReadCarrier::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// As [`try_read`](Self::try_read), into the free room of `buffer`.
    ///
    /// # Errors
    /// Those of [`try_read`](Self::try_read).
    #[inline]
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.0 {
            ReadCarrier::Tcp(half) => half.try_read_buf(buffer),
            ReadCarrier::Tls(tls) => tls.try_read_buf(buffer),
        }
    }

    /// Writes to the peer past the writing half, without waiting. For whoever has this half alone and knows that the
    /// other one has nothing half written. Returns how many bytes were taken.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when there is no room; others when the peer is gone.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            ReadCarrier::Tcp(half) => half.as_ref().try_write(bytes),
            ReadCarrier::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Returns how far the peer has closed the connection, as far as the runtime has heard. It does not wait.
    #[inline]
    pub async fn peer_state(&self) -> PeerState {
        match &self.0 {
            ReadCarrier::Tcp(half) => peer::state(half.as_ref()).await,
            ReadCarrier::Tls(tls) => tls.peer_state().await,
        }
    }
}

impl AsyncRead for ReadHalf {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            ReadCarrier::Tcp(half) => Pin::new(half).poll_read(cx, buffer),
            ReadCarrier::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }
}

/// The direction to the peer. Shutting it down, or dropping it, tells the peer that no more comes.
#[derive(Debug)]
pub struct WriteHalf(WriteCarrier);

#[derive(Debug)]
enum WriteCarrier {
    Tcp(OwnedWriteHalf),
    Tls(TlsWrite),
}

impl WriteHalf {
    #[inline]
    pub(crate) fn from_tcp(half: OwnedWriteHalf) -> Self {
        Self(WriteCarrier::Tcp(half))
    }

    pub(crate) fn from_tls(tls: Arc<Tls>) -> Self {
        Self(WriteCarrier::Tls(TlsWrite(tls)))
    }
}

impl AsyncWrite for WriteHalf {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            WriteCarrier::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            WriteCarrier::Tls(half) => half.0.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            WriteCarrier::Tcp(half) => Pin::new(half).poll_write_vectored(cx, slices),
            WriteCarrier::Tls(half) => half.0.poll_write(cx, slices),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            WriteCarrier::Tcp(half) => half.is_write_vectored(),
            WriteCarrier::Tls(_) => true,
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            WriteCarrier::Tcp(half) => Pin::new(half).poll_flush(cx),
            WriteCarrier::Tls(half) => half.0.poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            WriteCarrier::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            WriteCarrier::Tls(half) => half.0.poll_shutdown(cx),
        }
    }
}
