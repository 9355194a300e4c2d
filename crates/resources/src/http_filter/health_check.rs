//! Configuration of the health check filter (`envoy.filters.http.health_check`). Source: Envoy, "Health check".

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::matcher::{self, HeaderMatcher};
use crate::{Audit, Error, Path};

/// Responses to health checks of this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The headers by which a health check is known.
    pub headers: Vec<HeaderMatcher>,
    /// True when they go on to the upstream.
    pub pass_through: bool,
    /// The time for which an upstream's response is given again.
    pub cache_time: Duration,
    /// The share of each cluster, in per cent, that must be well.
    pub clusters: Vec<(String, u32)>,
}

impl HealthCheck {
    fn decode(value: &pb::health_check::v3::HealthCheck, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::health_check::v3::HealthCheck as Proto;
        audit!(value, Proto as Proto, audit, path;
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

    fn encode(&self) -> pb::health_check::v3::HealthCheck {
        let percent = |(name, percent): &(String, u32)| (name.clone(), convert::proto_percent(*percent));
        pb::health_check::v3::HealthCheck {
            pass_through_mode: Some(convert::wrap_bool(self.pass_through)),
            cache_time: (!self.cache_time.is_zero()).then(|| convert::proto_duration(self.cache_time)),
            cluster_min_healthy_percentages: self.clusters.iter().map(percent).collect(),
            headers: self.headers.iter().map(HeaderMatcher::encode).collect(),
        }
    }
}

impl FilterMessage for HealthCheck {
    const NAME: &'static str = "envoy.filters.http.health_check";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::health_check::v3::HealthCheck> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}
