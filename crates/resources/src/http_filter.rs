//! HTTP filters: what stands between a listener and its routes, in the configured order, and how a route changes that.
//!
//! A filter's configuration, with its decoder and encoder, is the file of its name in this folder. The
//! [registry](crate::http_filters) lists the filters; this module, `traffic` and `proxy` are expanded from that list.

mod registry;

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb_route;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::envoy::r#type::v3 as pb_type;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::convert;
use crate::{Audit, Error, Path};

/// The messages of one filter: how its configuration comes from them, and what they are made from.
trait FilterMessage: Sized {
    /// Envoy's name of the filter.
    const NAME: &'static str;

    /// Decodes the message of a listener; `None` when it is another filter's.
    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error>;

    /// Encodes the message of a listener.
    fn to_any(&self) -> Any;

    /// Decodes the message of a route, virtual host or weighted cluster, where that is another.
    fn from_route_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute<Self>>, Error> {
        from_same_message(any, audit, path)
    }

    /// Encodes the message of a route, virtual host or weighted cluster.
    fn to_route_any(&self) -> Any {
        self.to_any()
    }
}

/// Decodes the message of a listener that stands in a route.
fn from_same_message<F: FilterMessage>(
    any: &Any,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<PerRoute<F>>, Error> {
    Ok(F::from_any(any, audit, path)?.map(PerRoute::Config))
}

/// Unpacks a message of this type; `None` when it is of another.
fn message<M: Message + Name + Default>(any: &Any, path: &Path<'_>) -> Result<Option<M>, Error> {
    if any.type_url == M::type_url() { convert::from_any(any, path).map(Some) } else { Ok(None) }
}

/// A share; all when nothing is said.
fn enabled(value: Option<&core::RuntimeFractionalPercent>, audit: &Audit, path: &Path<'_>) -> Result<u32, Error> {
    match value {
        None => Ok(1_000_000),
        Some(f) => convert::runtime_share(f, audit, &path.field("filter_enabled")),
    }
}

fn proto_status(status: u16) -> pb_type::HttpStatus {
    pb_type::HttpStatus { code: status.into() }
}

/// Declares the modules of the filters and their configurations as one type.
macro_rules! configurations {
    ($($module:ident: $name:ident $(=> $state:ident)?,)*) => {
        $(
            mod $module;
            pub use $module::*;
        )*

        /// The configuration of a filter.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum FilterConfig {
            $(
                #[doc = concat!("See [`", stringify!($name), "`](struct@", stringify!($name), ").")]
                $name($name),
            )*
        }

        /// Envoy's names of all filters.
        const NAMES: &[&str] = &[$(<$name as FilterMessage>::NAME),*];

        impl FilterConfig {
            /// `None` for a filter that nobody here knows.
            fn decode(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
                $(if let Some(config) = $name::from_any(any, audit, path)? {
                    return Ok(Some(Self::$name(config)));
                })*
                Ok(None)
            }

            fn encode(&self) -> Any {
                match self {
                    $(Self::$name(config) => config.to_any(),)*
                }
            }

            /// Decodes the message that a route has for it; `None` for a filter that nobody here knows.
            fn decode_route(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute>, Error> {
                $(if let Some(setting) = $name::from_route_any(any, audit, path)? {
                    return Ok(Some(setting.map(Self::$name)));
                })*
                Ok(None)
            }

            /// Encodes it in the message that a route has for it.
            fn encode_route(&self) -> Any {
                match self {
                    $(Self::$name(config) => config.to_route_any(),)*
                }
            }
        }
    };
}

crate::http_filters!(configurations);

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

/// The setting of a filter by a route, virtual host or weighted cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerRoute<C = FilterConfig> {
    /// It does nothing here.
    Off,
    /// It does here what it does elsewhere, though it is disabled.
    On,
    /// It does this instead.
    Config(C),
}

impl<C> PerRoute<C> {
    fn map<D>(self, convert: impl FnOnce(C) -> D) -> PerRoute<D> {
        match self {
            Self::Off => PerRoute::Off,
            Self::On => PerRoute::On,
            Self::Config(config) => PerRoute::Config(convert(config)),
        }
    }
}

/// By the filter's name.
pub type PerRoutes = BTreeMap<String, PerRoute>;

impl HttpFilter {
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
    let names: Vec<&str> = NAMES.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    let (last, others) = names.split_last().unwrap_or((&"", &[]));
    path.error(format!(
        "filter '{name}' ({}) is not supported; supported are {} and {last}, then router last",
        any.type_url,
        others.join(", ")
    ))
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
    match FilterConfig::decode_route(any, audit, path)? {
        Some(setting) => Ok(Some(setting)),
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
