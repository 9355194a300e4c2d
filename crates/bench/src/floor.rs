//! The floor: what a proxy costs that only reads and writes. It pairs every client with a connection to the backend and
//! copies bytes; it parses, decides and counts nothing. No proxy of this shape (two receives and two sends for a request)
//! can be cheaper on the same kernel.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll;

struct Pair {
    client: TcpStream,
    upstream: TcpStream,
    /// Bytes that the other side did not take yet.
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
}

const LISTENER: u64 = u64::MAX;

/// Serves until it is killed. A connection to the backend is used again for another client unless all must be `fresh`:
/// what was said on it may belong to the first.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr, fresh: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut idle: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let index = free.pop().unwrap_or_else(|| {
                        pairs.push(None);
                        pairs.len() - 1
                    });
                    let upstream = idle.pop().map_or_else(|| connect(upstream), Ok)?;
                    client.set_nonblocking(true)?;
                    client.set_nodelay(true)?;
                    watch(&poll, &client, index as u64 * 2)?;
                    watch(&poll, &upstream, index as u64 * 2 + 1)?;
                    pairs[index] = Some(Pair { client, upstream, to_client: Vec::new(), to_upstream: Vec::new() });
                }
                continue;
            }
            let index = (token / 2) as usize;
            let Some(Some(pair)) = pairs.get_mut(index) else { continue };
            if !step(pair, &mut buffer) {
                if let Some(pair) = pairs[index].take() {
                    epoll::delete(&poll, &pair.upstream)?;
                    let quiet = !fresh && pair.to_client.is_empty() && pair.to_upstream.is_empty();
                    idle.extend(quiet.then_some(pair.upstream));
                }
                free.push(index);
            }
        }
    }
}

fn connect(upstream: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(upstream)?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn watch(poll: &impl std::os::fd::AsFd, stream: &TcpStream, token: u64) -> rustix::io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(poll, stream, epoll::EventData::new_u64(token), flags)
}

/// Moves what can be moved both ways; false when the client is gone.
fn step(pair: &mut Pair, buffer: &mut [u8]) -> bool {
    copy(&mut pair.client, &mut pair.upstream, &mut pair.to_upstream, buffer)
        && copy(&mut pair.upstream, &mut pair.client, &mut pair.to_client, buffer)
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, pending: &mut Vec<u8>, buffer: &mut [u8]) -> bool {
    loop {
        while !pending.is_empty() {
            match to.write(pending) {
                Ok(n) => drop(pending.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        let n = match from.read(buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        };
        let read = buffer.get(..n).unwrap_or_default();
        match to.write(read) {
            Ok(written) => pending.extend_from_slice(read.get(written..).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pending.extend_from_slice(read),
            Err(_) => return false,
        }
        if n < buffer.len() && pending.is_empty() {
            return true;
        }
    }
}
