//! An HTTP/2 client's connection: every stream is a request of its own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use serin_http1::framing::{self, Framing};
use serin_http1::{RequestHead, ResponseHead, check_target, is_field_name};
use serin_resources::connection_manager::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::body::{RequestBody, Source};
use super::respond::{H2Responder, Responder};
use super::serve::serve as serve_request;
use super::{ConnectionContext, within};
use crate::metric;
use crate::timer::Timers;
use crate::wire::{H2Reader, request_from_h2, response_to_h2};

/// Serves a connection until it ends.
pub(crate) async fn serve(context: Rc<ConnectionContext>, stream: TcpStream, buffer: BytesMut, timeouts: Timeouts) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(100)
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(60 * 1024)
        .max_pending_accept_reset_streams(20)
        .handshake::<_, Bytes>(Prefixed { prefix: buffer, stream });
    let Some(Ok(mut connection)) = within(timeouts.request_headers, handshake).await else { return };
    let activity = Rc::new(Activity::new());
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = leave(&context, &activity, timeouts.idle), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                let (context, stream) = (context.clone(), Stream::open(&activity));
                tokio::task::spawn_local(async move {
                    serve_stream(context, request, respond).await;
                    drop(stream);
                });
            }
            Some(Err(_)) | None => return,
        }
    }
}

/// How busy a connection is.
struct Activity {
    streams: Cell<usize>,
    since: Cell<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self { streams: Cell::new(0), since: Cell::new(Instant::now()) }
    }

    /// Returns when no stream was open for that long; zero is never.
    async fn idle_for(&self, limit: Duration) {
        if limit.is_zero() {
            std::future::pending::<()>().await;
        }
        loop {
            let idle = if self.streams.get() > 0 { Duration::ZERO } else { self.since.get().elapsed() };
            match limit.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => return,
            }
        }
    }
}

/// An open stream, counted until dropped.
struct Stream(Rc<Activity>);

impl Stream {
    fn open(activity: &Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        Self(activity.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}

/// Waits until the connection should take no more streams.
async fn leave(context: &ConnectionContext, activity: &Activity, idle: Duration) {
    let draining = async {
        while !context.worker.draining.get() {
            context.worker.wake.notified().await;
        }
    };
    tokio::select! {
        () = draining => {}
        () = activity.idle_for(idle) => super::count(context, metric::http::CX_IDLE_TIMEOUT),
    }
}

/// Serves one stream; a client that gives it up, or goes away, ends whatever is done for it.
async fn serve_stream(
    context: Rc<ConnectionContext>,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    let mut head = RequestHead::default();
    let sound = request_from_h2(&parts, &mut head).is_some() && !has_hop_fields(&head);
    let framing = if sound { framing::of_request(&mut head).ok() } else { None };
    let Some(framing) = framing else {
        respond.send_reset(h2::Reason::PROTOCOL_ERROR);
        return;
    };
    if let Err(error) = check_target(&head) {
        let status = ResponseHead::new(error.status());
        let _ = respond.send_response(response_to_h2(&status, None), true);
        super::count(&context, metric::http::RQ_TOTAL);
        super::count(&context, metric::class(metric::http::RQ_1XX, error.status()));
        return;
    }
    let reader = H2Reader::new(stream);
    let framing = match framing {
        Framing::Empty if !reader.is_ended() => Framing::Chunked,
        other => other,
    };
    let timers = Timers::new();
    let body = RequestBody::new(Source::H2(reader), &timers);
    let respond: H2Responder = Rc::new(RefCell::new(Some(respond)));
    let given_up = std::future::poll_fn(|cx| match &mut *respond.borrow_mut() {
        Some(respond) => respond.poll_reset(cx).map(|_| ()),
        None => Poll::Pending,
    });
    tokio::select! {
        biased;
        _ = serve_request(&context, &mut head, framing, body, Responder::H2(respond.clone())) => {}
        () = given_up => {}
    }
}

/// Connection-specific fields make a request malformed (RFC 9113 §8.2.2).
fn has_hop_fields(head: &RequestHead) -> bool {
    let named = ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"];
    let te = head.fields.get_all("te").any(|v| !v.eq_ignore_ascii_case(b"trailers"));
    te || named.iter().any(|n| head.fields.contains(n)) || head.fields.iter().any(|(n, _)| !is_field_name(n))
}

/// A socket of which some bytes were read already.
struct Prefixed {
    prefix: BytesMut,
    stream: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        }
        let n = self.prefix.len().min(out.remaining());
        out.put_slice(self.prefix.get(..n).unwrap_or_default());
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
