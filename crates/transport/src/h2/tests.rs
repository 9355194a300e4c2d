//! Drivers that speak to each other over a real socket, and to peers that do not speak HTTP/2.

use serin_http1::{RequestHead, ResponseHead, Version};
use serin_http2::{Config, Role, StreamHandle};

use super::*;
use crate::stream::tests::pair;

fn session(role: Role) -> Session {
    Session::new(role, Config::default())
}

fn ask(session: &Session) -> StreamHandle {
    let mut head = RequestHead::default();
    head.start(b"GET", b"/a", Version::Http2);
    head.fields.append(b"host", b"example.com");
    session.open(&head, None, true).unwrap()
}

/// Answers every request with 204 until the connection ends.
async fn serve(driver: &mut Driver) {
    assert!(driver.settled().await);
    while let Driven::Request(accepted) = driver.next().await {
        accepted.stream.respond(&ResponseHead::new(204), None, true).unwrap();
    }
}

#[tokio::test]
async fn requests_and_responses_pass() {
    let (client, server) = pair().await;
    let asking = session(Role::Client);
    let stream = ask(&asking);
    let mut client = Driver::new(client, asking, BytesMut::new());
    let mut server = Driver::new(server, session(Role::Server), BytesMut::new());
    let response = tokio::select! {
        response = std::future::poll_fn(|cx| stream.poll_head(cx)) => response.unwrap(),
        _ = client.next() => panic!("the client's connection ended"),
        () = serve(&mut server) => panic!("the server's connection ended"),
    };
    assert_eq!(response.status, 204);
    drop(client);
    serve_rest(server).await;
}

/// Only the end is left when the client is gone.
async fn serve_rest(mut server: Driver) {
    assert!(matches!(server.next().await, Driven::Ended));
    assert!(server.error().is_none());
}

#[tokio::test]
async fn what_was_read_before_is_taken_first() {
    let asking = session(Role::Client);
    let _stream = ask(&asking);
    let mut bytes = Vec::new();
    assert!(asking.take_output(&mut bytes));
    let (_client, server) = pair().await;
    let mut server = Driver::new(server, session(Role::Server), BytesMut::from(&*bytes));
    assert!(server.settled().await);
    let Driven::Request(accepted) = server.next().await else { panic!("no request") };
    assert_eq!(accepted.head.path(), b"/a");
}

#[tokio::test]
async fn a_peer_of_another_protocol_is_given_up() {
    let (mut client, server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n").await.unwrap();
    let mut server = Driver::new(server, session(Role::Server), BytesMut::new());
    assert!(!server.settled().await);
    assert!(server.error().is_some());
}

#[tokio::test]
async fn a_peer_that_leaves_before_it_begins_is_no_violation() {
    let (client, server) = pair().await;
    drop(client);
    let mut server = Driver::new(server, session(Role::Server), BytesMut::new());
    assert!(!server.settled().await);
    assert!(server.error().is_none());
}
