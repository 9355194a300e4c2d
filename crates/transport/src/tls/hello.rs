//! A look at the first bytes of a connection, which stay there to be read: whether they are TLS, and what the client asks for.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;

/// Bytes in which a client must say what it asks for.
const MOST: usize = 16 * 1024;

/// The pauses before another look when a client has sent a part: each is twice the one before, so that one who sends nothing more costs
/// little. A part that lies there keeps the socket readable, so nothing wakes when more comes.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(128);

/// The type of a record that begins a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// The beginning of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// A TLS client's.
    Tls(ClientHello),
    /// Anything else.
    Other,
}

/// What a TLS client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name of the server.
    pub server_name: Option<String>,
    /// The protocols above TLS that it speaks.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    pub(super) fn read(hello: &rustls::server::ClientHello<'_>) -> Self {
        Self {
            server_name: hello.server_name().map(str::to_ascii_lowercase),
            alpn: hello.alpn().map(|asked| asked.map(<[u8]>::to_vec).collect()).unwrap_or_default(),
        }
    }
}

/// Looks until it is clear what comes. The time that this may take is the caller's to limit.
pub(crate) async fn sniff(socket: &TcpStream) -> io::Result<Sniffed> {
    let mut bytes = vec![0; 2048];
    let mut acceptor = Acceptor::default();
    let (mut seen, mut pause) = (0, FIRST_PAUSE);
    loop {
        let there = socket.peek(&mut bytes).await?;
        if there == 0 || bytes.first() != Some(&HANDSHAKE) {
            return Ok(Sniffed::Other);
        }
        if there > seen {
            let mut new = bytes.get(seen..there).unwrap_or_default();
            while !new.is_empty() {
                acceptor.read_tls(&mut new)?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Ok(Sniffed::Tls(ClientHello::read(&accepted.client_hello()))),
                    Ok(None) => {}
                    Err(_) => return Ok(Sniffed::Other),
                }
            }
            (seen, pause) = (there, FIRST_PAUSE);
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if seen == bytes.len() {
            if seen >= MOST {
                return Ok(Sniffed::Other);
            }
            bytes.resize(MOST, 0);
        }
    }
}
