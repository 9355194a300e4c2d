//! Sockets that accept connections.
//!
//! A [`BoundListener`] holds an address and queues connections but belongs to no runtime, so it can be sent to the thread
//! that will accept; there it becomes a [`Listener`]. Neither decides who is let in, limits the number of connections, or
//! waits after an error: callers differ in this.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::options;
use crate::stream::ByteStream;

/// Connections that may wait to be accepted, for a socket that is one of several at its address.
const SHARED_BACKLOG: i32 = 4096;

/// A listening socket that no runtime looks after.
#[derive(Debug)]
pub struct BoundListener(Socket);

impl BoundListener {
    /// Binds an address, also when connections of an earlier process at it have not run out yet. Port 0 is any free one.
    /// As many as `backlog` connections may wait to be accepted.
    ///
    /// # Errors
    /// When another process has the address, or it is not one of this host.
    pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let socket = open(address)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Self(socket))
    }

    /// Binds an address that several sockets of this user share (`SO_REUSEPORT`), so that each worker has its own and the
    /// kernel spreads connections over them. What is accepted is prepared for requests: small writes leave at once.
    ///
    /// # Errors
    /// When somebody else has the address, or it is not one of this host.
    pub fn shared(address: SocketAddr) -> io::Result<Self> {
        let socket = open(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        options::prepare_listener(&socket, address);
        socket.listen(SHARED_BACKLOG)?;
        Ok(Self(socket))
    }

    /// Returns the address, with the port that the kernel chose for port 0.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Joins the runtime of the caller, in which it can accept.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn into_current_runtime(self) -> io::Result<Listener> {
        TcpListener::from_std(self.0.into()).map(|listener| Listener(Acceptor::Tcp(listener)))
    }
}

/// A socket of `address`'s family with what every listener has.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A listening socket of a runtime.
#[derive(Debug)]
pub struct Listener(Acceptor);

/// The socket that accepts connections.
#[derive(Debug)]
enum Acceptor {
    Tcp(TcpListener),
}

impl Listener {
    /// Binds an address as [`BoundListener::bind`] does, in the runtime of the caller.
    ///
    /// # Errors
    /// When another process has the address, or it is not one of this host.
    pub fn bind(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        BoundListener::bind(address, backlog)?.into_current_runtime()
    }

    /// Waits for a connection. Returns it with the address of its peer.
    ///
    /// # Errors
    /// When the peer is gone already, or there is no descriptor left.
    #[inline]
    pub async fn accept(&self) -> io::Result<(ByteStream, SocketAddr)> {
        match &self.0 {
            Acceptor::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((ByteStream::from_tcp(stream), peer))
            }
        }
    }

    /// Returns the address, with the port that the kernel chose for port 0.
    ///
    /// # Errors
    /// When the kernel does not know it.
    #[inline]
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Acceptor::Tcp(listener) => listener.local_addr(),
        }
    }
}

/// Returns an address of IPv4 that stands in one of IPv6 (`::ffff:1.2.3.4`) by itself, and every other as it is.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn one_process_has_an_address_unless_it_is_shared() {
        let alone = BoundListener::bind(ANY, 1).unwrap();
        let address = alone.local_addr().unwrap();
        assert_eq!(BoundListener::bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(BoundListener::shared(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let first = BoundListener::shared(ANY).unwrap();
        let second = BoundListener::shared(first.local_addr().unwrap()).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }

    #[tokio::test]
    async fn connections_wait_for_the_runtime_that_accepts() {
        let bound = BoundListener::shared(ANY).unwrap();
        let address = bound.local_addr().unwrap();
        let client = ByteStream::connect(address).await.unwrap();
        let listener = bound.into_current_runtime().unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(accepted.peer_addr().unwrap(), peer);
        assert_eq!(accepted.local_addr().unwrap(), address);
    }
}
