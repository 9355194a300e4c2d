//! Configuration of the csrf filter (`envoy.filters.http.csrf`). Source: Envoy, "CSRF".

use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::FilterMessage;
use crate::convert;
use crate::matcher::StringMatcher;
use crate::{Audit, Error, Path};

/// Refuses requests with effects that another site makes a browser send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csrf {
    /// Share of requests that are looked at, in parts of a million.
    pub enabled: u32,
    /// Sites that may.
    pub origins: Vec<StringMatcher>,
}

impl Csrf {
    fn decode(value: &pb::csrf::v3::CsrfPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::csrf::v3::CsrfPolicy;
        audit!(value, CsrfPolicy as CsrfPolicy, audit, path;
            supported: filter_enabled, additional_origins; ignored: shadow_enabled; refused: );
        if value.filter_enabled.is_none() {
            return Err(path.field("filter_enabled").error("is required"));
        }
        let list = path.field("additional_origins");
        let origins = value.additional_origins.iter().enumerate();
        Ok(Self {
            enabled: super::enabled(value.filter_enabled.as_ref(), audit, path)?,
            origins: origins.map(|(i, m)| StringMatcher::decode(m, &list.index(i))).collect::<Result<_, _>>()?,
        })
    }

    fn encode(&self) -> pb::csrf::v3::CsrfPolicy {
        pb::csrf::v3::CsrfPolicy {
            filter_enabled: Some(convert::proto_share(self.enabled)),
            additional_origins: self.origins.iter().map(StringMatcher::encode).collect(),
            ..Default::default()
        }
    }
}

impl FilterMessage for Csrf {
    const NAME: &'static str = "envoy.filters.http.csrf";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::csrf::v3::CsrfPolicy> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }
}
