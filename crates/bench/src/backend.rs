//! Backends: one thread, answers made in advance, so that they are never what limits a measurement.

mod h1;
mod h2;

use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll;

/// A connection of a backend: does what can be done without waiting; false when it is over.
type Step<'a, C> = &'a mut dyn FnMut(&mut C) -> bool;

/// Serves HTTP/1.1 until it is killed.
pub(crate) fn http1(listen: SocketAddr) -> anyhow::Result<()> {
    let mut answers = h1::Answers::default();
    serve(listen, h1::Connection::new, &mut |connection| h1::serve(connection, &mut answers))
}

/// Serves HTTP/2 until it is killed: every request is answered with 110 bytes, or with gRPC messages when `messages`
/// is a number.
pub(crate) fn http2(listen: SocketAddr, messages: Option<usize>) -> anyhow::Result<()> {
    let answer = h2::Answer::new(messages);
    serve(listen, h2::Connection::new, &mut |connection| h2::serve(connection, &answer))
}

fn serve<C>(listen: SocketAddr, new: fn(TcpStream) -> C, step: Step<'_, C>) -> anyhow::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: std::collections::HashMap<u64, C> = std::collections::HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut next = 0u64;
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                    epoll::add(&poll, &stream, epoll::EventData::new_u64(next), flags)?;
                    connections.insert(next, new(stream));
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&token)
                && !step(connection)
            {
                connections.remove(&token);
            }
        }
    }
}
