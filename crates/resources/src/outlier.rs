//! Outlier detection of a cluster: when an endpoint that misbehaves gets no more requests, and for how long.
//!
//! Defaults are those of Envoy's `config.cluster.v3.OutlierDetection`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::convert;
use crate::{Audit, Error, Path};

/// Envoy's default for the longest ejection.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// A way of finding outliers that an event can trigger: how many in a row, and how often that has consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consecutive {
    /// Failures in a row; 0 is never.
    pub failures: u32,
    /// Per cent of detections that eject.
    pub enforced: u32,
}

/// A way of finding outliers by comparing endpoints after every interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Per cent of detections that eject.
    pub enforced: u32,
    /// Endpoints with enough requests that it takes.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
    /// Success rate: thousandths of a standard deviation below the mean. Failure percentage: the percentage.
    pub threshold: u32,
}

/// The rules by which an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Any 5xx, and failures of the connection unless they are split off.
    pub server_errors: Consecutive,
    /// 502, 503 and 504, and failures of the connection unless they are split off.
    pub gateway_failures: Consecutive,
    /// Failures of the connection, when they are split off.
    pub local_failures: Consecutive,
    /// Success rate far below the others'.
    pub success_rate: Compared,
    /// Too many failures.
    pub failure_percentage: Compared,
    /// True when failures of the connection count for themselves.
    pub split_local: bool,
    /// Time between comparisons, and before an ejection can end.
    pub interval: Duration,
    /// Time of the first ejection; the n-th takes n times as long.
    pub base_ejection_time: Duration,
    /// Longest ejection.
    pub max_ejection_time: Duration,
    /// Most added at random, so that endpoints do not all come back at once.
    pub jitter: Duration,
    /// Per cent of endpoints that may be ejected.
    pub max_ejection_percent: u32,
    /// True when one endpoint may be ejected whatever that percentage is.
    pub always_one: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        let compared =
            |enforced, request_volume, threshold| Compared { enforced, minimum_hosts: 5, request_volume, threshold };
        Self {
            server_errors: Consecutive { failures: 5, enforced: 100 },
            gateway_failures: Consecutive { failures: 5, enforced: 0 },
            local_failures: Consecutive { failures: 5, enforced: 100 },
            success_rate: compared(100, 100, 1900),
            failure_percentage: compared(0, 50, 85),
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: LONGEST_EJECTION,
            jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_one: false,
        }
    }
}

