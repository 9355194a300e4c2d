//! Retry policy: when to try again, how often, how long to wait.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as pb;

use crate::convert;
use crate::matcher::{self, HeaderMatcher};
use crate::{Audit, Error, Path};

/// Conditions under which an attempt counts as failed and may be repeated (Envoy `x-envoy-retry-on`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// Any 5xx, reset, or no response at all.
    pub server_error: bool,
    /// 502, 503, 504.
    pub gateway_error: bool,
    /// The upstream reset or closed before answering.
    pub reset: bool,
    /// The same, only when the request was not sent yet.
    pub reset_before_request: bool,
    /// No connection could be made.
    pub connect_failure: bool,
    /// HTTP/2 REFUSED_STREAM.
    pub refused_stream: bool,
    /// 409.
    pub retriable_4xx: bool,
    /// A status from `retriable_status_codes`.
    pub retriable_status_codes: bool,
    /// A response with one of `retriable_headers`.
    pub retriable_headers: bool,
    /// A response that says `x-envoy-ratelimited`.
    pub rate_limited: bool,
    /// gRPC status codes, as bits: 1 << code.
    pub grpc: u32,
}

/// Waits that the upstream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeaders {
    /// Header names, with whether the value is a time (seconds since 1970) instead of a number of seconds.
    pub headers: Vec<(String, bool)>,
    /// Longer waits are not believed.
    pub most: Duration,
}

/// The policy for retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The conditions.
    pub on: RetryOn,
    /// Attempts beyond the first.
    pub attempts: u32,
    /// Time for one attempt; `None` means only the route's timeout counts.
    pub per_try_timeout: Option<Duration>,
    /// Statuses that [`RetryOn::retriable_status_codes`] speaks of.
    pub status_codes: Vec<u16>,
    /// Base of the exponential, fully jittered back-off.
    pub base_interval: Duration,
    /// Its cap; ten times the base unless given.
    pub max_interval: Duration,
    /// True when a host that was tried is avoided.
    pub avoid_previous_hosts: bool,
    /// The number of times that a pick is repeated to avoid one.
    pub host_selection_attempts: u32,
    /// Responses with any of these are tried again, when [`RetryOn::retriable_headers`] says so.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests with any of these are tried again; all, when empty.
    pub request_headers: Vec<HeaderMatcher>,
    /// Waits that the upstream asks for.
    pub reset_headers: Option<ResetHeaders>,
    /// Silence of the upstream after which an attempt is given up.
    pub per_try_idle_timeout: Option<Duration>,
    /// After how many attempts priorities that were tried are avoided; `None` is never.
    pub previous_priorities: Option<u32>,
}

