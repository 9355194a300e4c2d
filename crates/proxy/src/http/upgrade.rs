//! After `101 Switching Protocols`: bytes both ways until both ends are done.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::attempt::InFlight;
use crate::runtime::Permit;
use crate::upstream::H1Connection;
use crate::wire::{H1Reader, H1Writer};

/// The upstream's side of a tunnel, with the counts it holds.
pub(crate) struct Tunnel {
    pub(crate) connection: Box<H1Connection>,
    pub(crate) in_flight: InFlight,
    pub(crate) permit: Permit,
}

/// Copies until both directions have ended; what was read ahead goes first.
pub(crate) async fn run(tunnel: Tunnel, client_reader: H1Reader, client_writer: H1Writer) {
    let Tunnel { connection, in_flight, permit } = tunnel;
    let (reader, writer, open) = connection.dismantle();
    let up = copy(client_reader.buffer.to_vec(), client_reader.socket, writer.socket);
    let down = copy(reader.buffer.to_vec(), reader.socket, client_writer.socket);
    tokio::join!(up, down);
    drop((in_flight, permit, open));
}

async fn copy(first: Vec<u8>, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = first;
    loop {
        if !buffer.is_empty() && to.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
        buffer.reserve(16 * 1024);
        if !matches!(from.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            let _ = to.shutdown().await;
            return;
        }
    }
}
