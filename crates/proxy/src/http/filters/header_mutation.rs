//! Edits the headers of requests and responses (`envoy.filters.http.header_mutation`). Source: Envoy, "Header Mutation".

use serin_resources::header::Mutation;
use serin_resources::http_filter as resources;
use serin_traffic::filter::header_mutations;
use serin_traffic::header_edit;

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::local_reply::Stop;

/// The changes of the response.
pub(super) struct HeaderMutation<'a>(Vec<&'a [Mutation]>);

impl<'a> HttpFilter<'a> for HeaderMutation<'a> {
    type Config = resources::HeaderMutation;

    async fn request_head(
        setting: Setting<'a, resources::HeaderMutation>,
        context: &FilterContext<'a>,
        request: &mut RequestParts<'_, '_>,
        kept: &mut Kept<'a, Self>,
    ) -> Result<(), Stop> {
        for mutations in header_mutations(setting.link, context.overrides, |m| &m.request) {
            header_edit::mutate_request(mutations, request.head, request.record);
        }
        kept.keep(Self(header_mutations(setting.link, context.overrides, |m| &m.response)));
        Ok(())
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
        for mutations in &self.0 {
            header_edit::mutate_response(mutations, response.head, response.request, response.record);
        }
    }
}
