//! Load that a backend reports with its responses: ORCA (`xds.data.orca.v3.OrcaLoadReport`) in response headers or trailers.
//!
//! Source: Envoy, `source/common/orca/orca_parser`: `endpoint-load-metrics: TEXT|JSON|BIN …`, and gRPC's
//! `endpoint-load-metrics-bin`.

use std::collections::HashMap;

use base64::Engine as _;
use prost::Message as _;
use serin_http1::HeaderBlock;

/// A report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrcaReport {
    /// Share of the processors, 1 for all.
    #[prost(double, tag = "1")]
    pub cpu: f64,
    #[prost(uint64, tag = "3")]
    rps: u64,
    /// Shares of other resources.
    #[prost(map = "string, double", tag = "5")]
    pub utilization: HashMap<String, f64>,
    /// Requests a second.
    #[prost(double, tag = "6")]
    pub qps: f64,
    /// Errors a second.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// Anything else.
    #[prost(map = "string, double", tag = "8")]
    pub named: HashMap<String, f64>,
    /// The utilisation that the application reports.
    #[prost(double, tag = "9")]
    pub application: f64,
}

impl OrcaReport {
    /// The report in these fields, if there is one that can be read.
    #[must_use]
    pub fn read(fields: &HeaderBlock) -> Option<Self> {
        if let Some(binary) = fields.get("endpoint-load-metrics-bin") {
            return from_base64(binary);
        }
        let text = fields.get_str("endpoint-load-metrics")?.trim();
        let (kind, text) = text.split_once(' ')?;
        match kind {
            "TEXT" => from_text(text),
            "JSON" => from_json(text),
            "BIN" => from_base64(text.as_bytes()),
            _ => None,
        }
    }

    /// The utilisation of the backend: the application's, else the greatest of these metrics, else its processors'.
    #[must_use]
    pub fn utilization(&self, metrics: &[String]) -> f64 {
        let metric = |name: &String| match name.split_once('.') {
            Some(("named_metrics", key)) => self.named.get(key),
            Some(("utilization", key)) => self.utilization.get(key),
            _ => None,
        };
        let greatest = metrics.iter().filter_map(metric).copied().fold(0.0, f64::max);
        [self.application, greatest, self.cpu].into_iter().find(|u| *u > 0.0).unwrap_or(0.0)
    }

    /// The weight that balances by it (gRPC A58): requests a second by utilisation, errors counted as so much more.
    #[must_use]
    pub fn weight(&self, metrics: &[String], penalty: f64) -> Option<f64> {
        let qps = if self.qps > 0.0 { self.qps } else { self.rps as f64 };
        let mut utilization = self.utilization(metrics);
        if qps <= 0.0 || utilization <= 0.0 {
            return None;
        }
        utilization += self.eps.max(0.0) / qps * penalty;
        Some(qps / utilization).filter(|w| w.is_finite())
    }

    fn set(&mut self, name: &str, value: f64) -> Option<()> {
        match name {
            "cpu_utilization" | "cpu" => self.cpu = value,
            "application_utilization" => self.application = value,
            "rps_fractional" | "rps" => self.qps = value,
            "eps" => self.eps = value,
            "mem_utilization" | "mem" => {}
            name => match name.split_once('.')? {
                ("named_metrics", key) => _ = self.named.insert(key.to_owned(), value),
                ("utilization", key) => _ = self.utilization.insert(key.to_owned(), value),
                ("request_cost", _) => {}
                _ => return None,
            },
        }
        value.is_finite().then_some(())
    }
}

fn from_base64(text: &[u8]) -> Option<OrcaReport> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const EITHER: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    OrcaReport::decode(EITHER.decode(text).ok()?.as_slice()).ok()
}

fn from_text(text: &str) -> Option<OrcaReport> {
    let mut report = OrcaReport::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once(['=', ':'])?;
        report.set(name.trim(), value.trim().parse().ok()?)?;
    }
    Some(report)
}

fn from_json(text: &str) -> Option<OrcaReport> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let mut report = OrcaReport::default();
    for (name, value) in value.as_object()? {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    report.set(&format!("{name}.{key}"), value.as_f64()?)?;
                }
            }
            value => report.set(name, value.as_f64()?)?,
        }
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Option<OrcaReport> {
        let mut fields = HeaderBlock::default();
        fields.append(name.as_bytes(), value.as_bytes());
        OrcaReport::read(&fields)
    }

    #[test]
    fn all_forms_say_the_same() {
        let report = OrcaReport {
            cpu: 0.5,
            qps: 100.0,
            eps: 10.0,
            named: [("queue".to_owned(), 0.8)].into(),
            ..Default::default()
        };
        let packed = base64::engine::general_purpose::STANDARD_NO_PAD.encode(report.encode_to_vec());
        for (name, value) in [
            (
                "endpoint-load-metrics",
                "TEXT cpu_utilization=0.5,rps_fractional=100,eps=10,named_metrics.queue=0.8".to_owned(),
            ),
            (
                "endpoint-load-metrics",
                r#"JSON {"cpu_utilization": 0.5, "rps_fractional": 100, "eps": 10, "named_metrics": {"queue": 0.8}}"#
                    .to_owned(),
            ),
            ("endpoint-load-metrics", format!("BIN {packed}")),
            ("endpoint-load-metrics-bin", packed.clone()),
        ] {
            assert_eq!(read(name, &value), Some(report.clone()), "{value}");
        }
        assert_eq!(read("endpoint-load-metrics", "TEXT nonsense"), None);
        assert_eq!(read("endpoint-load-metrics", "cpu=1"), None);
        assert_eq!(report.weight(&[], 1.0), Some(100.0 / 0.6));
        assert_eq!(report.weight(&["named_metrics.queue".to_owned()], 0.0), Some(125.0));
        assert_eq!(OrcaReport::default().weight(&[], 1.0), None);
    }
}
