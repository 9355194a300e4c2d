//! Bodies from one connection to another, in pieces of all sizes, with futures that are dropped half-way.

use std::pin::pin;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use serin_http1::body::BodyDecoder;
use serin_http1::framing::Framing;
use serin_transport::{ByteStream, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Two ends of a connection.
async fn pair() -> (ByteStream, ByteStream) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let connect = ByteStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connect, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A reader of a body of that framing, and the other end; both halves must live.
async fn reader(framing: Framing) -> (H1Reader, ByteStream, serin_transport::WriteHalf) {
    let (near, far) = pair().await;
    let (read, write) = near.into_split();
    let mut reader = H1Reader::new(read, BytesMut::new());
    reader.decoder = BodyDecoder::new(framing);
    (reader, far, write)
}

/// Reads to the end. Each wait is begun and dropped once before it is waited out.
async fn all(source: &mut BodySource<'_>) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        match source.take()? {
            Take::Frame(Frame::Data(data)) => body.extend_from_slice(&data),
            Take::Frame(Frame::Trailers(_)) => {}
            Take::End => return Ok(body),
            Take::Wait => {
                let begun = pin!(source.fill()).poll(&mut Context::from_waker(Waker::noop()));
                if begun.is_pending() {
                    source.fill().await?;
                }
            }
        }
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'a' + (i % 23) as u8).collect()
}

fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    [body.chunks(size).flat_map(chunk).collect::<Vec<u8>>(), b"0\r\n\r\n".to_vec()].concat()
}

#[tokio::test]
async fn bodies_arrive_whole_however_they_are_cut() {
    let body = text(40_000);
    for (chunk, write) in [(1, 7), (1, 100_000), (3000, 1000), (40_000, 4096), (700, 1)] {
        let (mut reader, mut far, _half) = reader(Framing::Chunked).await;
        let sent = chunks(&body, chunk);
        let send = async {
            for part in sent.chunks(write) {
                far.write_all(part).await.unwrap();
            }
        };
        let mut source = BodySource::H1(&mut reader);
        let (read, ()) = tokio::join!(all(&mut source), send);
        assert!(read.unwrap() == body, "chunks of {chunk}, writes of {write}");
        assert!(source.is_ended());
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_body() {
    for (framing, sent, expected) in [
        (Framing::Length(10), &b"12345"[..], Err(BodyError::Truncated)),
        (Framing::Chunked, b"5\r\n12345\r\n", Err(BodyError::Truncated)),
        (Framing::Chunked, b"5\r\n12345X", Err(BodyError::Malformed)),
        (Framing::Chunked, b"Q\r\n", Err(BodyError::Malformed)),
        (Framing::UntilClose, b"12345", Ok(b"12345".to_vec())),
        (Framing::Length(5), b"12345", Ok(b"12345".to_vec())),
    ] {
        let (mut reader, mut far, _half) = reader(framing).await;
        far.write_all(sent).await.unwrap();
        drop(far);
        assert_eq!(all(&mut BodySource::H1(&mut reader)).await, expected, "{framing:?}");
    }
}

/// Bytes behind a body are the next message's.
#[tokio::test]
async fn what_follows_a_body_stays() {
    let (mut reader, mut far, _half) = reader(Framing::Length(3)).await;
    far.write_all(b"abcGET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(all(&mut BodySource::H1(&mut reader)).await.unwrap(), b"abc");
    assert_eq!(&reader.buffer[..], b"GET / HTTP/1.1\r\n");
}

/// Pushed bytes leave in their order, small or large, and a flush that is dropped loses and repeats nothing.
#[tokio::test]
async fn pieces_leave_in_order() {
    for chunked in [false, true] {
        let (near, mut far) = pair().await;
        let (_half, write) = near.into_split();
        let mut writer = H1Writer::new(write);
        writer.chunked = chunked;
        let pieces: Vec<Vec<u8>> = [1, 5000, 3, 300_000, 0, 70_000, 20].map(text).into();
        let mut sink = BodySink::H1(&mut writer);
        pieces.iter().for_each(|piece| sink.push(Frame::Data(Bytes::copy_from_slice(piece))));
        sink.finish();
        assert!(sink.is_full());
        let mut received = Vec::new();
        let mut buffer = BytesMut::with_capacity(10_000);
        while pin!(sink.flush()).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            far.read_buf(&mut buffer).await.unwrap();
            received.extend_from_slice(&buffer.split());
            buffer.reserve(10_000);
            tokio::task::yield_now().await;
        }
        assert_eq!(sink.pending(), 0);
        assert!(writer.is_flushed());
        drop((writer, _half));
        far.read_to_end(&mut received).await.unwrap();
        let body = match chunked {
            false => received,
            true => {
                let (mut reader, mut end, _half) = reader(Framing::Chunked).await;
                let mut source = BodySource::H1(&mut reader);
                let (read, sent) = tokio::join!(all(&mut source), end.write_all(&received));
                sent.unwrap();
                read.unwrap()
            }
        };
        assert!(body == pieces.concat(), "chunked: {chunked}");
    }
}

#[tokio::test]
async fn a_reader_that_is_gone_ends_a_flush() {
    let (near, far) = pair().await;
    let (_half, write) = near.into_split();
    let mut writer = H1Writer::new(write);
    drop(far);
    let mut sink = BodySink::H1(&mut writer);
    let mut closed = false;
    // The first bytes may still be taken by the kernel.
    for _ in 0..1000 {
        sink.push(Frame::Data(text(100_000).into()));
        if sink.flush().await.is_err() {
            closed = true;
            break;
        }
    }
    assert!(closed);
}
