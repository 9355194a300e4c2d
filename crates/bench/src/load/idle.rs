//! Connections that did something once and wait: what a contender keeps for each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::h2::{self, Frame, HEAD, frame};

/// Opens a connection, makes that many requests on it, one after the other, and leaves it open.
pub(crate) fn open(address: SocketAddr, h2: bool, requests: u32) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    if h2 {
        http2(&mut stream, requests).context("HTTP/2")?;
    } else {
        for _ in 0..requests {
            stream.write_all(b"GET /110 HTTP/1.1\r\nhost: bench\r\n\r\n")?;
            http1_answer(&mut stream)?;
        }
    }
    Ok(stream)
}

fn http1_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "closed before the answer");
        answer.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + 110) {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "not answered with 200");
            return Ok(());
        }
    }
}

fn http2(stream: &mut TcpStream, requests: u32) -> anyhow::Result<()> {
    let mut block = vec![0x82, 0x86];
    h2::literal(1, "bench", &mut block);
    h2::literal(4, "/110", &mut block);
    let mut out = h2::PREFACE.to_vec();
    frame(h2::SETTINGS, 0, 0, &[], &mut out);
    let mut input = Vec::new();
    for request in 0..requests {
        frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, request * 2 + 1, &block, &mut out);
        stream.write_all(&out)?;
        out.clear();
        let mut data = 0u32;
        while !ended(stream, &mut input, &mut out, &mut data)? {}
        frame(h2::WINDOW_UPDATE, 0, 0, &data.max(1).to_be_bytes(), &mut out);
    }
    stream.write_all(&out)?;
    Ok(())
}

/// Reads one frame; true when it ends a stream.
fn ended(stream: &mut TcpStream, input: &mut Vec<u8>, out: &mut Vec<u8>, data: &mut u32) -> anyhow::Result<bool> {
    let head = loop {
        if let Some(head) = Frame::complete(input) {
            break head;
        }
        let mut buffer = [0u8; 16 * 1024];
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "closed before the answer");
        input.extend_from_slice(buffer.get(..n).unwrap_or_default());
    };
    match head.kind {
        h2::SETTINGS if head.flags & h2::ACK == 0 => frame(h2::SETTINGS, h2::ACK, 0, &[], out),
        h2::DATA => *data += head.length as u32,
        h2::GOAWAY => anyhow::bail!("the connection is given up"),
        _ => {}
    }
    input.drain(..HEAD + head.length);
    Ok(head.ends_stream())
}