/// Names of `retry_on`, with what they switch on.
impl RetryOn {
    /// Parses the comma-separated list; unknown names are returned.
    #[must_use]
    pub fn parse(list: &str) -> (Self, Vec<String>) {
        let mut on = Self::default();
        let mut unknown = Vec::new();
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match name {
                "5xx" => on.server_error = true,
                "gateway-error" => on.gateway_error = true,
                "reset" => on.reset = true,
                "reset-before-request" => on.reset_before_request = true,
                "connect-failure" => on.connect_failure = true,
                "refused-stream" => on.refused_stream = true,
                "retriable-4xx" => on.retriable_4xx = true,
                "retriable-status-codes" => on.retriable_status_codes = true,
                "retriable-headers" => on.retriable_headers = true,
                "envoy-ratelimited" => on.rate_limited = true,
                "cancelled" => on.grpc |= 1 << 1,
                "deadline-exceeded" => on.grpc |= 1 << 4,
                "resource-exhausted" => on.grpc |= 1 << 8,
                "internal" => on.grpc |= 1 << 13,
                "unavailable" => on.grpc |= 1 << 14,
                other => unknown.push(other.to_owned()),
            }
        }
        (on, unknown)
    }

    /// Returns true for a list of conditions of HTTP alone, as `x-envoy-retry-on` has it.
    #[must_use]
    pub fn is_http_list(list: &str) -> bool {
        let (on, unknown) = Self::parse(list);
        unknown.is_empty() && on.grpc == 0
    }

    /// Returns true for a list of conditions of gRPC alone, as `x-envoy-retry-grpc-on` has it.
    #[must_use]
    pub fn is_grpc_list(list: &str) -> bool {
        let (on, unknown) = Self::parse(list);
        unknown.is_empty() && on == Self { grpc: on.grpc, ..Self::default() }
    }

    /// The list that [`RetryOn::parse`] reads.
    #[must_use]
    pub fn to_list(&self) -> String {
        let names = [
            (self.server_error, "5xx"),
            (self.gateway_error, "gateway-error"),
            (self.reset, "reset"),
            (self.reset_before_request, "reset-before-request"),
            (self.connect_failure, "connect-failure"),
            (self.refused_stream, "refused-stream"),
            (self.grpc & (1 << 14) != 0, "unavailable"),
            (self.grpc & (1 << 1) != 0, "cancelled"),
            (self.grpc & (1 << 4) != 0, "deadline-exceeded"),
            (self.grpc & (1 << 8) != 0, "resource-exhausted"),
            (self.grpc & (1 << 13) != 0, "internal"),
            (self.retriable_4xx, "retriable-4xx"),
            (self.retriable_status_codes, "retriable-status-codes"),
            (self.retriable_headers, "retriable-headers"),
            (self.rate_limited, "envoy-ratelimited"),
        ];
        let list: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        list.join(",")
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            attempts: 1,
            per_try_timeout: None,
            status_codes: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            avoid_previous_hosts: false,
            host_selection_attempts: 1,
            headers: Vec::new(),
            request_headers: Vec::new(),
            reset_headers: None,
            per_try_idle_timeout: None,
            previous_priorities: None,
        }
    }
}

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

