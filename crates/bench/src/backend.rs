//! The backend: one thread, answers made in advance, so that it is never what limits a measurement.
//!
//! `/N` answers N bytes, `/N/h` the same with 15 more header fields. Bodies with a `content-length` are read and dropped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;

use rustix::event::epoll;

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of a body still to come.
    body: usize,
    output: Option<(Rc<[u8]>, usize)>,
}

/// Serves until it is killed.
pub(crate) fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(u64::MAX), epoll::EventFlags::IN)?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut answers: HashMap<Vec<u8>, Rc<[u8]>> = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut next = 0u64;
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                    epoll::add(&poll, &stream, epoll::EventData::new_u64(next), flags)?;
                    connections.insert(next, Connection { stream, input: Vec::new(), body: 0, output: None });
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&token)
                && !serve(connection, &mut answers)
            {
                connections.remove(&token);
            }
        }
    }
}

/// Does what can be done without waiting; false when the connection is over.
fn serve(connection: &mut Connection, answers: &mut HashMap<Vec<u8>, Rc<[u8]>>) -> bool {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        while let Some((answer, sent)) = &mut connection.output {
            match connection.stream.write(answer.get(*sent..).unwrap_or_default()) {
                Ok(n) => *sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            if *sent >= answer.len() {
                connection.output = None;
            }
        }
        if let Some(path) = take_request(connection) {
            let answer = answers.entry(path).or_insert_with_key(|path| answer(path)).clone();
            connection.output = Some((answer, 0));
            continue;
        }
        match connection.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => connection.input.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

/// The path of the request that is complete now, if any.
fn take_request(connection: &mut Connection) -> Option<Vec<u8>> {
    let dropped = connection.body.min(connection.input.len());
    connection.input.drain(..dropped);
    connection.body -= dropped;
    if connection.body > 0 {
        return None;
    }
    let end = connection.input.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(connection.input.get(..end)?).to_ascii_lowercase();
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
    if connection.input.len() < end + length {
        // Answered when its body is here: the head is looked at again then, which large uploads can afford.
        return None;
    }
    let path = head.split(' ').nth(1).unwrap_or("/0").as_bytes().to_vec();
    connection.input.drain(..end + length);
    Some(path)
}

fn answer(path: &[u8]) -> Rc<[u8]> {
    let path = String::from_utf8_lossy(path);
    let mut parts = path.trim_start_matches('/').split('/');
    let size: usize = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n");
    if parts.next() == Some("h") {
        (0..15).for_each(|n| text.push_str(&format!("x-answer-{n}: value-of-answer-field-{n}\r\n")));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes.into()
}
