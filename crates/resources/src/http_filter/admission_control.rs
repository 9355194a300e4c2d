//! Configuration of the admission control filter (`envoy.filters.http.admission_control`). Source: Envoy, "Admission Control".

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::{Audit, Error, Path};

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
    fn decode(
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
            let Some(v) = v else { return default };
            let own = v.default_value.as_ref().map(|p| p.value);
            let value = convert::runtime_number(&v.runtime_key, audit).or(own);
            value.map_or(default, |p| p.clamp(0.0, 100.0) as u32)
        };
        let aggression = value.aggression.as_ref().map(|a| convert::runtime_f64(a, audit).max(1.0));
        let statuses = criteria.http_criteria.as_ref().map(|c| c.http_success_status.as_slice()).unwrap_or_default();
        let good: Vec<(u16, u16)> =
            statuses.iter().filter_map(|r| Some((u16::try_from(r.start).ok()?, u16::try_from(r.end).ok()?))).collect();
        let grpc = criteria.grpc_criteria.as_ref().map(|c| c.grpc_success_status.clone()).unwrap_or_default();
        Ok(Self {
            enabled: value.enabled.as_ref().is_none_or(|f| convert::runtime_flag(f, audit)),
            window: window.unwrap_or(Duration::from_secs(30)),
            aggression: aggression.map_or(1000, convert::thousandths),
            threshold: percent(&value.sr_threshold, 95).max(1),
            least_rate: value.rps_threshold.as_ref().map_or(0, |r| convert::runtime_u32(r, audit)),
            most_refused: percent(&value.max_rejection_probability, 80),
            good: if good.is_empty() { vec![(100, 500)] } else { good },
            good_grpc: if grpc.is_empty() { vec![0] } else { grpc },
        })
    }

    fn encode(&self) -> pb::admission_control::v3::AdmissionControl {
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

impl FilterMessage for AdmissionControl {
    const NAME: &'static str = "envoy.filters.http.admission_control";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::admission_control::v3::AdmissionControl> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}
