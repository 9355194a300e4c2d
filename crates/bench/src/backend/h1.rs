//! HTTP/1.1: `/N` answers N bytes, `/N/h` the same with 15 more header fields, whatever follows. Bodies with a
//! `content-length` are read and dropped.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;

/// Answers by path.
pub(super) type Answers = HashMap<Vec<u8>, Rc<[u8]>>;

pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Option<(Rc<[u8]>, usize)>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, input: Vec::new(), output: None }
    }
}

/// Does what can be done without waiting; false when the connection is over.
pub(super) fn serve(connection: &mut Connection, answers: &mut Answers) -> bool {
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
