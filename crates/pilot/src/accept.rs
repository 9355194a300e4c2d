//! Accepting connections so that nobody can exhaust the pilot: as many as there are descriptors for, less a reserve for files, and none
//! that says nothing.
//!
//! A connection over the limit waits until another ends. One that has not sent a byte within [`FIRST_BYTE`], or none for [`IDLE`], is
//! ended. An error of accepting is waited out: trying again at once would take a whole core.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Time for the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// Longest silence. Servers ask their HTTP/2 clients for a sign of life more often than that.
const IDLE: Duration = Duration::from_secs(75);

/// How long is waited after accepting failed.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Descriptors that connections leave to files and to what the pilot asks of others.
const RESERVE: u64 = 48;

/// How many connections there may be: a share of the descriptors that this process may have.
#[must_use]
pub(crate) fn share(numerator: u64, denominator: u64) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20).min(1 << 20);
    let usable = limit.saturating_sub(RESERVE).max(8) * numerator / denominator;
    usize::try_from(usable).unwrap_or(usize::MAX).max(4)
}

/// A socket that accepts so many connections at most at a time.
pub(crate) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    name: &'static str,
    /// Whether it is known that accepting fails.
    fails: bool,
}

impl Bounded {
    /// `name` is what the socket is for, in warnings.
    pub(crate) fn new(listener: TcpListener, most: usize, name: &'static str) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), name, fails: false }
    }

    async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.fails = false;
                    let _ = stream.set_nodelay(true);
                    let silence = Box::pin(tokio::time::sleep(FIRST_BYTE));
                    return (Connection { stream, silence, _place: place }, peer);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.fails, true) {
                        tracing::warn!("cannot accept connections for {}: {error}; trying again", self.name);
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    /// The connections as a stream.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut this = self;
        tokio::spawn(async move {
            loop {
                let (connection, _) = this.next().await;
                if sender.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver)
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is silent for too long.
pub(crate) struct Connection {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.silence.as_mut().reset(Instant::now() + IDLE);
                Poll::Ready(read)
            }
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
