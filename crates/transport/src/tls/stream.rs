//! An established TLS connection as a stream of bytes.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};
use rustls::Connection;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::TlsInfo;
use crate::peer::{self, PeerState};

/// A socket as rustls reads and writes it: without waiting.
pub(super) struct SocketIo<'a>(pub(super) &'a TcpStream);

impl Read for SocketIo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for SocketIo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection with its session.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) socket: TcpStream,
    pub(crate) info: Arc<TlsInfo>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Connection,
    /// Bytes that were encrypted and are not said to be written yet.
    unsaid: usize,
    /// True when the peer was told that no more comes.
    said_end: bool,
}

impl Tls {
    /// Our address on the connection.
    pub(crate) fn own_address(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn new(socket: TcpStream, session: Connection, info: TlsInfo) -> Self {
        Self { socket, info: Arc::new(info), state: Mutex::new(State { session, unsaid: 0, said_end: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of a record leaves a session that fails at its next record.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same session on a socket of another runtime.
    pub(crate) fn into_current_runtime(self) -> io::Result<Self> {
        let socket = TcpStream::from_std(self.socket.into_std()?)?;
        Ok(Self { socket, ..self })
    }

    /// Passes what has been decrypted, and if there is nothing, what the socket has, to `take`; it returns how many bytes it took.
    /// 0 is the end.
    fn try_take(&self, mut take: impl FnMut(&[u8]) -> usize) -> io::Result<usize> {
        let session = &mut self.state().session;
        loop {
            let mut reader = session.reader();
            match reader.fill_buf() {
                Ok(chunk) => {
                    let taken = take(chunk);
                    reader.consume(taken);
                    return Ok(taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            session.read_tls(&mut SocketIo(&self.socket))?;
            if let Err(error) = session.process_new_packets() {
                let _ = session.write_tls(&mut SocketIo(&self.socket));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_take(|chunk| {
            let taken = chunk.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..taken), chunk.get(..taken)) {
                to.copy_from_slice(from);
            }
            taken
        })
    }

    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        self.try_take(|chunk| {
            let taken = chunk.len().min(room);
            buffer.put_slice(chunk.get(..taken).unwrap_or_default());
            taken
        })
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let room = buffer.remaining();
            let taken = self.try_take(|chunk| {
                let taken = chunk.len().min(room);
                buffer.put_slice(chunk.get(..taken).unwrap_or_default());
                taken
            });
            match taken {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Ready when something is decrypted, or the socket has something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_some =
            !matches!(self.state().session.reader().fill_buf(), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        if has_some { Poll::Ready(Ok(())) } else { self.socket.poll_read_ready(cx) }
    }

    fn poll_drain(&self, session: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while session.wants_write() {
            match session.write_tls(&mut SocketIo(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts bytes, and says that they are written when they have left: whoever waits for that must come back with the same bytes
    /// in front. So nobody has to flush who would not have to with TCP.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let state = &mut *self.state();
        if state.unsaid == 0 {
            ready!(self.poll_drain(&mut state.session, cx))?;
            state.unsaid = state.session.writer().write_vectored(slices)?;
        }
        ready!(self.poll_drain(&mut state.session, cx))?;
        Poll::Ready(Ok(std::mem::take(&mut state.unsaid)))
    }

    /// Writes past the writing half, without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let state = &mut *self.state();
        if state.unsaid > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let session = &mut state.session;
        while session.wants_write() {
            session.write_tls(&mut SocketIo(&self.socket))?;
        }
        let taken = session.writer().write(bytes)?;
        match session.write_tls(&mut SocketIo(&self.socket)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(&mut self.state().session, cx)
    }

    /// Says that no more comes (RFC 8446 §6.1), and ends the direction.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state();
        state.say_end();
        ready!(self.poll_drain(&mut state.session, cx))?;
        match socket2::SockRef::from(&self.socket).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    pub(crate) async fn peer_state(&self) -> PeerState {
        peer::state(&self.socket).await
    }
}

impl State {
    fn say_end(&mut self) {
        if !std::mem::replace(&mut self.said_end, true) {
            self.session.send_close_notify();
        }
    }
}

/// The direction to the peer. Dropping it tells the peer that no more comes.
#[derive(Debug)]
pub(crate) struct TlsWrite(pub(crate) Arc<Tls>);

impl Drop for TlsWrite {
    fn drop(&mut self) {
        let Tls { socket, .. } = &*self.0;
        let state = &mut *self.0.state();
        state.say_end();
        let _ = state.session.write_tls(&mut SocketIo(socket));
        let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
    }
}
