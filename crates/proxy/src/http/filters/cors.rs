//! Answers browsers that ask whether another site may, and tells them (`envoy.filters.http.cors`). Source: Envoy, "CORS".
//!
//! The filter itself only says that it is there; routes say who may, and only those that forward.

use std::marker::PhantomData;

use serin_resources::http_filter::Cors as Policy;
use serin_traffic::filter::{self, Preflight};
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::split::drawn;

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};

counters! {
    Cors:
    ORIGIN_VALID = "cors.origin_valid",
    ORIGIN_INVALID = "cors.origin_invalid",
}

/// A request from an origin that is allowed.
pub(super) struct Cors<'a> {
    policy: Policy,
    origin: Vec<u8>,
    _context: PhantomData<&'a ()>,
}

impl<'a> HttpFilter<'a> for Cors<'a> {
    type Config = Policy;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, Policy>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let policy = context.cluster.and_then(|_| filter::cors_policy(setting.link, context.overrides));
        let Some(policy) = policy.filter(|p| drawn(p.enabled, context.random())) else { return Ok(()) };
        let Some((origin, allowed)) = filter::origin_allowed(&policy, request.head) else { return Ok(()) };
        request.record.count(if allowed { counter::ORIGIN_VALID } else { counter::ORIGIN_INVALID });
        let origin = origin.to_vec();
        let passed = match filter::preflight(&policy, request.head, allowed) {
            Preflight::Go => Ok(()),
            Preflight::Answer { .. } => {
                let mut reply = LocalReply::empty(200, ResponseFlag::None).because("cors_response");
                filter::preflight_headers(&policy, request.head, &mut reply.head.fields);
                Err(Stop::Reply(reply))
            }
        };
        if allowed {
            kept.keep(Self { policy, origin, _context: PhantomData });
        }
        passed
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
        filter::cors_answer(&self.policy, &self.origin, &mut response.head.fields);
    }
}