impl RetryPolicy {
    pub(crate) fn decode(value: &pb::RetryPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::RetryPolicy as pb::RetryPolicy, audit, path;
            supported: retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
                retriable_status_codes, retry_back_off, retriable_headers, retriable_request_headers,
                rate_limited_retry_back_off, per_try_idle_timeout, retry_priority;
            ignored: refresh_cluster_on_retry;
            refused: retry_options_predicates);
        let (on, unknown) = RetryOn::parse(&value.retry_on);
        if !unknown.is_empty() {
            audit.ignore(path, "retry_on");
        }
        for (i, predicate) in value.retry_host_predicate.iter().enumerate() {
            if predicate.name != PREVIOUS_HOSTS {
                return Err(path.field("retry_host_predicate").index(i).error("only previous_hosts is supported"));
            }
        }
        let back_off = value.retry_back_off.as_ref();
        let back_off_path = path.field("retry_back_off");
        let base = convert::optional_duration(back_off.and_then(|b| b.base_interval.as_ref()), &back_off_path)?
            .unwrap_or(Duration::from_millis(25));
        let max = convert::optional_duration(back_off.and_then(|b| b.max_interval.as_ref()), &back_off_path)?;
        Ok(Self {
            on,
            attempts: value.num_retries.as_ref().map_or(1, |n| n.value),
            per_try_timeout: convert::optional_duration(
                value.per_try_timeout.as_ref(),
                &path.field("per_try_timeout"),
            )?
            .filter(|d| !d.is_zero()),
            status_codes: value.retriable_status_codes.iter().filter_map(|c| u16::try_from(*c).ok()).collect(),
            base_interval: base,
            max_interval: max.unwrap_or(base * 10),
            avoid_previous_hosts: !value.retry_host_predicate.is_empty(),
            host_selection_attempts: u32::try_from(value.host_selection_retry_max_attempts).unwrap_or(1).max(1),
            headers: matcher::decode_headers(&value.retriable_headers, &path.field("retriable_headers"))?,
            request_headers: matcher::decode_headers(
                &value.retriable_request_headers,
                &path.field("retriable_request_headers"),
            )?,
            reset_headers: reset_headers(value, &path.field("rate_limited_retry_back_off"))?,
            per_try_idle_timeout: convert::optional_duration(
                value.per_try_idle_timeout.as_ref(),
                &path.field("per_try_idle_timeout"),
            )?
            .filter(|d| !d.is_zero()),
            previous_priorities: value
                .retry_priority
                .as_ref()
                .map(|p| priorities(p, &path.field("retry_priority")))
                .transpose()?,
        })
    }

    pub(crate) fn encode(&self) -> pb::RetryPolicy {
        let predicate = pb::retry_policy::RetryHostPredicate {
            name: PREVIOUS_HOSTS.to_owned(),
            config_type: Some(pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig(convert::any(
                &envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate {},
            ))),
        };
        pb::RetryPolicy {
            retry_on: self.on.to_list(),
            num_retries: Some(convert::wrap_u32(self.attempts)),
            per_try_timeout: self.per_try_timeout.map(convert::proto_duration),
            retriable_status_codes: self.status_codes.iter().map(|c| u32::from(*c)).collect(),
            retry_back_off: Some(pb::retry_policy::RetryBackOff {
                base_interval: Some(convert::proto_duration(self.base_interval)),
                max_interval: Some(convert::proto_duration(self.max_interval)),
            }),
            retry_host_predicate: if self.avoid_previous_hosts { vec![predicate] } else { Vec::new() },
            host_selection_retry_max_attempts: self.host_selection_attempts.into(),
            retriable_headers: self.headers.iter().map(HeaderMatcher::encode).collect(),
            retriable_request_headers: self.request_headers.iter().map(HeaderMatcher::encode).collect(),
            per_try_idle_timeout: self.per_try_idle_timeout.map(convert::proto_duration),
            rate_limited_retry_back_off: self.reset_headers.as_ref().map(|reset| {
                let header = |(name, unix): &(String, bool)| pb::retry_policy::ResetHeader {
                    name: name.clone(),
                    format: i32::from(*unix),
                };
                pb::retry_policy::RateLimitedRetryBackOff {
                    reset_headers: reset.headers.iter().map(header).collect(),
                    max_interval: Some(convert::proto_duration(reset.most)),
                }
            }),
            retry_priority: self.previous_priorities.map(|after| {
                use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
                let config = PreviousPrioritiesConfig { update_frequency: i32::try_from(after).unwrap_or(i32::MAX) };
                pb::retry_policy::RetryPriority {
                    name: "envoy.retry_priorities.previous_priorities".to_owned(),
                    config_type: Some(pb::retry_policy::retry_priority::ConfigType::TypedConfig(convert::any(&config))),
                }
            }),
            ..Default::default()
        }
    }
}

fn reset_headers(value: &pb::RetryPolicy, path: &Path<'_>) -> Result<Option<ResetHeaders>, Error> {
    let Some(limited) = &value.rate_limited_retry_back_off else { return Ok(None) };
    let most = convert::optional_duration(limited.max_interval.as_ref(), &path.field("max_interval"))?;
    Ok(Some(ResetHeaders {
        headers: limited.reset_headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.format == 1)).collect(),
        most: most.unwrap_or(Duration::from_secs(300)),
    }))
}

fn priorities(value: &pb::retry_policy::RetryPriority, path: &Path<'_>) -> Result<u32, Error> {
    use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let Some(pb::retry_policy::retry_priority::ConfigType::TypedConfig(any)) = &value.config_type else {
        return Err(path.error("needs typed_config"));
    };
    let config: PreviousPrioritiesConfig = convert::from_any(any, path)?;
    Ok(u32::try_from(config.update_frequency).unwrap_or(1).max(1))
}
