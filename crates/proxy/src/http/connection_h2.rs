//! An HTTP/2 client's connection: every stream is a request of its own.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use serin_http1::framing::{self, Framing};
use serin_http1::{RequestHead, is_field_name};
use serin_resources::connection_manager::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::body::{RequestBody, Source};
use super::respond::Responder;
use super::serve::serve as serve_request;
use super::{ConnectionContext, within};
use crate::wire::{H2Reader, request_from_h2};

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
    let mut leaving = false;
    loop {
        let draining = async {
            while !context.worker.draining.get() {
                context.worker.wake.notified().await;
            }
        };
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = draining, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                tokio::task::spawn_local(stream_task(context.clone(), request, respond));
            }
            Some(Err(_)) | None => return,
        }
    }
}

async fn stream_task(
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
    let reader = H2Reader::new(stream);
    let framing = match framing {
        Framing::Empty if !reader.is_ended() => Framing::Chunked,
        other => other,
    };
    let body = RequestBody::new(Source::H2(reader));
    serve_request(&context, &mut head, framing, body, Responder::H2(respond)).await;
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
