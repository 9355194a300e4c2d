//! Configuration of the header mutation filter (`envoy.filters.http.header_mutation`). Source: Envoy, "Header Mutation".

use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::header::Mutation;
use crate::{Audit, Error, Path};

/// Changes of headers on the way in and out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutation {
    /// Of requests.
    pub request: Vec<Mutation>,
    /// Edits of responses.
    pub response: Vec<Mutation>,
    /// Of trailers of requests.
    pub request_trailers: Vec<Mutation>,
    /// Of trailers of responses.
    pub response_trailers: Vec<Mutation>,
    /// True when a route's come last, and so win; else the virtual host's do.
    pub most_specific_wins: bool,
}

impl HeaderMutation {
    fn decode_filter(
        value: &pb::header_mutation::v3::HeaderMutation,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::header_mutation::v3::HeaderMutation as ProtoFilter;
        audit!(value, ProtoFilter as ProtoFilter, audit, path;
            supported: mutations, most_specific_header_mutations_wins; ignored: ; refused: );
        let mut mutations = decode(value.mutations.as_ref(), audit, &path.field("mutations"))?;
        mutations.most_specific_wins = value.most_specific_header_mutations_wins;
        Ok(mutations)
    }

    fn decode_route(
        value: &pb::header_mutation::v3::HeaderMutationPerRoute,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        decode(value.mutations.as_ref(), audit, &path.field("mutations"))
    }

    fn encode_filter(&self) -> pb::header_mutation::v3::HeaderMutation {
        pb::header_mutation::v3::HeaderMutation {
            mutations: Some(self.encode()),
            most_specific_header_mutations_wins: self.most_specific_wins,
        }
    }

    fn encode_route(&self) -> pb::header_mutation::v3::HeaderMutationPerRoute {
        pb::header_mutation::v3::HeaderMutationPerRoute { mutations: Some(self.encode()) }
    }

    fn encode(&self) -> pb::header_mutation::v3::Mutations {
        pb::header_mutation::v3::Mutations {
            request_mutations: Mutation::encode_all(&self.request),
            response_mutations: Mutation::encode_all(&self.response),
            request_trailers_mutations: Mutation::encode_all(&self.request_trailers),
            response_trailers_mutations: Mutation::encode_all(&self.response_trailers),
            ..Default::default()
        }
    }
}

fn decode(
    value: Option<&pb::header_mutation::v3::Mutations>,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<HeaderMutation, Error> {
    use pb::header_mutation::v3::Mutations as Proto;
    let Some(value) = value else { return Ok(HeaderMutation::default()) };
    audit!(value, Proto as Proto, audit, path;
        supported: request_mutations, response_mutations, response_trailers_mutations, request_trailers_mutations;
        ignored: ;
        refused: query_parameter_mutations);
    Ok(HeaderMutation {
        request: Mutation::decode_all(&value.request_mutations, &path.field("request_mutations"))?,
        response: Mutation::decode_all(&value.response_mutations, &path.field("response_mutations"))?,
        request_trailers: Mutation::decode_all(
            &value.request_trailers_mutations,
            &path.field("request_trailers_mutations"),
        )?,
        response_trailers: Mutation::decode_all(
            &value.response_trailers_mutations,
            &path.field("response_trailers_mutations"),
        )?,
        most_specific_wins: false,
    })
}

impl FilterMessage for HeaderMutation {
    const NAME: &'static str = "envoy.filters.http.header_mutation";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        if let Some(message) = super::message::<pb::header_mutation::v3::HeaderMutation>(any, path)? {
            return Self::decode_filter(&message, audit, path).map(Some);
        }
        let message: Option<pb::header_mutation::v3::HeaderMutationPerRoute> = super::message(any, path)?;
        message.map(|message| Self::decode_route(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode_filter())
    }

    fn to_route_any(&self) -> Any {
        convert::any(&self.encode_route())
    }
}
