//! HTTP filters: what stands between a listener and its routes, in the configured order, and how a route changes that.

mod access;
mod compress;
mod edit;
mod limit;

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::route::v3 as pb_route;
use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use crate::convert;
use crate::fault::{self, Fault};
use crate::{Audit, Error, Path};

pub use access::{Cors, Csrf, Rbac, RbacAction, RbacPolicy, RbacRule, RbacRules};
pub use compress::Compressor;
pub use edit::{HealthAnswer, Mutations};
pub use limit::{AdaptiveConcurrency, AdmissionControl, RateLimit, Share};

/// One filter of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFilter {
    /// Its name, by which routes speak of it.
    pub name: String,
    /// Its configuration.
    pub config: FilterConfig,
    /// True when it does so only where a route says.
    pub disabled: bool,
}

/// The configuration of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterConfig {
    /// Delays and aborts requests.
    Fault(Fault),
    /// Answers browsers that ask whether they may, and tells them.
    Cors(Cors),
    /// Refuses requests that another site makes a browser send.
    Csrf(Csrf),
    /// Refuses what is too much.
    RateLimit(RateLimit),
    /// Refuses bodies that are longer than this, in bytes.
    Buffer(u64),
    /// Answers health checks.
    HealthCheck(HealthAnswer),
    /// Compresses responses.
    Compressor(Compressor),
    /// Changes headers.
    HeaderMutation(Mutations),
    /// Lets in who may come in.
    Rbac(Rbac),
    /// Lets in as many at once as the upstream answers quickly.
    AdaptiveConcurrency(AdaptiveConcurrency),
    /// Refuses a part of what would fail.
    AdmissionControl(AdmissionControl),
}

/// The setting of a filter by a route, virtual host or weighted cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerRoute {
    /// It does nothing here.
    Off,
    /// It does here what it does elsewhere, though it is disabled.
    On,
    /// It does this instead.
    Config(FilterConfig),
}

/// By the filter's name.
pub type PerRoutes = BTreeMap<String, PerRoute>;

/// The usual name of the cors filter.
pub const CORS: &str = "envoy.filters.http.cors";

impl HttpFilter {
    /// The cors filter under its usual name; routes say who may.
    #[must_use]
    pub fn cors() -> Self {
        Self { name: CORS.to_owned(), config: FilterConfig::Cors(Cors::default()), disabled: false }
    }

    /// The fault filter under its usual name.
    #[must_use]
    pub fn fault() -> Self {
        Self { name: fault::FILTER.to_owned(), config: FilterConfig::Fault(Fault::default()), disabled: false }
    }

