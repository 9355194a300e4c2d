//! The handshake of both sides.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{AlertDescription, CertificateError, ClientConnection, Connection, Error, HandshakeKind};
use tokio::net::TcpStream;

use super::certificate::Certificate;
use super::client::ClientTls;
use super::hello::ClientHello;
use super::server::ServerTls;
use super::stream::{SocketIo, Tls};
use super::verify::{Rejected, Verification};
use super::{TlsInfo, cipher_name, group_name};

/// The reason why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended or broke.
    #[error("the connection ended during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The client showed no certificate, and must.
    #[error("the client showed no certificate")]
    NoCertificate,
    /// The peer's certificate was not accepted.
    #[error("{0}")]
    Rejected(Rejected),
    /// The peer ended the handshake, for this reason.
    #[error("the peer ended the handshake: {0:?}")]
    Alert(AlertDescription),
    /// Something else is wrong with what the peer says.
    #[error("{0}")]
    Protocol(Error),
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        match &error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => Self::Alert(*alert),
            Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Rejected>() {
                Some(rejected) => Self::Rejected(rejected.clone()),
                None => Self::Protocol(error),
            },
            _ => Self::Protocol(error),
        }
    }
}

/// Accepts a client.
pub(crate) async fn accept(socket: TcpStream, server: &ServerTls) -> Result<Tls, HandshakeError> {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut SocketIo(&socket));
                return Err(error.into());
            }
        }
        read(&socket, |io| acceptor.read_tls(io)).await?;
    };
    let hello = ClientHello::read(&accepted.client_hello());
    let (config, local) = server.choose(&accepted.client_hello()).ok_or(Error::NoCertificatesPresented)?;
    let connection = accepted.into_connection(config).map_err(|(error, mut alert)| {
        let _ = alert.write_all(&mut SocketIo(&socket));
        HandshakeError::from(error)
    })?;
    let mut session = Connection::Server(connection);
    complete(&socket, &mut session).await?;
    let mut info = info(&session, hello.server_name, Some(local));
    let shown = session.peer_certificates().unwrap_or_default();
    info.overlooked = server.clients().and_then(|rules| rules.overlooked(shown, true));
    info.is_validated =
        !shown.is_empty() && info.overlooked.is_none() && server.clients().is_some_and(Verification::has_chain);
    Ok(Tls::new(socket, session, info))
}

/// Begins as a client; `name` is told to the server, if there is one.
pub(crate) async fn connect(socket: TcpStream, client: &ClientTls, name: Option<&str>) -> Result<Tls, HandshakeError> {
    let told = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let is_named = matches!(told, Some(ServerName::DnsName(_)));
    // Sessions are kept by name; without one, by address.
    let key = match told {
        Some(name) => name,
        None => ServerName::IpAddress(socket.peer_addr()?.ip().into()),
    };
    let connection = ClientConnection::new(client.config(is_named), key)?;
    let mut session = Connection::Client(connection);
    complete(&socket, &mut session).await?;
    let mut info = info(&session, name.map(str::to_owned), client.certificate().cloned());
    let shown = session.peer_certificates().unwrap_or_default();
    info.overlooked = client.servers().and_then(|rules| rules.overlooked(shown, false));
    info.is_validated = info.overlooked.is_none() && client.servers().is_some_and(Verification::has_chain);
    Ok(Tls::new(socket, session, info))
}

fn info(session: &Connection, server_name: Option<String>, local: Option<Arc<Certificate>>) -> TlsInfo {
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    TlsInfo {
        version,
        cipher: session.negotiated_cipher_suite().map(|suite| cipher_name(suite.suite())).unwrap_or_default(),
        group: session.negotiated_key_exchange_group().map(|group| group_name(group.name())).unwrap_or_default(),
        is_validated: false,
        overlooked: None,
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        server_name,
        peer: session.peer_certificates().unwrap_or_default().iter().map(Certificate::read).collect(),
        local,
        is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// Waits for bytes and reads them.
async fn read(
    socket: &TcpStream,
    mut from: impl FnMut(&mut SocketIo<'_>) -> io::Result<usize>,
) -> Result<(), HandshakeError> {
    loop {
        match from(&mut SocketIo(socket)) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|cx| socket.poll_read_ready(cx)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes all that a session has to say.
async fn write(socket: &TcpStream, session: &mut Connection) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        while session.wants_write() {
            match session.write_tls(&mut SocketIo(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(socket.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

async fn complete(socket: &TcpStream, session: &mut Connection) -> Result<(), HandshakeError> {
    loop {
        write(socket, session).await?;
        if !session.is_handshaking() {
            return Ok(());
        }
        read(socket, |io| session.read_tls(io)).await?;
        if let Err(error) = session.process_new_packets() {
            // The peer is told why.
            let _ = session.write_tls(&mut SocketIo(socket));
            return Err(error.into());
        }
    }
}
