//! What a route says about hashing and mirroring, and the sources of randomness.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::route_action as pba;

use crate::convert;
use crate::header::Mutation;
use crate::matcher::RegexRewrite;
use crate::{Audit, Error, Path};

/// What a request's hash is made of, for consistent hashing and sticky splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    /// Where the value comes from.
    pub source: HashSource,
    /// Whether a value found here makes the rest of the list void.
    pub terminal: bool,
}

/// Where a hashed value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashSource {
    /// A header, perhaps rewritten first.
    Header(String, Option<RegexRewrite>),
    /// A cookie; with a time to live it is issued when absent.
    Cookie(HashCookie),
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(String),
}

/// A cookie that makes requests stick.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashCookie {
    /// Name.
    pub name: String,
    /// How long it lives; zero is a session cookie, `None` never issues one.
    pub ttl: Option<Duration>,
    /// Its path, may be empty.
    pub path: String,
    /// Further attributes.
    pub attributes: Vec<(String, String)>,
}

/// A copy of requests to another cluster, whose answer nobody waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    /// The cluster.
    pub cluster: String,
    /// A header that names it instead; empty when there is none.
    pub cluster_header: String,
    /// Share of requests, in parts of a million.
    pub share: u32,
    /// Whether `-shadow` is kept off the authority.
    pub plain_host: bool,
    /// The copy's authority.
    pub host_rewrite: Option<String>,
    /// Edits to the copy.
    pub headers: Vec<Mutation>,
}

/// Where the number that draws one of several clusters comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RandomSource {
    /// Chance.
    #[default]
    Draw,
    /// A header with a number; without one, chance.
    Header(String),
    /// The request's hash; without one, chance.
    Hash,
}

impl HashPolicy {
    pub(crate) fn decode(value: &pba::HashPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pba::hash_policy::PolicySpecifier as P;
        audit!(value, pba::HashPolicy as pba::HashPolicy, audit, path;
            supported: terminal, policy_specifier; ignored: ; refused: );
        let source = match &value.policy_specifier {
            Some(P::Header(h)) => {
                let rewrite = h.regex_rewrite.as_ref().map(|r| RegexRewrite::decode(r, &path.field("regex_rewrite")));
                HashSource::Header(h.header_name.to_ascii_lowercase(), rewrite.transpose()?)
            }
            Some(P::Cookie(c)) => HashSource::Cookie(HashCookie {
                name: c.name.clone(),
                ttl: convert::optional_duration(c.ttl.as_ref(), &path.field("ttl"))?,
                path: c.path.clone(),
                attributes: c.attributes.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
            }),
            Some(P::ConnectionProperties(c)) if c.source_ip => HashSource::SourceIp,
            Some(P::QueryParameter(q)) => HashSource::Query(q.name.clone()),
            Some(P::FilterState(_)) => return Err(Audit::refuse(path, "filter_state")),
            Some(P::ConnectionProperties(_)) | None => return Err(path.error("needs a source of the hash")),
        };
        Ok(Self { source, terminal: value.terminal })
    }

    pub(crate) fn encode(&self) -> pba::HashPolicy {
        use pba::hash_policy::{self as pbh, PolicySpecifier as P};
        let specifier = match &self.source {
            HashSource::Header(name, rewrite) => P::Header(pbh::Header {
                header_name: name.clone(),
                regex_rewrite: rewrite.as_ref().map(RegexRewrite::encode),
            }),
            HashSource::Cookie(cookie) => P::Cookie(pbh::Cookie {
                name: cookie.name.clone(),
                ttl: cookie.ttl.map(convert::proto_duration),
                path: cookie.path.clone(),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|(name, value)| pbh::CookieAttribute { name: name.clone(), value: value.clone() })
                    .collect(),
            }),
            HashSource::SourceIp => P::ConnectionProperties(pbh::ConnectionProperties { source_ip: true }),
            HashSource::Query(name) => P::QueryParameter(pbh::QueryParameter { name: name.clone() }),
        };
        pba::HashPolicy { terminal: self.terminal, policy_specifier: Some(specifier) }
    }
}

impl Mirror {
    pub(super) fn decode(value: &pba::RequestMirrorPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pba::RequestMirrorPolicy as pba::RequestMirrorPolicy, audit, path;
            supported: cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append,
                request_headers_mutations, host_rewrite_literal;
            ignored: trace_sampled;
            refused: );
        let share = match &value.runtime_fraction {
            Some(f) => convert::runtime_share(f, audit, &path.field("runtime_fraction"))?,
            None => 1_000_000,
        };
        if value.cluster.is_empty() == value.cluster_header.is_empty() {
            return Err(path.error("needs cluster or cluster_header"));
        }
        Ok(Self {
            cluster: value.cluster.clone(),
            cluster_header: value.cluster_header.to_ascii_lowercase(),
            share,
            plain_host: value.disable_shadow_host_suffix_append,
            host_rewrite: (!value.host_rewrite_literal.is_empty()).then(|| value.host_rewrite_literal.clone()),
            headers: Mutation::decode_all(&value.request_headers_mutations, &path.field("request_headers_mutations"))?,
        })
    }

    pub(super) fn encode(&self) -> pba::RequestMirrorPolicy {
        pba::RequestMirrorPolicy {
            cluster: self.cluster.clone(),
            cluster_header: self.cluster_header.clone(),
            runtime_fraction: Some(core::RuntimeFractionalPercent {
                default_value: Some(convert::proto_fraction(self.share)),
                runtime_key: String::new(),
            }),
            disable_shadow_host_suffix_append: self.plain_host,
            host_rewrite_literal: self.host_rewrite.clone().unwrap_or_default(),
            request_headers_mutations: Mutation::encode_all(&self.headers),
            ..Default::default()
        }
    }
}

impl RandomSource {
    pub(super) fn decode(value: &pb::WeightedCluster) -> Self {
        use pb::weighted_cluster::RandomValueSpecifier as R;
        match &value.random_value_specifier {
            Some(R::HeaderName(name)) => Self::Header(name.to_ascii_lowercase()),
            Some(R::UseHashPolicy(on)) if on.value => Self::Hash,
            Some(R::UseHashPolicy(_)) | None => Self::Draw,
        }
    }
}
