//! One connection of a gRPC client: a task for each of its calls, and an end when it says nothing any more.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serin_http1::{HeaderBlock, RequestHead, ResponseHead};
use serin_http2::{Accepted, Config, Role, Session, StreamHandle};
use serin_transport::ByteStream;
use serin_transport::h2::{Driven, Driver};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Call, Code, Failure, Served, Service};

/// Time for the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// The interval at which a client's silence is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Silence after which a client is asked for a sign of life.
const ASK: Duration = Duration::from_secs(20);
/// Silence after which it is taken for gone.
const GONE: Duration = Duration::from_secs(30);
/// Calls at a time of one client. Some clients make all their calls over one connection.
const CALLS: u32 = 10_000;

/// Serves a connection until it ends. `heard` is called whenever its client said something.
///
/// It must run where local tasks can be spawned (`tokio::task::LocalSet`).
pub async fn serve(stream: ByteStream, peer: SocketAddr, services: Rc<[Box<dyn Service>]>, heard: impl Fn()) {
    let session = Session::new(Role::Server, Config { streams: CALLS, ..Config::default() });
    let _ends = Closing(session.clone());
    let mut driver = Driver::new(stream, session.clone(), BytesMut::new());
    let mut silence = pin!(tokio::time::sleep(FIRST_BYTE));
    let turn = Arc::new(Semaphore::new(1));
    let last = Cell::new(None);
    loop {
        let mut driven = pin!(driver.next_noticing(|| {
            last.set(Some(Instant::now()));
            heard();
        }));
        let driven = tokio::select! {
            biased;
            driven = &mut driven => driven,
            () = silence.as_mut() => {
                let Some(silent) = last.get().map(|at: Instant| at.elapsed()).filter(|silent| *silent < GONE) else { return };
                if silent >= ASK {
                    session.ping();
                }
                silence.as_mut().reset(Instant::now() + LOOK);
                continue;
            }
        };
        match driven {
            Driven::Request(accepted) => begin(accepted, peer, &turn, &services),
            Driven::Refused(_) => {}
            Driven::Ended => return,
        }
    }
}

/// Ends the calls of a connection that is over.
struct Closing(Session);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Begins a call.
fn begin(accepted: Accepted, peer: SocketAddr, turn: &Arc<Semaphore>, services: &[Box<dyn Service>]) {
    let Accepted { head, stream, .. } = accepted;
    let stream = Rc::new(stream);
    let is_grpc = head.fields.get("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
    if head.method() != b"POST" || !is_grpc {
        let _ = stream.respond(&ResponseHead::new(415), None, true);
        return;
    }
    let mut response = ResponseHead::new(200);
    response.fields.append(b"content-type", b"application/grpc");
    let served = match find(
        &head,
        Call { stream: stream.clone(), peer, turn: turn.clone(), input: BytesMut::new() },
        services,
    ) {
        Ok(served) => served,
        Err(failure) => {
            put_status(&Err(failure), &mut response.fields);
            let _ = stream.respond(&response, None, true);
            return;
        }
    };
    if stream.respond(&response, None, false).is_ok() {
        tokio::task::spawn_local(finish(served, stream));
    }
}

fn find(head: &RequestHead, call: Call, services: &[Box<dyn Service>]) -> Result<Served, Failure> {
    if head.fields.get("grpc-encoding").is_some_and(|encoding| encoding != b"identity") {
        return Err(Failure::new(Code::Unimplemented, "compressed requests are not supported"));
    }
    let path = String::from_utf8_lossy(head.path()).into_owned();
    let (name, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let service = services.iter().find(|service| service.name() == name);
    let served = service.and_then(|service| service.call(method, call));
    served.ok_or_else(|| Failure::new(Code::Unimplemented, format!("there is no method {path}")))
}

/// Serves a call and tells its client how it ended.
async fn finish(served: Served, stream: Rc<StreamHandle>) {
    let outcome = served.await;
    let mut trailers = HeaderBlock::default();
    put_status(&outcome, &mut trailers);
    let _ = stream.send_trailers(&trailers);
}

/// Adds `grpc-status` and `grpc-message`.
fn put_status(outcome: &Result<(), Failure>, fields: &mut HeaderBlock) {
    match outcome {
        Ok(()) => fields.append(b"grpc-status", b"0"),
        Err(Failure { code, message }) => {
            fields.append(b"grpc-status", (*code as u8).to_string().as_bytes());
            fields.append(b"grpc-message", percent_encoded(message).as_bytes());
        }
    }
}

/// Encodes what is not printable ASCII, and the percent sign itself, as gRPC's `Percent-Encoded`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                use std::fmt::Write as _;
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_statuses_are_ascii() {
        assert_eq!(percent_encoded("a b~"), "a b~");
        assert_eq!(percent_encoded("100 %\né"), "100 %25%0A%C3%A9");
    }
}
