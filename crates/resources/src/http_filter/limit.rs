//! Filters that refuse what is too much: local_ratelimit, adaptive_concurrency, admission_control.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http as pb;

use crate::convert;
use crate::header::HeaderEdits;
use crate::{Audit, Error, Path};

/// Parts of a million.
pub type Share = u32;

/// A bucket of tokens, of which every request takes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
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

impl RateLimit {
    pub(super) fn decode(
        value: &pb::local_ratelimit::v3::LocalRateLimit,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::local_ratelimit::v3::LocalRateLimit;
        audit!(value, LocalRateLimit as LocalRateLimit, audit, path;
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
}

impl RateLimit {
    pub(super) fn encode(&self) -> pb::local_ratelimit::v3::LocalRateLimit {
        let bucket = |most| envoy_types::pb::envoy::r#type::v3::TokenBucket {
            max_tokens: most,
            tokens_per_fill: Some(convert::wrap_u32(self.fill)),
            fill_interval: Some(convert::proto_duration(self.interval)),
        };
        pb::local_ratelimit::v3::LocalRateLimit {
            stat_prefix: self.prefix.clone(),
            status: Some(proto_status(self.status)),
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

fn proto_status(status: u16) -> envoy_types::pb::envoy::r#type::v3::HttpStatus {
    envoy_types::pb::envoy::r#type::v3::HttpStatus { code: status.into() }
}

/// As many requests at once as the upstream answers about as quickly as when it has little to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// True when it does anything.
    pub enabled: bool,
    /// The quantile of the times that is compared, in per cent.
    pub percentile: u32,
    /// Most requests at once.
    pub most: u32,
    /// The interval at which the limit is worked out.
    pub update: Duration,
    /// The interval at which the shortest time is measured anew; `None` takes `fixed`.
    pub measure_every: Option<Duration>,
    /// The shortest time, when it is given.
    pub fixed: Option<Duration>,
    /// Requests whose times make the shortest time.
    pub samples: u32,
    /// Most that chance adds to `measure_every`, in per cent.
    pub jitter: u32,
    /// The limit while it is measured.
    pub least: u32,
    /// The lowest limit that is worked out; `least` unless it is said.
    pub floor: u32,
    /// The time above the shortest that is still good, in per cent.
    pub buffer: u32,
    /// The status of the response to a refused request.
    pub status: u16,
}

impl AdaptiveConcurrency {
    pub(super) fn decode(
        value: &pb::adaptive_concurrency::v3::AdaptiveConcurrency,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::adaptive_concurrency::v3::AdaptiveConcurrency;
        use pb::adaptive_concurrency::v3::adaptive_concurrency::ConcurrencyControllerConfig as C;
        audit!(value, AdaptiveConcurrency as AdaptiveConcurrency, audit, path;
            supported: enabled, concurrency_limit_exceeded_status, concurrency_controller_config;
            ignored: ; refused: );
        let Some(C::GradientControllerConfig(gradient)) = &value.concurrency_controller_config else {
            return Err(path.error("needs gradient_controller_config"));
        };
        let here = path.field("gradient_controller_config");
        let limit = gradient.concurrency_limit_params.as_ref();
        let limit = limit.ok_or_else(|| here.field("concurrency_limit_params").error("is required"))?;
        let shortest = gradient.min_rtt_calc_params.as_ref();
        let shortest = shortest.ok_or_else(|| here.field("min_rtt_calc_params").error("is required"))?;
        let update =
            convert::optional_duration(limit.concurrency_update_interval.as_ref(), &here)?.filter(|d| !d.is_zero());
        let every = convert::optional_duration(shortest.interval.as_ref(), &here)?.filter(|d| !d.is_zero());
        let fixed = convert::optional_duration(shortest.fixed_value.as_ref(), &here)?.filter(|d| !d.is_zero());
        if every.is_none() == fixed.is_none() {
            return Err(here.field("min_rtt_calc_params").error("needs either interval or fixed_value"));
        }
        let percent = |v: &Option<envoy_types::pb::envoy::r#type::v3::Percent>, default: u32| {
            v.as_ref().map_or(default, |p| p.value.clamp(0.0, 100.0) as u32)
        };
        let number = |v: &Option<envoy_types::pb::google::protobuf::UInt32Value>, default| {
            v.as_ref().map_or(default, |v| v.value)
        };
        let least = number(&shortest.min_concurrency, 3);
        let status = value.concurrency_limit_exceeded_status.as_ref().map_or(503, |s| s.code);
        Ok(Self {
            enabled: value.enabled.as_ref().is_none_or(|f| convert::runtime_flag(f, audit)),
            percentile: percent(&gradient.sample_aggregate_percentile, 50),
            most: number(&limit.max_concurrency_limit, 1000),
            update: update.ok_or_else(|| here.field("concurrency_update_interval").error("is required"))?,
            measure_every: every,
            fixed,
            samples: number(&shortest.request_count, 50),
            jitter: percent(&shortest.jitter, 15),
            least,
            floor: number(&limit.min_concurrency_limit, least),
            buffer: percent(&shortest.buffer, 25),
            status: u16::try_from(status).ok().filter(|s| (400..600).contains(s)).unwrap_or(503),
        })
    }
}

impl AdaptiveConcurrency {
    pub(super) fn encode(&self) -> pb::adaptive_concurrency::v3::AdaptiveConcurrency {
        use pb::adaptive_concurrency::v3 as pba;
        use pba::adaptive_concurrency::ConcurrencyControllerConfig as C;
        use pba::gradient_controller_config::{ConcurrencyLimitCalculationParams, MinimumRttCalculationParams};
        let gradient = pba::GradientControllerConfig {
            sample_aggregate_percentile: Some(convert::proto_percent(self.percentile)),
            concurrency_limit_params: Some(ConcurrencyLimitCalculationParams {
                max_concurrency_limit: Some(convert::wrap_u32(self.most)),
                concurrency_update_interval: Some(convert::proto_duration(self.update)),
                min_concurrency_limit: Some(convert::wrap_u32(self.floor)),
            }),
            min_rtt_calc_params: Some(MinimumRttCalculationParams {
                interval: self.measure_every.map(convert::proto_duration),
                fixed_value: self.fixed.map(convert::proto_duration),
                request_count: Some(convert::wrap_u32(self.samples)),
                jitter: Some(convert::proto_percent(self.jitter)),
                min_concurrency: Some(convert::wrap_u32(self.least)),
                buffer: Some(convert::proto_percent(self.buffer)),
            }),
        };
        pba::AdaptiveConcurrency {
            enabled: convert::proto_off(self.enabled, "adaptive_concurrency.enabled"),
            concurrency_limit_exceeded_status: Some(proto_status(self.status)),
            concurrency_controller_config: Some(C::GradientControllerConfig(gradient)),
        }
    }
}

/// Refuses a part of requests while too many fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionControl {
    /// True when it does anything.
    pub enabled: bool,
    /// The time for which outcomes count.
    pub window: Duration,
    /// In thousandths: more refuses more, sooner.
    pub aggression: u32,
    /// Per cent of successes that is good enough.
    pub threshold: u32,
    /// Requests a second below which nothing is refused.
    pub least_rate: u32,
    /// Most that is refused, in per cent.
    pub most_refused: u32,
    /// HTTP statuses that are successes, as ranges without their ends.
    pub good: Vec<(u16, u16)>,
    /// gRPC statuses that are successes.
    pub good_grpc: Vec<u32>,
}

