//! Lets in as many requests at once as are answered quickly (`envoy.filters.http.adaptive_concurrency`). Source: Envoy,
//! "Adaptive Concurrency".

use std::time::Duration;

use serin_traffic::filter::Concurrency;
use serin_traffic::response_flag::ResponseFlag;
use tokio::time::Instant;

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};
use crate::since_start;

counters! {
    AdaptiveConcurrency:
    BLOCKED = "adaptive_concurrency.gradient_controller.rq_blocked",
}

/// A slot among the requests that the filter lets in at once.
pub(super) struct AdaptiveConcurrency<'a> {
    control: &'a Concurrency,
    began: Instant,
    /// The time until the head of the response, when there was one.
    answered: Option<Duration>,
}

impl<'a> HttpFilter<'a> for AdaptiveConcurrency<'a> {
    type Config = Concurrency;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, Concurrency>,
        _context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let control = setting.config;
        if !control.config.enabled {
            return Ok(());
        }
        if control.begin() {
            kept.keep(Self { control, began: Instant::now(), answered: None });
            return Ok(());
        }
        request.record.count(counter::BLOCKED);
        let flag = ResponseFlag::UpstreamOverflow;
        Err(Stop::Reply(
            LocalReply::new(control.config.status, "reached concurrency limit", flag)
                .because("reached_concurrency_limit"),
        ))
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, _response: &mut ResponseParts<'_>) {
        self.answered = Some(self.began.elapsed());
    }

    fn end(&mut self) {
        self.control.end(self.answered, since_start());
    }
}