    pub(crate) fn decode(
        value: &pb_hcm::HttpFilter,
        any: &Any,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Option<Self>, Error> {
        let config = match FilterConfig::decode(any, audit, path)? {
            Some(config) => config,
            None if value.is_optional => {
                audit.ignore(path, &value.name);
                return Ok(None);
            }
            None => return Err(unknown(&value.name, any, path)),
        };
        Ok(Some(Self { name: value.name.clone(), config, disabled: value.disabled }))
    }

    pub(crate) fn encode(&self) -> pb_hcm::HttpFilter {
        pb_hcm::HttpFilter {
            name: self.name.clone(),
            disabled: self.disabled,
            config_type: Some(pb_hcm::http_filter::ConfigType::TypedConfig(self.config.encode())),
            ..Default::default()
        }
    }
}

fn unknown(name: &str, any: &Any, path: &Path<'_>) -> Error {
    path.error(format!(
        "filter '{name}' ({}) is not supported; supported are fault, cors, csrf, local_ratelimit, buffer, health_check, \
         header_mutation, compressor, rbac, adaptive_concurrency and admission_control, then router last",
        any.type_url
    ))
}

/// A decoder of one message that may also come in a route.
macro_rules! decode_as {
    ($any:expr, $path:expr, $ty:ty, $decode:expr) => {
        if $any.type_url == <$ty>::type_url() {
            let value: $ty = convert::from_any($any, $path)?;
            return ($decode)(&value).map(Some);
        }
    };
}

impl FilterConfig {
    /// `None` for a filter that nobody here knows.
    fn decode(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        decode_as!(any, path, pb::fault::v3::HttpFault, |v| Fault::decode(v, audit, path).map(Self::Fault));
        decode_as!(any, path, pb::cors::v3::Cors, |_: &_| Ok(Self::Cors(Cors::default())));
        decode_as!(any, path, pb::cors::v3::CorsPolicy, |v| Cors::decode(v, audit, path).map(Self::Cors));
        decode_as!(any, path, pb::csrf::v3::CsrfPolicy, |v| Csrf::decode(v, audit, path).map(Self::Csrf));
        decode_as!(any, path, pb::local_ratelimit::v3::LocalRateLimit, |v| {
            RateLimit::decode(v, audit, path).map(Self::RateLimit)
        });
        decode_as!(any, path, pb::buffer::v3::Buffer, |v: &pb::buffer::v3::Buffer| {
            let most = v.max_request_bytes.as_ref().map(|v| u64::from(v.value)).filter(|n| *n > 0);
            most.map(Self::Buffer).ok_or_else(|| path.field("max_request_bytes").error("is required"))
        });
        decode_as!(any, path, pb::health_check::v3::HealthCheck, |v| {
            HealthAnswer::decode(v, audit, path).map(Self::HealthCheck)
        });
        decode_as!(any, path, pb::compressor::v3::Compressor, |v| {
            Compressor::decode(v, audit, path).map(Self::Compressor)
        });
        decode_as!(any, path, pb::header_mutation::v3::HeaderMutation, |v| {
            Mutations::decode_filter(v, audit, path).map(Self::HeaderMutation)
        });
        decode_as!(any, path, pb::header_mutation::v3::HeaderMutationPerRoute, |v| {
            Mutations::decode_route(v, audit, path).map(Self::HeaderMutation)
        });
        decode_as!(any, path, pb::rbac::v3::Rbac, |v| Rbac::decode(v, audit, path).map(Self::Rbac));
        decode_as!(any, path, pb::adaptive_concurrency::v3::AdaptiveConcurrency, |v| {
            AdaptiveConcurrency::decode(v, audit, path).map(Self::AdaptiveConcurrency)
        });
        decode_as!(any, path, pb::admission_control::v3::AdmissionControl, |v| {
            AdmissionControl::decode(v, audit, path).map(Self::AdmissionControl)
        });
        Ok(None)
    }

    fn encode(&self) -> Any {
        match self {
            Self::Fault(fault) => convert::any(&fault.encode()),
            Self::Cors(cors) if *cors == Cors::default() => convert::any(&pb::cors::v3::Cors {}),
            Self::Cors(cors) => convert::any(&cors.encode()),
            Self::Csrf(csrf) => convert::any(&csrf.encode()),
            Self::RateLimit(limit) => convert::any(&limit.encode()),
            Self::Buffer(most) => convert::any(&buffer(*most)),
            Self::HealthCheck(answer) => convert::any(&answer.encode()),
            Self::Compressor(compressor) => convert::any(&compressor.encode()),
            Self::HeaderMutation(mutations) => convert::any(&mutations.encode_filter()),
            Self::Rbac(rbac) => convert::any(&rbac.encode()),
            Self::AdaptiveConcurrency(adaptive) => convert::any(&adaptive.encode()),
            Self::AdmissionControl(admission) => convert::any(&admission.encode()),
        }
    }

