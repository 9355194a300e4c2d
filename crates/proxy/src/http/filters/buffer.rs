//! Waits for the whole body of a request before it goes on (`envoy.filters.http.buffer`). Source: Envoy, "Buffer".

use std::marker::PhantomData;

use serin_http1::framing::Framing;
use serin_resources::http_filter as resources;
use serin_traffic::response_flag::ResponseFlag;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::http::body::Gathered;
use crate::http::local_reply::{LocalReply, Stop};

/// The filter; it keeps nothing of a request.
pub(super) struct Buffer<'a>(PhantomData<&'a ()>);

impl<'a> HttpFilter<'a> for Buffer<'a> {
    type Config = resources::Buffer;

    async fn request_head(
        setting: Setting<'a, resources::Buffer>,
        _context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        _kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        if *request.framing == Framing::Empty {
            return Ok(());
        }
        let gathered = Box::pin(request.body.gather(setting.config.max_request_bytes)).await;
        let closing = |reply| Err(Stop::Reply(LocalReply { close: true, ..reply }));
        match gathered {
            Gathered::Whole(length) => {
                request.head.fields.remove("content-length");
                *request.framing = Framing::Length(length);
                Ok(())
            }
            Gathered::TooLong => closing(
                LocalReply::new(413, "Payload Too Large", ResponseFlag::None).because("request_payload_too_large"),
            ),
            Gathered::Malformed => closing(
                LocalReply::new(400, "Bad Request", ResponseFlag::DownstreamProtocolError).because("codec_error"),
            ),
            Gathered::Silent => closing(
                LocalReply::new(408, "stream timeout", ResponseFlag::StreamIdleTimeout).because("stream_idle_timeout"),
            ),
            Gathered::Gone => Err(Stop::DownstreamGone),
        }
    }
}
