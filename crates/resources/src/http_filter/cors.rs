//! Configuration of the cors filter (`envoy.filters.http.cors`). Source: Envoy, "CORS".

use envoy_types::pb::envoy::extensions::filters::http as pb;
use envoy_types::pb::google::protobuf::Any;

use super::{FilterConfig, FilterMessage, HttpFilter};
use crate::convert;
use crate::matcher::StringMatcher;
use crate::{Audit, Error, Path};

/// The other sites that may make browsers send requests here, and see the responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Their origins.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; empty is none.
    pub methods: String,
    /// `access-control-allow-headers`.
    pub headers: String,
    /// `access-control-expose-headers`.
    pub expose: String,
    /// `access-control-max-age`.
    pub max_age: String,
    /// True when cookies may be sent.
    pub credentials: Option<bool>,
    /// True when requests into a private network may be made.
    pub private_network: Option<bool>,
    /// True when a preflight from elsewhere goes on to the upstream, as it does when nothing is said.
    pub forward_others: Option<bool>,
    /// Share of requests that this is for, in parts of a million.
    pub enabled: u32,
}

impl Cors {
    /// Takes from a less specific policy what this one says nothing about.
    pub fn inherit(&mut self, other: &Self) {
        if self.origins.is_empty() {
            self.origins.clone_from(&other.origins);
        }
        for (own, theirs) in [
            (&mut self.methods, &other.methods),
            (&mut self.headers, &other.headers),
            (&mut self.expose, &other.expose),
            (&mut self.max_age, &other.max_age),
        ] {
            if own.is_empty() {
                own.clone_from(theirs);
            }
        }
        self.credentials = self.credentials.or(other.credentials);
        self.private_network = self.private_network.or(other.private_network);
        self.forward_others = self.forward_others.or(other.forward_others);
    }

    fn decode(value: &pb::cors::v3::CorsPolicy, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        use pb::cors::v3::CorsPolicy;
        audit!(value, CorsPolicy as CorsPolicy, audit, path;
            supported: allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age,
                allow_credentials, filter_enabled, allow_private_network_access, forward_not_matching_preflights;
            ignored: shadow_enabled;
            refused: );
        let origins_path = path.field("allow_origin_string_match");
        let origins = value.allow_origin_string_match.iter().enumerate();
        Ok(Self {
            origins: origins
                .map(|(i, m)| StringMatcher::decode(m, &origins_path.index(i)))
                .collect::<Result<_, _>>()?,
            methods: value.allow_methods.clone(),
            headers: value.allow_headers.clone(),
            expose: value.expose_headers.clone(),
            max_age: value.max_age.clone(),
            credentials: value.allow_credentials.as_ref().map(|v| v.value),
            private_network: value.allow_private_network_access.as_ref().map(|v| v.value),
            forward_others: value.forward_not_matching_preflights.as_ref().map(|v| v.value),
            enabled: super::enabled(value.filter_enabled.as_ref(), audit, path)?,
        })
    }

    fn encode(&self) -> pb::cors::v3::CorsPolicy {
        pb::cors::v3::CorsPolicy {
            allow_origin_string_match: self.origins.iter().map(StringMatcher::encode).collect(),
            allow_methods: self.methods.clone(),
            allow_headers: self.headers.clone(),
            expose_headers: self.expose.clone(),
            max_age: self.max_age.clone(),
            allow_credentials: self.credentials.map(convert::wrap_bool),
            forward_not_matching_preflights: self.forward_others.map(convert::wrap_bool),
            allow_private_network_access: self.private_network.map(convert::wrap_bool),
            filter_enabled: (self.enabled != 1_000_000).then(|| convert::proto_share(self.enabled)),
            ..Default::default()
        }
    }
}

impl FilterMessage for Cors {
    const NAME: &'static str = CORS;

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        if super::message::<pb::cors::v3::Cors>(any, path)?.is_some() {
            return Ok(Some(Self::default()));
        }
        let message: Option<pb::cors::v3::CorsPolicy> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    /// The filter itself only says that it is there; routes say who may.
    fn to_any(&self) -> Any {
        if *self == Self::default() { convert::any(&pb::cors::v3::Cors {}) } else { self.to_route_any() }
    }

    fn to_route_any(&self) -> Any {
        convert::any(&self.encode())
    }
}

/// The usual name of the cors filter.
pub const CORS: &str = "envoy.filters.http.cors";

impl HttpFilter {
    /// The cors filter under its usual name; routes say who may.
    #[must_use]
    pub fn cors() -> Self {
        Self { name: CORS.to_owned(), config: FilterConfig::Cors(Cors::default()), disabled: false }
    }
}