    /// In the message that a route has for it, where that is another.
    fn encode_route(&self) -> Any {
        use pb::buffer::v3::{BufferPerRoute, buffer_per_route::Override};
        match self {
            Self::Cors(cors) => convert::any(&cors.encode()),
            Self::Buffer(most) => convert::any(&BufferPerRoute { r#override: Some(Override::Buffer(buffer(*most))) }),
            Self::HeaderMutation(mutations) => convert::any(&mutations.encode_route()),
            Self::Rbac(rbac) => convert::any(&pb::rbac::v3::RbacPerRoute { rbac: Some(rbac.encode()) }),
            _ => self.encode(),
        }
    }
}

fn buffer(most: u64) -> pb::buffer::v3::Buffer {
    pb::buffer::v3::Buffer { max_request_bytes: Some(convert::wrap_u32(u32::try_from(most).unwrap_or(u32::MAX))) }
}

/// The configurations of filters that something more specific than the listener has.
pub(crate) fn decode_per_route(
    configs: &HashMap<String, Any>,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<PerRoutes, Error> {
    let path = path.field("typed_per_filter_config");
    let mut found = PerRoutes::new();
    for (name, any) in configs {
        let here = path.field(name);
        if let Some(per_route) = per_route(name, any, audit, &here)? {
            found.insert(name.clone(), per_route);
        }
    }
    Ok(found)
}

fn per_route(name: &str, any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute>, Error> {
    if any.type_url == pb_route::FilterConfig::type_url() {
        let wrapper: pb_route::FilterConfig = convert::from_any(any, path)?;
        return match &wrapper.config {
            _ if wrapper.disabled => Ok(Some(PerRoute::Off)),
            None => Ok(Some(PerRoute::On)),
            Some(any) if any.type_url.is_empty() => Ok(Some(PerRoute::On)),
            Some(inner) => match per_route(name, inner, audit, path) {
                Err(_) if wrapper.is_optional => {
                    audit.ignore(path, "config");
                    Ok(None)
                }
                other => other,
            },
        };
    }
    if any.type_url == pb::buffer::v3::BufferPerRoute::type_url() {
        use pb::buffer::v3::buffer_per_route::Override;
        let value: pb::buffer::v3::BufferPerRoute = convert::from_any(any, path)?;
        return match &value.r#override {
            Some(Override::Disabled(true)) => Ok(Some(PerRoute::Off)),
            Some(Override::Buffer(b)) => {
                let most = b.max_request_bytes.as_ref().map_or(0, |v| v.value.into());
                Ok(Some(PerRoute::Config(FilterConfig::Buffer(most))))
            }
            _ => Err(path.error("needs disabled or buffer")),
        };
    }
    if any.type_url == pb::compressor::v3::CompressorPerRoute::type_url() {
        use pb::compressor::v3::compressor_per_route::Override;
        let value: pb::compressor::v3::CompressorPerRoute = convert::from_any(any, path)?;
        return match &value.r#override {
            Some(Override::Disabled(true)) => Ok(Some(PerRoute::Off)),
            Some(Override::Overrides(_)) => Err(Audit::refuse(path, "overrides")),
            _ => Err(path.error("needs disabled")),
        };
    }
    if any.type_url == pb::rbac::v3::RbacPerRoute::type_url() {
        let value: pb::rbac::v3::RbacPerRoute = convert::from_any(any, path)?;
        return match &value.rbac {
            None => Ok(Some(PerRoute::Off)),
            Some(rbac) => Ok(Some(PerRoute::Config(FilterConfig::Rbac(Rbac::decode(rbac, audit, path)?)))),
        };
    }
    match FilterConfig::decode(any, audit, path)? {
        Some(config) => Ok(Some(PerRoute::Config(config))),
        None => Err(unknown(name, any, path)),
    }
}

pub(crate) fn encode_per_route(all: &PerRoutes) -> HashMap<String, Any> {
    convert::in_order(all.iter().map(|(name, per_route)| {
        let any = match per_route {
            PerRoute::Config(config) => config.encode_route(),
            PerRoute::Off => convert::any(&pb_route::FilterConfig { disabled: true, ..Default::default() }),
            PerRoute::On => convert::any(&pb_route::FilterConfig::default()),
        };
        (name.clone(), any)
    }))
}
