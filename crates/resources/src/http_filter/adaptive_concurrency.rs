//! Configuration of the adaptive concurrency filter (`envoy.filters.http.adaptive_concurrency`). Source: Envoy, "Adaptive
//! Concurrency".

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::{Audit, Error, Path};

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
    fn decode(
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

    fn encode(&self) -> pb::adaptive_concurrency::v3::AdaptiveConcurrency {
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
            concurrency_limit_exceeded_status: Some(super::proto_status(self.status)),
            concurrency_controller_config: Some(C::GradientControllerConfig(gradient)),
        }
    }
}

impl FilterMessage for AdaptiveConcurrency {
    const NAME: &'static str = "envoy.filters.http.adaptive_concurrency";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::adaptive_concurrency::v3::AdaptiveConcurrency> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}
