//! Configuration of the fault filter: forced delays, aborts and slow responses (`envoy.filters.http.fault`). Source: Envoy,
//! "Fault Injection".

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as pbc;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as pb;
use envoy_types::pb::google::protobuf::Any;

use super::{FilterConfig, FilterMessage, HttpFilter};
use crate::convert;
use crate::matcher::{self, HeaderMatcher};
use crate::{Audit, Error, Path};

/// A delay for a share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// The delay.
    pub fixed: Duration,
    /// Share of requests, in parts of a million.
    pub share: u32,
}

/// A response in the upstream's place for a share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// The status of the response.
    pub status: AbortStatus,
    /// Share of requests, in parts of a million.
    pub share: u32,
}

/// The response to an aborted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status, 200 to 599.
    Http(u16),
    /// A gRPC status in a trailers-only response.
    Grpc(u32),
}

/// Faults to inject, drawn independently, before the route's timeout and retries begin to count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Forced delay.
    pub delay: Option<Delay>,
    /// Forced abort, after the delay.
    pub abort: Option<Abort>,
    /// Only requests with these headers.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests to this cluster.
    pub cluster: Option<String>,
    /// Most faults that go on at once; `None` is unlimited.
    pub most_active: Option<u32>,
    /// Share of requests whose headers may ask for a delay, in parts of a million.
    pub asked_delay: Option<u32>,
    /// Share of requests whose headers may ask for an abort.
    pub asked_abort: Option<u32>,
    /// Responses that come slowly.
    pub slow: Option<Slow>,
    /// Share of requests whose headers may ask for a slow response.
    pub asked_slow: Option<u32>,
}

/// A slow response for a share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// Bytes a second.
    pub rate: u64,
    /// Share of requests, in parts of a million.
    pub share: u32,
}

impl Fault {
    /// Returns true when it does nothing to anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let fixed = self.delay.is_some() || self.abort.is_some() || self.slow.is_some();
        let asked = self.asked_delay.is_some() || self.asked_abort.is_some() || self.asked_slow.is_some();
        !fixed && !asked
    }
}

/// The usual name of the fault filter, as key of per-route configuration.
pub const FAULT: &str = "envoy.filters.http.fault";

