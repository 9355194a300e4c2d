//! Edits the headers and trailers of requests and responses (`envoy.filters.http.header_mutation`). Source: Envoy, "Header
//! Mutation".

use bytes::Bytes;
use serin_http1::HeaderBlock;
use serin_resources::header::Mutation;
use serin_resources::http_filter as resources;
use serin_traffic::filter::header_mutations;
use serin_traffic::header_edit::{self, HeaderContext};

use super::{FilterContext, HttpFilter, Kept, RequestParts, ResponseParts, Setting};
use crate::http::alter::{BodyFilter, PacedChunk};
use crate::http::local_reply::Stop;

/// The changes that are still to be made.
pub(super) struct HeaderMutation<'a> {
    response: Vec<&'a [Mutation]>,
    response_trailers: Vec<&'a [Mutation]>,
    /// Changes of trailers, with their values.
    request: Vec<Mutation>,
    trailers: Vec<Mutation>,
}

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
        let of_trailers = header_mutations(setting.link, context.overrides, |m| &m.request_trailers);
        let known = HeaderContext { request: request.head, response: None, facts: request.record };
        kept.keep(Self {
            response: header_mutations(setting.link, context.overrides, |m| &m.response),
            response_trailers: header_mutations(setting.link, context.overrides, |m| &m.response_trailers),
            request: of_trailers.into_iter().flat_map(|level| header_edit::resolved(level, &known)).collect(),
            trailers: Vec::new(),
        });
        Ok(())
    }

    fn request_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        Trailers::changed_by(std::mem::take(&mut self.request))
    }

    async fn response_head(&mut self, _context: &FilterContext<'a>, response: &mut ResponseParts<'_>) {
        for mutations in &self.response {
            header_edit::mutate_response(mutations, response.head, response.request, response.record);
        }
        let known = HeaderContext { request: response.request, response: Some(response.head), facts: response.record };
        let levels = self.response_trailers.iter();
        self.trailers = levels.flat_map(|level| header_edit::resolved(level, &known)).collect();
    }

    fn response_body(&mut self) -> Option<Box<dyn BodyFilter>> {
        Trailers::changed_by(std::mem::take(&mut self.trailers))
    }
}

/// Changes trailers, and nothing else.
struct Trailers(Vec<Mutation>);

impl Trailers {
    fn changed_by(mutations: Vec<Mutation>) -> Option<Box<dyn BodyFilter>> {
        (!mutations.is_empty()).then(|| Box::new(Self(mutations)) as Box<dyn BodyFilter>)
    }
}

impl BodyFilter for Trailers {
    fn changes_length(&self) -> bool {
        false
    }

    fn data(&mut self, data: Bytes, out: &mut Vec<PacedChunk>) {
        out.push(PacedChunk::new(std::time::Duration::ZERO, data));
    }

    fn trailers(&mut self, trailers: &mut HeaderBlock) {
        header_edit::mutate_trailers(&self.0, trailers);
    }
}
