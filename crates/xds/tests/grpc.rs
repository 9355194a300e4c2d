//! The serving end of gRPC with a client that is not ours, and with bytes that are no client's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use envoy_types::pb::google::protobuf::BytesValue;
use serin_transport::{ByteStream, Listener};
use serin_xds::grpc::{self, Call, Code, Failure, Served, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code as TonicCode, Request, Status};
use tonic_prost::ProstCodec;

/// Sends every message back, and counts the calls that go on.
struct Echo(Arc<AtomicUsize>);

/// A call that goes on.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        "test.Echo"
    }

    fn call(&self, method: &str, call: Call) -> Option<Served> {
        self.0.fetch_add(1, SeqCst);
        let running = Running(self.0.clone());
        match method {
            "Echo" => Some(Box::pin(echo(call, running))),
            "Fail" => Some(Box::pin(async { Err(Failure::new(Code::ResourceExhausted, "100 % of it\nis über")) })),
            _ => None,
        }
    }
}

async fn echo(mut call: Call, _running: Running) -> Result<(), Failure> {
    while let Some(message) = call.message::<BytesValue>().await? {
        if !call.send(&message).await {
            break;
        }
    }
    Ok(())
}

/// Runs a test with a server beside it.
async fn with_server<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, Arc<AtomicUsize>) -> F) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let services: Rc<[Box<dyn Service>]> = Rc::new([Box::new(Echo(calls.clone()))]);
    let serve = async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            tokio::task::spawn_local(grpc::serve(stream, peer, services.clone(), || {}));
        }
    };
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            tokio::select! {
                () = test(address, calls) => {}
                () = serve => {}
            }
        })
        .await;
}

async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX)
}

/// Makes a call with these messages; yields what came back.
async fn call(
    client: &mut tonic::client::Grpc<Channel>,
    path: &'static str,
    messages: Vec<BytesValue>,
) -> Result<Vec<BytesValue>, Status> {
    let request = Request::new(tokio_stream::iter(messages));
    let codec = ProstCodec::<BytesValue, BytesValue>::default();
    client.ready().await.unwrap();
    let response = client.streaming(request, PathAndQuery::from_static(path), codec).await?;
    response.into_inner().collect().await
}

fn message(size: usize) -> BytesValue {
    BytesValue { value: (0..size).map(|i| (i % 251) as u8).collect() }
}

#[tokio::test]
async fn messages_of_all_sizes_pass() {
    with_server(|address, _| async move {
        let mut client = client(address).await;
        let messages: Vec<BytesValue> = [0, 1, 100, 16_384, 70_000, 3_000_000, 2].map(message).into();
        assert!(call(&mut client, "/test.Echo/Echo", messages.clone()).await.unwrap() == messages);
        assert_eq!(call(&mut client, "/test.Echo/Echo", Vec::new()).await.unwrap(), []);
    })
    .await;
}

/// Clients that share a connection make more calls over it than HTTP/2's usual hundred.
#[tokio::test]
async fn a_connection_has_many_calls() {
    with_server(|address, running| async move {
        let mut client = client(address).await;
        let mut open = Vec::new();
        for _ in 0..500 {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            sender.send(message(3)).await.unwrap();
            let request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
            let codec = ProstCodec::<BytesValue, BytesValue>::default();
            client.ready().await.unwrap();
            let response = client.streaming(request, PathAndQuery::from_static("/test.Echo/Echo"), codec).await;
            let mut messages = response.unwrap().into_inner();
            assert_eq!(messages.next().await.unwrap().unwrap(), message(3));
            open.push((sender, messages));
        }
        assert_eq!(running.load(SeqCst), 500);
        drop((open, client));
        let gone = async {
            while running.load(SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("calls outlive their client");
    })
    .await;
}

#[tokio::test]
async fn failures_reach_the_client() {
    with_server(|address, _| async move {
        let mut client = client(address).await;
        let failed = call(&mut client, "/test.Echo/Fail", vec![message(1)]).await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (TonicCode::ResourceExhausted, "100 % of it\nis über"));
        for path in ["/test.Echo/Other", "/test.Other/Echo", "/nothing"] {
            let failed = call(&mut client, path, vec![message(1)]).await.unwrap_err();
            assert_eq!(failed.code(), TonicCode::Unimplemented, "{path}: {failed}");
        }
        let mut compressed = client.clone().send_compressed(CompressionEncoding::Gzip);
        let failed = call(&mut compressed, "/test.Echo/Echo", vec![message(1)]).await.unwrap_err();
        assert_eq!(failed.code(), TonicCode::Unimplemented);
        // The connection is as good as before.
        assert_eq!(call(&mut client, "/test.Echo/Echo", vec![message(9)]).await.unwrap(), [message(9)]);
    })
    .await;
}

/// An empty SETTINGS frame after the preface.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_ended() {
    with_server(|address, _| async move {
        for (said, least, most) in [(&b""[..], 5, 6), (HELLO, 30, 36)] {
            let began = tokio::time::Instant::now();
            let mut stream = ByteStream::connect(address).await.unwrap();
            stream.write_all(said).await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            let took = began.elapsed().as_secs();
            assert!((least..most).contains(&took), "{took} s");
            // It was asked for a sign of life.
            let ping = received.windows(5).any(|frame| frame == [0, 0, 8, 6, 0]);
            assert_eq!(ping, !said.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_message_ends_its_call_only() {
    with_server(|address, running| async move {
        let mut client = client(address).await;
        let open = call(&mut client, "/test.Echo/Echo", vec![message(1)]).await.unwrap();
        assert_eq!(open, [message(1)]);
        // Field 1 of a message is bytes: a number there cannot be decoded.
        let request = Request::new(tokio_stream::iter([envoy_types::pb::google::protobuf::UInt32Value { value: 7 }]));
        let codec = ProstCodec::<_, BytesValue>::default();
        client.ready().await.unwrap();
        let response = client.streaming(request, PathAndQuery::from_static("/test.Echo/Echo"), codec).await.unwrap();
        let failed = response.into_inner().next().await.unwrap().unwrap_err();
        assert_eq!(failed.code(), TonicCode::Internal);
        assert_eq!(call(&mut client, "/test.Echo/Echo", vec![message(9)]).await.unwrap(), [message(9)]);
        assert_eq!(running.load(SeqCst), 0);
    })
    .await;
}
