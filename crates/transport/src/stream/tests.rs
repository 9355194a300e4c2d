//! Streams and their halves over real sockets: ends of directions, hang-ups, writes of several pieces.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{BoundListener, Listener, PeerState};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Makes a connection. Returns the end that connected and the end that was accepted.
pub(crate) async fn pair() -> (ByteStream, ByteStream) {
    let listener = Listener::bind(ANY, 1).unwrap();
    let connected = ByteStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (connected, listener.accept().await.unwrap().0)
}

async fn read_to_end(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn a_direction_ends_by_itself() {
    let (mut client, server) = pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut from_client, mut to_client) = server.into_split();
    assert_eq!(read_to_end(&mut from_client).await, b"question");
    to_client.write_all(b"answer").await.unwrap();
    drop(to_client);
    // The other half is still there, so this is the end of one direction and not of the connection.
    assert_eq!(read_to_end(client).await, b"answer");
    drop(from_client);
}

#[tokio::test]
async fn a_half_that_is_shut_down_takes_no_more() {
    let (client, server) = pair().await;
    let (read, mut write) = client.into_split();
    write.shutdown().await.unwrap();
    assert_eq!(write.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(read_to_end(server).await.is_empty());
    assert!(read_to_end(read).await.is_empty());
}

#[tokio::test]
async fn a_peer_that_closed_its_half_differs_from_one_that_is_gone() {
    let (mut client, server) = pair().await;
    let (read, _write) = server.into_split();
    assert_eq!(read.peer_state().await, PeerState::Open);
    client.shutdown().await.unwrap();
    while read.peer_state().await == PeerState::Open {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(read.peer_state().await, PeerState::SendsNoMore);
    assert_eq!(read.try_write(b"are you there").unwrap(), 13);
    assert_eq!(read_exactly(&mut client, 13).await, b"are you there");
    drop(client);
    // Only a byte that cannot be delivered tells; the reset takes its time.
    while read.peer_state().await != PeerState::Gone {
        let _ = read.try_write(b"and now");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(read.try_write(b"still").is_err());
}

async fn read_exactly(from: &mut ByteStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn several_pieces_leave_with_one_write() {
    let (mut client, server) = pair().await;
    let pieces = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"and body")];
    assert!(client.is_write_vectored());
    assert_eq!(client.write_vectored(&pieces).await.unwrap(), 13);
    let (read, mut write) = client.into_split();
    assert!(write.is_write_vectored());
    assert_eq!(write.write_vectored(&pieces).await.unwrap(), 13);
    drop((read, write));
    assert_eq!(read_to_end(server).await, b"head and bodyhead and body");
}

#[tokio::test]
async fn a_read_that_does_not_wait_finds_what_is_there() {
    let (mut client, server) = pair().await;
    let (read, _write) = server.into_split();
    let mut byte = [0; 1];
    assert_eq!(read.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    client.write_all(b"abc").await.unwrap();
    // The read before has found nothing, so this waits for what comes.
    std::future::poll_fn(|cx| read.poll_read_ready(cx)).await.unwrap();
    assert_eq!(read.try_read(&mut byte).unwrap(), 1);
    let mut rest = BytesMut::with_capacity(16);
    assert_eq!(read.try_read_buf(&mut rest).unwrap(), 2);
    assert_eq!((&byte, &*rest), (b"a", b"bc".as_slice()));
}

#[tokio::test]
async fn small_writes_leave_at_once() {
    let nodelay = |stream: &ByteStream| match &stream.0 {
        Carrier::Tcp(stream) => stream.nodelay().unwrap(),
        Carrier::Tls(tls) => tls.socket.nodelay().unwrap(),
    };
    let listener = BoundListener::shared(ANY).unwrap().into_current_runtime().unwrap();
    let address = listener.local_addr().unwrap();
    let connected = ByteStream::connect(address).await.unwrap();
    assert!(!nodelay(&connected));
    connected.prepare_connected(address);
    assert!(nodelay(&connected));
    let (accepted, peer) = listener.accept().await.unwrap();
    accepted.prepare_accepted(peer, address);
    assert!(nodelay(&accepted), "it inherits the option from its listener");
}

#[tokio::test]
async fn a_stream_goes_from_one_runtime_to_another() {
    let (mut client, server) = pair().await;
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = server.into_current_runtime().unwrap();
            server.write_all(b"from there").await.unwrap();
        });
    });
    assert_eq!(read_exactly(&mut client, 10).await, b"from there");
    thread.join().unwrap();
}
