//! Refuses a part of requests while too many fail (`envoy.filters.http.admission_control`). Source: Envoy, "Admission Control".
//!
//! A request whose client leaves before its response says nothing.

use serin_traffic::filter::Admission;
use serin_traffic::grpc::GrpcStatus;
use serin_traffic::response_flag::ResponseFlag;

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::local_reply::{LocalReply, Stop};
use crate::since_start;

counters! {
    AdmissionControl:
    REJECTED = "admission_control.rq_rejected",
}

/// A request whose outcome counts.
pub(super) struct AdmissionControl<'a>(&'a Admission);

impl<'a> HttpFilter<'a> for AdmissionControl<'a> {
    type Config = Admission;
    const COUNTERS: &'static [&'static str] = counter::NAMES;

    async fn request_head(
        setting: Setting<'a, Admission>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        let admission = setting.config;
        if admission.refuses(since_start(), context.random()) {
            request.record.count(counter::REJECTED);
            return Err(Stop::Reply(LocalReply::empty(503, ResponseFlag::None).because("denied_by_admission_control")));
        }
        kept.keep(Self(admission));
        Ok(())
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
        self.0.note(since_start(), response.head.status, GrpcStatus::of(&response.head.fields));
    }
}
