//! Refuses requests for which a bucket has no token (`envoy.filters.http.local_ratelimit`). Source: Envoy, "Local rate limit".

use std::marker::PhantomData;

use serin_traffic::filter::Bucket;
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::header_edit;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::split::drawn;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};
use crate::since_start;

/// The filter; it keeps nothing of a request.
pub(super) struct LocalRateLimit<'a>(PhantomData<&'a ()>);

impl<'a> HttpFilter<'a> for LocalRateLimit<'a> {
    type Config = Bucket;

    async fn request_head(
        setting: Setting<'a, Bucket>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        _kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let (bucket, config) = (setting.config, &setting.config.config);
        if !drawn(config.enabled, context.random()) {
            return Ok(());
        }
        bucket.count(0);
        if bucket.take(since_start()) {
            bucket.count(1);
            return Ok(());
        }
        bucket.count(2);
        let RequestParts { head, record, .. } = request;
        if !drawn(config.enforced, context.random()) {
            header_edit::to_request(&config.unenforced_headers, head, *record);
            return Ok(());
        }
        bucket.count(3);
        let grpc = config.resource_exhausted.then_some(GrpcStatus::RESOURCE_EXHAUSTED);
        let reply = LocalReply {
            grpc,
            ..LocalReply::new(config.status, "local_rate_limited", ResponseFlag::RateLimited)
                .because("local_rate_limited")
        };
        let mut reply = reply.for_request(head);
        header_edit::to_response(&config.response_headers, &mut reply.head, head, *record);
        Err(Stop::Reply(reply))
    }
}