impl OutlierDetection {
    pub(crate) fn from_proto(value: &pb::OutlierDetection, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::OutlierDetection as pb::OutlierDetection, audit, path;
            supported: consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx,
                enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume,
                success_rate_stdev_factor, consecutive_gateway_failure, enforcing_consecutive_gateway_failure,
                split_external_local_origin_errors, consecutive_local_origin_failure,
                enforcing_consecutive_local_origin_failure,
                failure_percentage_threshold, enforcing_failure_percentage, failure_percentage_minimum_hosts,
                failure_percentage_request_volume, max_ejection_time, max_ejection_time_jitter,
                always_eject_one_host;
            ignored: enforcing_local_origin_success_rate, enforcing_failure_percentage_local_origin, successful_active_health_check_uneject_host;
            refused: monitors, detect_degraded_hosts);
        let defaults = Self::default();
        let number = |value: &Option<UInt32Value>, default: u32| value.as_ref().map_or(default, |v| v.value);
        let percent = |value: &Option<UInt32Value>, default: u32, name: &str| match number(value, default) {
            percent @ 0..=100 => Ok(percent),
            other => Err(path.field(name).error(format!("{other} is more than 100 per cent"))),
        };
        let time = |value: &Option<_>, default: Duration, name: &str| {
            convert::optional_duration(value.as_ref(), &path.field(name)).map(|v| v.unwrap_or(default))
        };
        let interval = time(&value.interval, defaults.interval, "interval")?;
        if interval.is_zero() {
            return Err(path.field("interval").error("must be more than 0"));
        }
        let base_ejection_time = time(&value.base_ejection_time, defaults.base_ejection_time, "base_ejection_time")?;
        let max_ejection_time = time(&value.max_ejection_time, defaults.max_ejection_time, "max_ejection_time")?;
        let consecutive = |failures, enforced, default: Consecutive, name: &str| {
            let enforced = percent(enforced, default.enforced, name)?;
            Ok::<_, Error>(Consecutive { failures: number(failures, default.failures), enforced })
        };
        Ok(Self {
            server_errors: consecutive(
                &value.consecutive_5xx,
                &value.enforcing_consecutive_5xx,
                defaults.server_errors,
                "enforcing_consecutive_5xx",
            )?,
            gateway_failures: consecutive(
                &value.consecutive_gateway_failure,
                &value.enforcing_consecutive_gateway_failure,
                defaults.gateway_failures,
                "enforcing_consecutive_gateway_failure",
            )?,
            local_failures: consecutive(
                &value.consecutive_local_origin_failure,
                &value.enforcing_consecutive_local_origin_failure,
                defaults.local_failures,
                "enforcing_consecutive_local_origin_failure",
            )?,
            success_rate: Compared {
                enforced: percent(&value.enforcing_success_rate, 100, "enforcing_success_rate")?,
                minimum_hosts: number(&value.success_rate_minimum_hosts, 5),
                request_volume: number(&value.success_rate_request_volume, 100),
                threshold: number(&value.success_rate_stdev_factor, 1900),
            },
            failure_percentage: Compared {
                enforced: percent(&value.enforcing_failure_percentage, 0, "enforcing_failure_percentage")?,
                minimum_hosts: number(&value.failure_percentage_minimum_hosts, 5),
                request_volume: number(&value.failure_percentage_request_volume, 50),
                threshold: percent(&value.failure_percentage_threshold, 85, "failure_percentage_threshold")?,
            },
            split_local: value.split_external_local_origin_errors,
            interval,
            base_ejection_time,
            max_ejection_time: max_ejection_time.max(base_ejection_time),
            jitter: time(&value.max_ejection_time_jitter, Duration::ZERO, "max_ejection_time_jitter")?,
            max_ejection_percent: percent(&value.max_ejection_percent, 10, "max_ejection_percent")?,
            always_one: value.always_eject_one_host.as_ref().is_some_and(|v| v.value),
        })
    }

    pub(crate) fn to_proto(self) -> pb::OutlierDetection {
        let number = |value: u32| Some(convert::wrap_u32(value));
        let time = |value: Duration| Some(convert::proto_duration(value));
        pb::OutlierDetection {
            consecutive_5xx: number(self.server_errors.failures),
            enforcing_consecutive_5xx: number(self.server_errors.enforced),
            consecutive_gateway_failure: number(self.gateway_failures.failures),
            enforcing_consecutive_gateway_failure: number(self.gateway_failures.enforced),
            consecutive_local_origin_failure: number(self.local_failures.failures),
            enforcing_consecutive_local_origin_failure: number(self.local_failures.enforced),
            enforcing_success_rate: number(self.success_rate.enforced),
            success_rate_minimum_hosts: number(self.success_rate.minimum_hosts),
            success_rate_request_volume: number(self.success_rate.request_volume),
            success_rate_stdev_factor: number(self.success_rate.threshold),
            enforcing_failure_percentage: number(self.failure_percentage.enforced),
            failure_percentage_minimum_hosts: number(self.failure_percentage.minimum_hosts),
            failure_percentage_request_volume: number(self.failure_percentage.request_volume),
            failure_percentage_threshold: number(self.failure_percentage.threshold),
            split_external_local_origin_errors: self.split_local,
            interval: time(self.interval),
            base_ejection_time: time(self.base_ejection_time),
            // Said only where it is not what follows from the base: Envoy refuses one below it.
            max_ejection_time: time(self.max_ejection_time)
                .filter(|_| self.max_ejection_time != LONGEST_EJECTION.max(self.base_ejection_time)),
            max_ejection_time_jitter: time(self.jitter),
            max_ejection_percent: number(self.max_ejection_percent),
            always_eject_one_host: Some(convert::wrap_bool(self.always_one)),
            ..Default::default()
        }
    }
}