impl AdmissionControl {
    pub(super) fn decode(
        value: &pb::admission_control::v3::AdmissionControl,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::admission_control::v3::AdmissionControl;
        use pb::admission_control::v3::admission_control::EvaluationCriteria as E;
        audit!(value, AdmissionControl as AdmissionControl, audit, path;
            supported: enabled, sampling_window, aggression, sr_threshold, rps_threshold, max_rejection_probability,
                evaluation_criteria;
            ignored: ; refused: );
        let Some(E::SuccessCriteria(criteria)) = &value.evaluation_criteria else {
            return Err(path.error("needs success_criteria"));
        };
        let window = convert::optional_duration(value.sampling_window.as_ref(), &path.field("sampling_window"))?;
        let percent = |v: &Option<core::RuntimePercent>, default: u32| {
            let value = v.as_ref().and_then(|p| p.default_value.as_ref()).map(|p| p.value);
            value.map_or(default, |p| p.clamp(0.0, 100.0) as u32)
        };
        let percents =
            [("sr_threshold", &value.sr_threshold), ("max_rejection_probability", &value.max_rejection_probability)];
        for (field, percent) in percents {
            convert::unheeded(percent.as_ref().map_or("", |p| &p.runtime_key), audit, &path.field(field));
        }
        convert::unheeded(value.aggression.as_ref().map_or("", |a| &a.runtime_key), audit, &path.field("aggression"));
        convert::unheeded(
            value.rps_threshold.as_ref().map_or("", |r| &r.runtime_key),
            audit,
            &path.field("rps_threshold"),
        );
        let statuses = criteria.http_criteria.as_ref().map(|c| c.http_success_status.as_slice()).unwrap_or_default();
        let good: Vec<(u16, u16)> =
            statuses.iter().filter_map(|r| Some((u16::try_from(r.start).ok()?, u16::try_from(r.end).ok()?))).collect();
        let grpc = criteria.grpc_criteria.as_ref().map(|c| c.grpc_success_status.clone()).unwrap_or_default();
        Ok(Self {
            enabled: value.enabled.as_ref().is_none_or(|f| convert::runtime_flag(f, audit)),
            window: window.unwrap_or(Duration::from_secs(30)),
            aggression: value.aggression.as_ref().map_or(1000, |a| convert::thousandths(a.default_value.max(1.0))),
            threshold: percent(&value.sr_threshold, 95).max(1),
            least_rate: value.rps_threshold.as_ref().map_or(0, |r| r.default_value),
            most_refused: percent(&value.max_rejection_probability, 80),
            good: if good.is_empty() { vec![(100, 500)] } else { good },
            good_grpc: if grpc.is_empty() { vec![0] } else { grpc },
        })
    }
}

