//! Filters that change or answer: header_mutation, health_check.

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http as pb;

use crate::convert;
use crate::header::{self, HeaderEdits};
use crate::matcher::{self, HeaderMatcher};
use crate::{Audit, Error, Path};

/// Changes of headers on the way in and out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Of requests.
    pub request: HeaderEdits,
    /// Edits of responses.
    pub response: HeaderEdits,
    /// True when a route's come last, and so win; else the virtual host's do.
    pub most_specific_wins: bool,
}

impl Mutations {
    pub(super) fn decode_filter(
        value: &pb::header_mutation::v3::HeaderMutation,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::header_mutation::v3::HeaderMutation;
        audit!(value, HeaderMutation as HeaderMutation, audit, path;
            supported: mutations, most_specific_header_mutations_wins; ignored: ; refused: );
        let mut mutations = decode(value.mutations.as_ref(), audit, &path.field("mutations"))?;
        mutations.most_specific_wins = value.most_specific_header_mutations_wins;
        Ok(mutations)
    }

    pub(super) fn decode_route(
        value: &pb::header_mutation::v3::HeaderMutationPerRoute,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        decode(value.mutations.as_ref(), audit, &path.field("mutations"))
    }
}

impl Mutations {
    pub(super) fn encode_filter(&self) -> pb::header_mutation::v3::HeaderMutation {
        pb::header_mutation::v3::HeaderMutation {
            mutations: Some(self.encode()),
            most_specific_header_mutations_wins: self.most_specific_wins,
        }
    }

    pub(super) fn encode_route(&self) -> pb::header_mutation::v3::HeaderMutationPerRoute {
        pb::header_mutation::v3::HeaderMutationPerRoute { mutations: Some(self.encode()) }
    }

    fn encode(&self) -> pb::header_mutation::v3::Mutations {
        pb::header_mutation::v3::Mutations {
            request_mutations: self.request.encode_mutations(),
            response_mutations: self.response.encode_mutations(),
            ..Default::default()
        }
    }
}

fn decode(
    value: Option<&pb::header_mutation::v3::Mutations>,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Mutations, Error> {
    use pb::header_mutation::v3::Mutations as Proto;
    let Some(value) = value else { return Ok(Mutations::default()) };
    audit!(value, Proto as Proto, audit, path;
        supported: request_mutations, response_mutations;
        ignored: ;
        refused: query_parameter_mutations, response_trailers_mutations, request_trailers_mutations);
    Ok(Mutations {
        request: header::mutations(&value.request_mutations, &path.field("request_mutations"))?,
        response: header::mutations(&value.response_mutations, &path.field("response_mutations"))?,
        most_specific_wins: false,
    })
}

/// Responses to health checks of this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthAnswer {
    /// The headers by which a health check is known.
    pub headers: Vec<HeaderMatcher>,
    /// True when they go on to the upstream.
    pub pass_through: bool,
    /// The time for which an upstream's response is given again.
    pub cache_time: Duration,
    /// The share of each cluster, in per cent, that must be well.
    pub clusters: Vec<(String, u32)>,
}

impl HealthAnswer {
    pub(super) fn decode(
        value: &pb::health_check::v3::HealthCheck,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::health_check::v3::HealthCheck;
        audit!(value, HealthCheck as HealthCheck, audit, path;
            supported: pass_through_mode, cluster_min_healthy_percentages, headers; ignored: cache_time; refused: );
        let pass = value.pass_through_mode.as_ref();
        let pass = pass.ok_or_else(|| path.field("pass_through_mode").error("is required"))?.value;
        let mut clusters: Vec<(String, u32)> = value
            .cluster_min_healthy_percentages
            .iter()
            .map(|(name, percent)| (name.clone(), percent.value.clamp(0.0, 100.0) as u32))
            .collect();
        clusters.sort();
        if pass && !clusters.is_empty() {
            return Err(path.error("cluster_min_healthy_percentages is only for pass_through_mode false"));
        }
        let cache = convert::optional_duration(value.cache_time.as_ref(), &path.field("cache_time"))?;
        Ok(Self {
            headers: matcher::decode_headers(&value.headers, &path.field("headers"))?,
            pass_through: pass,
            cache_time: cache.unwrap_or_default(),
            clusters,
        })
    }
}

impl HealthAnswer {
    pub(super) fn encode(&self) -> pb::health_check::v3::HealthCheck {
        let percent = |(name, percent): &(String, u32)| (name.clone(), convert::proto_percent(*percent));
        pb::health_check::v3::HealthCheck {
            pass_through_mode: Some(convert::wrap_bool(self.pass_through)),
            cache_time: (!self.cache_time.is_zero()).then(|| convert::proto_duration(self.cache_time)),
            cluster_min_healthy_percentages: self.clusters.iter().map(percent).collect(),
            headers: self.headers.iter().map(HeaderMatcher::encode).collect(),
        }
    }
}
