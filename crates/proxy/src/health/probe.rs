//! One check of one endpoint.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use serin_http1::encode::{self, Connection};
use serin_http1::framing::Framing;
use serin_http1::{Codec, Limits, RequestHead, ResponseHead, Scan, Version, parse_response};
use serin_http2::{Config, Piece, Role, Session, StreamHandle};
use serin_resources::health_check::{HttpProbe, Probe};
use serin_traffic::header_edit::{self, CommandSource};
use serin_traffic::health::Check;
use serin_transport::ByteStream;
use serin_transport::h2::{Driven, Driver};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::AbortHandle;

use crate::tls::{ClientSlot, Offer};

/// Most bytes of a response that are looked at.
const MOST: usize = 64 * 1024;

/// Asks; whoever calls keeps the time.
pub(super) async fn run(probe: &Probe, cluster: &str, address: SocketAddr, tls: Option<&ClientSlot>) -> Check {
    let Ok(mut stream) = ByteStream::connect(address).await else { return Check::Unreachable };
    if let Some(tls) = tls {
        let Some(faces) = tls.current().clone() else { return Check::Unreachable };
        let offer = match probe {
            Probe::Http(http) => Offer::Http(http.codec),
            Probe::Grpc { .. } => Offer::Http(Codec::Http2),
            Probe::Tcp { .. } => Offer::Other,
        };
        let name = Some(tls.settings.server_name.as_str()).filter(|name| !name.is_empty());
        match stream.connect_tls(faces.offering(offer), name).await {
            Ok(secured) => stream = secured,
            Err(_) => return Check::Unreachable,
        }
    }
    let done = match probe {
        Probe::Http(http) => self::http(http, cluster, stream).await,
        Probe::Tcp { send, receive } => tcp(send, receive, stream).await,
        Probe::Grpc { service, authority } => grpc(service, authority, cluster, stream).await,
    };
    done.unwrap_or(Check::Unreachable)
}

async fn http(probe: &HttpProbe, cluster: &str, stream: ByteStream) -> Option<Check> {
    let mut head = RequestHead::default();
    head.start(probe.method.as_bytes(), probe.path.as_bytes(), Version::Http11);
    let host = if probe.host.is_empty() { cluster } else { &probe.host };
    head.fields.append(b"host", host.as_bytes());
    head.fields.append(b"user-agent", b"Envoy/HC");
    header_edit::to_request(&probe.headers, &mut head, &Nothing);
    let answer = match probe.codec {
        Codec::Http1 => over_h1(&head, stream).await?,
        Codec::Http2 => over_h2(&head, stream).await?,
    };
    let within = |ranges: &[(u16, u16)]| ranges.iter().any(|(s, e)| (*s..*e).contains(&answer.status));
    let failing = answer.fields.contains("x-envoy-immediate-health-check-fail");
    if within(&probe.expected) && !failing {
        let service = answer.fields.get_str("x-envoy-upstream-healthchecked-cluster");
        if !probe.is_meant(service) {
            return Some(Check::Failed);
        }
        return Some(Check::Passed { degraded: answer.fields.contains("x-envoy-degraded") });
    }
    Some(if within(&probe.retriable) { Check::Unreachable } else { Check::Failed })
}

/// Nothing but the head is known of a check.
struct Nothing;

impl CommandSource for Nothing {
    fn command(&self, _: &str, _: Option<&str>) -> Option<String> {
        None
    }
}

async fn over_h1(head: &RequestHead, mut stream: ByteStream) -> Option<ResponseHead> {
    let mut bytes = Vec::new();
    encode::request(head, Framing::Empty, Connection::Close, encode::Style::default(), &mut bytes);
    stream.write_all(&bytes).await.ok()?;
    let (mut buffer, mut scan, mut answer) = (BytesMut::new(), Scan::default(), ResponseHead::default());
    loop {
        match parse_response(&buffer, &mut scan, &Limits::default(), &mut answer) {
            Ok(Some(used)) if answer.status < 200 => {
                let _ = buffer.split_to(used);
                scan = Scan::default();
                continue;
            }
            Ok(Some(_)) => return Some(answer),
            Ok(None) => {}
            Err(_) => return None,
        }
        if buffer.len() > MOST || !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            return None;
        }
    }
}

/// A connection that moves as long as this is kept.
struct Moving(AbortHandle);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn open(head: &RequestHead, stream: ByteStream, ended: bool) -> Option<(Rc<StreamHandle>, Moving)> {
    let session = Session::new(Role::Client, Config::default());
    let handle = session.open(head, None, ended)?;
    let mut driver = Driver::new(stream, session, BytesMut::new());
    let moving = tokio::task::spawn_local(async move { while let Driven::Request(_) = driver.next().await {} });
    Some((Rc::new(handle), Moving(moving.abort_handle())))
}

async fn over_h2(head: &RequestHead, stream: ByteStream) -> Option<ResponseHead> {
    let (handle, _moving) = open(head, stream, true)?;
    std::future::poll_fn(|cx| handle.poll_head(cx)).await.ok()
}

async fn tcp(send: &[u8], receive: &[Vec<u8>], mut stream: ByteStream) -> Option<Check> {
    stream.write_all(send).await.ok()?;
    let mut wanted = receive.iter();
    let Some(mut next) = wanted.next() else { return Some(Check::Passed { degraded: false }) };
    let mut buffer = BytesMut::new();
    loop {
        while let Some(at) = find(&buffer, next) {
            let _ = buffer.split_to(at + next.len());
            match wanted.next() {
                Some(after) => next = after,
                None => return Some(Check::Passed { degraded: false }),
            }
        }
        if buffer.len() > MOST || !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            return None;
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() { Some(0) } else { haystack.windows(needle.len()).position(|w| w == needle) }
}

/// `grpc.health.v1.Health/Check` (gRPC health checking protocol).
async fn grpc(service: &str, authority: &str, cluster: &str, stream: ByteStream) -> Option<Check> {
    const SERVING: u8 = 1;
    let mut head = RequestHead::default();
    head.start(b"POST", b"/grpc.health.v1.Health/Check", Version::Http2);
    head.fields.append(b"host", if authority.is_empty() { cluster } else { authority }.as_bytes());
    head.fields.append(b"content-type", b"application/grpc");
    head.fields.append(b"te", b"trailers");
    head.fields.append(b"user-agent", b"Envoy/HC");
    let (handle, _moving) = open(&head, stream, false)?;
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend([0x0a, u8::try_from(service.len()).ok()?]);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    handle.send(&framed, true).ok()?;
    let answer = std::future::poll_fn(|cx| handle.poll_head(cx)).await.ok()?;
    let mut status = answer.fields.get_str("grpc-status").map(str::to_owned);
    let mut body = Vec::new();
    while !handle.is_ended() {
        match handle.take().ok()? {
            Some(Piece::Data(data)) => body.extend_from_slice(&data),
            Some(Piece::Trailers(trailers)) => status = trailers.get_str("grpc-status").map(str::to_owned),
            None => std::future::poll_fn(|cx| handle.poll_readable(cx)).await,
        }
        if body.len() > MOST {
            return None;
        }
    }
    let serving = body.get(5..7) == Some(&[0x08, SERVING]);
    let well = answer.status == 200 && status.as_deref() == Some("0") && serving;
    Some(if well { Check::Passed { degraded: false } } else { Check::Failed })
}