impl AdmissionControl {
    pub(super) fn encode(&self) -> pb::admission_control::v3::AdmissionControl {
        use pb::admission_control::v3 as pba;
        use pba::admission_control::{EvaluationCriteria as E, SuccessCriteria};
        let percent = |percent: u32, key: &str| core::RuntimePercent {
            default_value: Some(convert::proto_percent(percent)),
            runtime_key: format!("admission_control.{key}"),
        };
        let range = |(start, end): &(u16, u16)| envoy_types::pb::envoy::r#type::v3::Int32Range {
            start: (*start).into(),
            end: (*end).into(),
        };
        let criteria = SuccessCriteria {
            http_criteria: Some(pba::admission_control::success_criteria::HttpCriteria {
                http_success_status: self.good.iter().map(range).collect(),
            }),
            grpc_criteria: Some(pba::admission_control::success_criteria::GrpcCriteria {
                grpc_success_status: self.good_grpc.clone(),
            }),
        };
        pba::AdmissionControl {
            enabled: convert::proto_off(self.enabled, "admission_control.enabled"),
            evaluation_criteria: Some(E::SuccessCriteria(criteria)),
            sampling_window: Some(convert::proto_duration(self.window)),
            aggression: Some(core::RuntimeDouble {
                default_value: f64::from(self.aggression) / 1000.0,
                runtime_key: "admission_control.aggression".to_owned(),
            }),
            sr_threshold: Some(percent(self.threshold, "sr_threshold")),
            rps_threshold: Some(core::RuntimeUInt32 {
                default_value: self.least_rate,
                runtime_key: "admission_control.rps_threshold".to_owned(),
            }),
            max_rejection_probability: Some(percent(self.most_refused, "max_rejection_probability")),
        }
    }
}
