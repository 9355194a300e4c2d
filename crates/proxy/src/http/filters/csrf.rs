//! Refuses requests that another site made a browser send (`envoy.filters.http.csrf`). Source: Envoy, "CSRF".

use std::marker::PhantomData;

use serin_resources::http_filter as resources;
use serin_traffic::filter::is_foreign;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::split::drawn;

use super::{FilterContext, HttpFilter, Kept, RequestParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};

counters! {
    Csrf:
    REQUEST_INVALID = "csrf.request_invalid",
}

/// The filter; it keeps nothing of a request.
pub(super) struct Csrf<'a>(PhantomData<&'a ()>);

impl<'a> HttpFilter<'a> for Csrf<'a> {
    type Config = resources::Csrf;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, resources::Csrf>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        _kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let config = setting.config;
        if !drawn(config.enabled, context.random()) || !is_foreign(config, request.head) {
            return Ok(());
        }
        request.record.count(counter::REQUEST_INVALID);
        Err(Stop::Reply(LocalReply::new(403, "Invalid origin", ResponseFlag::None).because("csrf_origin_mismatch")))
    }
}
