//! HTTP/2: every request gets the same answer when its stream ends. What it says is not read. Answers are shorter than
//! any stream's window; the connection's window is kept.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use crate::h2::{self, Frame, HEAD, frame};

/// The answer to everything.
pub(super) struct Answer {
    /// Frames, with stream number 0.
    frames: Vec<Vec<u8>>,
    /// Bytes that count towards the window.
    data: i64,
}

impl Answer {
    pub(super) fn new(messages: Option<usize>) -> Self {
        let mut head = vec![0x88];
        let mut frames = Vec::new();
        let mut push = |kind, flags, payload: &[u8]| {
            let mut out = Vec::new();
            frame(kind, flags, 0, payload, &mut out);
            frames.push(out);
        };
        let data = match messages {
            None => {
                h2::literal(31, "text/plain", &mut head);
                h2::literal(28, "110", &mut head);
                push(h2::HEADERS, h2::END_HEADERS, &head);
                push(h2::DATA, h2::END_STREAM, &[b'x'; 110]);
                110
            }
            Some(messages) => {
                let mut message = vec![0, 0, 0, 0, 100];
                message.resize(105, b'x');
                let mut trailers = Vec::new();
                h2::literal(31, "application/grpc", &mut head);
                h2::named("grpc-status", "0", &mut trailers);
                push(h2::HEADERS, h2::END_HEADERS, &head);
                (0..messages).for_each(|_| push(h2::DATA, 0, &message));
                push(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, &trailers);
                messages as i64 * 105
            }
        };
        Self { frames, data }
    }

    fn write(&self, stream: u32, out: &mut Vec<u8>) {
        for frame in &self.frames {
            let start = out.len();
            out.extend_from_slice(frame);
            out[start + 5..start + HEAD].copy_from_slice(&stream.to_be_bytes());
        }
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    greeted: bool,
    window: i64,
    /// Streams whose answers wait for the window.
    waiting: VecDeque<u32>,
    /// Bytes received since the last update of the peer's window.
    received: u32,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        let mut output = Vec::new();
        // MAX_CONCURRENT_STREAMS 256, INITIAL_WINDOW_SIZE 1 MiB
        frame(h2::SETTINGS, 0, 0, &[0, 3, 0, 0, 1, 0, 0, 4, 0, 0x10, 0, 0], &mut output);
        frame(h2::WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes(), &mut output);
        let waiting = VecDeque::new();
        Self { stream, input: Vec::new(), output, sent: 0, greeted: false, window: 65_535, waiting, received: 0 }
    }

    fn take_frames(&mut self, answer: &Answer) {
        let mut at = 0;
        if !self.greeted {
            if self.input.len() < h2::PREFACE.len() {
                return;
            }
            self.greeted = true;
            at = h2::PREFACE.len();
        }
        while let Some(head) = self.input.get(at..).and_then(Frame::complete) {
            let payload = at + HEAD..at + HEAD + head.length;
            at = payload.end;
            let payload = self.input.get(payload).unwrap_or_default();
            match head.kind {
                h2::SETTINGS if head.flags & h2::ACK == 0 => frame(h2::SETTINGS, h2::ACK, 0, &[], &mut self.output),
                h2::PING if head.flags & h2::ACK == 0 => frame(h2::PING, h2::ACK, 0, payload, &mut self.output),
                h2::WINDOW_UPDATE if head.stream == 0 => {
                    let more = payload.try_into().map(u32::from_be_bytes).unwrap_or(0);
                    self.window += i64::from(more & 0x7fff_ffff);
                }
                h2::DATA => self.received += head.length as u32,
                _ => {}
            }
            if head.ends_stream() {
                self.waiting.push_back(head.stream);
            }
        }
        self.input.drain(..at);
        if self.received > 1 << 20 {
            frame(h2::WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes(), &mut self.output);
            self.received = 0;
        }
        while self.window >= answer.data
            && let Some(stream) = self.waiting.pop_front()
        {
            self.window -= answer.data;
            answer.write(stream, &mut self.output);
        }
    }
}

/// Does what can be done without waiting; false when the connection is over.
pub(super) fn serve(connection: &mut Connection, answer: &Answer) -> bool {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        connection.take_frames(answer);
        while connection.sent < connection.output.len() {
            match connection.stream.write(connection.output.get(connection.sent..).unwrap_or_default()) {
                Ok(n) => connection.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if connection.sent == connection.output.len() {
            connection.output.clear();
            connection.sent = 0;
        }
        match connection.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => connection.input.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}