impl Fault {
    fn decode(value: &pb::HttpFault, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::HttpFault as pb::HttpFault, audit, path;
            supported: delay, abort, headers, upstream_cluster, max_active_faults, response_rate_limit;
            ignored: delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
                max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
                disable_downstream_cluster_stats, filter_metadata;
            refused: downstream_nodes);
        use pb::fault_abort::ErrorType as E;
        use pbc::fault_delay::FaultDelaySecifier as S;
        let (delay_path, abort_path) = (path.field("delay"), path.field("abort"));
        let mut fault = Self {
            headers: matcher::decode_headers(&value.headers, &path.field("headers"))?,
            cluster: (!value.upstream_cluster.is_empty()).then(|| value.upstream_cluster.clone()),
            most_active: value.max_active_faults.as_ref().map(|v| v.value),
            ..Self::default()
        };
        let share = |p: &Option<envoy_types::pb::envoy::r#type::v3::FractionalPercent>, path: &Path<'_>| {
            convert::parts_per_million(p.as_ref(), &path.field("percentage"))
        };
        match &value.delay {
            Some(d) if matches!(d.fault_delay_secifier, Some(S::HeaderDelay(_))) => {
                fault.asked_delay = Some(share(&d.percentage, &delay_path)?);
            }
            Some(d) => fault.delay = Some(decode_delay(d, &delay_path)?),
            None => {}
        }
        match &value.abort {
            Some(a) if matches!(a.error_type, Some(E::HeaderAbort(_))) => {
                fault.asked_abort = Some(share(&a.percentage, &abort_path)?);
            }
            Some(a) => fault.abort = Some(decode_abort(a, &abort_path)?),
            None => {}
        }
        if let Some(limit) = &value.response_rate_limit {
            use pbc::fault_rate_limit::LimitType;
            let path = path.field("response_rate_limit");
            let share = share(&limit.percentage, &path)?;
            match &limit.limit_type {
                Some(LimitType::FixedLimit(fixed)) if fixed.limit_kbps > 0 => {
                    fault.slow = Some(Slow { rate: fixed.limit_kbps.saturating_mul(1024), share });
                }
                Some(LimitType::HeaderLimit(_)) => fault.asked_slow = Some(share),
                _ => return Err(path.error("needs header_limit or a fixed_limit of at least 1 kbps")),
            }
        }
        Ok(fault)
    }

    fn encode(&self) -> pb::HttpFault {
        use pb::fault_abort::{ErrorType as E, HeaderAbort};
        use pbc::fault_delay::{FaultDelaySecifier as S, HeaderDelay};
        use pbc::fault_rate_limit::{FixedLimit, HeaderLimit, LimitType as L};
        let fixed = self.delay.map(|d| (d.share, S::FixedDelay(convert::proto_duration(d.fixed))));
        let delay = fixed.or(self.asked_delay.map(|share| (share, S::HeaderDelay(HeaderDelay {}))));
        let fixed = self.abort.map(|a| match a.status {
            AbortStatus::Http(code) => (a.share, E::HttpStatus(code.into())),
            AbortStatus::Grpc(code) => (a.share, E::GrpcStatus(code)),
        });
        let abort = fixed.or(self.asked_abort.map(|share| (share, E::HeaderAbort(HeaderAbort {}))));
        let fixed = self.slow.map(|s| (s.share, L::FixedLimit(FixedLimit { limit_kbps: s.rate / 1024 })));
        let slow = fixed.or(self.asked_slow.map(|share| (share, L::HeaderLimit(HeaderLimit {}))));
        pb::HttpFault {
            delay: delay.map(|(share, kind)| pbc::FaultDelay {
                percentage: Some(convert::proto_fraction(share)),
                fault_delay_secifier: Some(kind),
            }),
            abort: abort.map(|(share, kind)| pb::FaultAbort {
                percentage: Some(convert::proto_fraction(share)),
                error_type: Some(kind),
                ..Default::default()
            }),
            response_rate_limit: slow.map(|(share, kind)| pbc::FaultRateLimit {
                percentage: Some(convert::proto_fraction(share)),
                limit_type: Some(kind),
            }),
            upstream_cluster: self.cluster.clone().unwrap_or_default(),
            max_active_faults: self.most_active.map(convert::wrap_u32),
            headers: self.headers.iter().map(HeaderMatcher::encode).collect(),
            ..Default::default()
        }
    }
}

fn decode_delay(value: &pbc::FaultDelay, path: &Path<'_>) -> Result<Delay, Error> {
    use pbc::fault_delay::FaultDelaySecifier as S;
    let fixed = match &value.fault_delay_secifier {
        Some(S::FixedDelay(d)) => convert::duration(d, &path.field("fixed_delay"))?,
        _ => return Err(path.error("only fixed_delay is supported")),
    };
    Ok(Delay { fixed, share: convert::parts_per_million(value.percentage.as_ref(), &path.field("percentage"))? })
}

fn decode_abort(value: &pb::FaultAbort, path: &Path<'_>) -> Result<Abort, Error> {
    use pb::fault_abort::ErrorType as E;
    let status = match &value.error_type {
        Some(E::HttpStatus(code @ 200..=599)) => AbortStatus::Http(*code as u16),
        Some(E::GrpcStatus(code)) => AbortStatus::Grpc(*code),
        _ => return Err(path.error("needs http_status (200 to 599) or grpc_status")),
    };
    if !value.response_body.is_empty() {
        return Err(Audit::refuse(path, "response_body"));
    }
    Ok(Abort { status, share: convert::parts_per_million(value.percentage.as_ref(), &path.field("percentage"))? })
}

impl FilterMessage for Fault {
    const NAME: &'static str = FAULT;

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::HttpFault> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}

impl HttpFilter {
    /// The fault filter under its usual name.
    #[must_use]
    pub fn fault() -> Self {
        Self { name: FAULT.to_owned(), config: FilterConfig::Fault(Fault::default()), disabled: false }
    }
}
