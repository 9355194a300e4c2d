//! Configuration of the local rate limit filter (`envoy.filters.http.local_ratelimit`). Source: Envoy, "Local rate limit".

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::header::HeaderEdits;
use crate::{Audit, Error, Path};

/// Parts of a million.
pub type Share = u32;

/// A bucket of tokens, of which every request takes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// Prefix of what is counted.
    pub prefix: String,
    /// The status of the response to a refused request.
    pub status: u16,
    /// Tokens of a full bucket; `None` limits nothing.
    pub most: Option<u32>,
    /// Tokens that come back after each interval.
    pub fill: u32,
    /// The interval.
    pub interval: Duration,
    /// Share of requests that take a token.
    pub enabled: Share,
    /// Share of requests without a token that are refused.
    pub enforced: Share,
    /// Edits to requests that are let through without a token.
    pub unenforced_headers: HeaderEdits,
    /// Edits to the responses to refused ones.
    pub response_headers: HeaderEdits,
    /// True when every connection has a bucket of its own.
    pub per_connection: bool,
    /// True when gRPC clients are told that a resource is exhausted.
    pub resource_exhausted: bool,
}

impl LocalRateLimit {
    fn decode(
        value: &pb::local_ratelimit::v3::LocalRateLimit,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::local_ratelimit::v3::LocalRateLimit as Proto;
        audit!(value, Proto as Proto, audit, path;
            supported: stat_prefix, status, token_bucket, filter_enabled, filter_enforced,
                request_headers_to_add_when_not_enforced, response_headers_to_add, rate_limited_as_resource_exhausted;
            ignored: stage, vh_rate_limits, always_consume_default_token_bucket, max_dynamic_descriptors;
            refused: descriptors, local_rate_limit_per_downstream_connection, local_cluster_rate_limit,
                enable_x_ratelimit_headers, rate_limits, enable_retry_after_header);
        let share = |v: Option<&core::RuntimeFractionalPercent>, field: &'static str| match v {
            None => Ok(0),
            Some(f) => convert::runtime_share(f, audit, &path.field(field)),
        };
        let bucket_path = path.field("token_bucket");
        let bucket = value.token_bucket.as_ref();
        let interval = bucket.and_then(|b| b.fill_interval.as_ref());
        let interval = convert::optional_duration(interval, &bucket_path.field("fill_interval"))?;
        if bucket.is_some() && interval.is_none_or(|i| i < Duration::from_millis(50)) {
            return Err(bucket_path.field("fill_interval").error("must be at least 50 ms"));
        }
        let status = value.status.as_ref().map_or(429, |s| s.code);
        let edits =
            |list: &[core::HeaderValueOption], field: &'static str| HeaderEdits::decode(list, &[], &path.field(field));
        Ok(Self {
            prefix: value.stat_prefix.clone(),
            // Envoy takes 429 instead of anything that is no error.
            status: u16::try_from(status).ok().filter(|s| (400..600).contains(s)).unwrap_or(429),
            most: bucket.map(|b| b.max_tokens),
            fill: bucket.and_then(|b| b.tokens_per_fill.as_ref()).map_or(1, |v| v.value),
            interval: interval.unwrap_or_default(),
            enabled: share(value.filter_enabled.as_ref(), "filter_enabled")?,
            enforced: share(value.filter_enforced.as_ref(), "filter_enforced")?,
            unenforced_headers: edits(
                &value.request_headers_to_add_when_not_enforced,
                "request_headers_to_add_when_not_enforced",
            )?,
            response_headers: edits(&value.response_headers_to_add, "response_headers_to_add")?,
            per_connection: false,
            resource_exhausted: value.rate_limited_as_resource_exhausted,
        })
    }

    fn encode(&self) -> pb::local_ratelimit::v3::LocalRateLimit {
        let bucket = |most| envoy_types::pb::envoy::r#type::v3::TokenBucket {
            max_tokens: most,
            tokens_per_fill: Some(convert::wrap_u32(self.fill)),
            fill_interval: Some(convert::proto_duration(self.interval)),
        };
        pb::local_ratelimit::v3::LocalRateLimit {
            stat_prefix: self.prefix.clone(),
            status: Some(super::proto_status(self.status)),
            token_bucket: self.most.map(bucket),
            filter_enabled: Some(convert::proto_share(self.enabled)),
            filter_enforced: Some(convert::proto_share(self.enforced)),
            request_headers_to_add_when_not_enforced: self.unenforced_headers.encode_add(),
            response_headers_to_add: self.response_headers.encode_add(),
            rate_limited_as_resource_exhausted: self.resource_exhausted,
            ..Default::default()
        }
    }
}

impl FilterMessage for LocalRateLimit {
    const NAME: &'static str = "envoy.filters.http.local_ratelimit";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::local_ratelimit::v3::LocalRateLimit> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}
