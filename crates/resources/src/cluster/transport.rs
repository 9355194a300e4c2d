//! Which TLS an endpoint gets, and which name it is told.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::convert;
use crate::tls::UpstreamTls;
use crate::{Audit, Error, Path};

/// The TLS of endpoints whose metadata under `envoy.transport_socket_match` has these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsMatch {
    /// A name for statistics.
    pub name: String,
    /// The values; none matches every endpoint.
    pub metadata: BTreeMap<String, String>,
    /// The TLS; `None` is plain text.
    pub tls: Option<UpstreamTls>,
}

impl TlsMatch {
    pub(super) fn decode(
        value: &pb::cluster::TransportSocketMatch,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb::cluster::TransportSocketMatch as Proto;
        audit!(value, Proto as Proto, audit, path; supported: name, r#match, transport_socket; ignored: ; refused: );
        if value.name.is_empty() {
            return Err(path.field("name").error("is required"));
        }
        let fields = value.r#match.as_ref();
        Ok(Self {
            name: value.name.clone(),
            metadata: fields
                .map(|fields| convert::text_fields(fields, &path.field("match")))
                .transpose()?
                .unwrap_or_default(),
            tls: UpstreamTls::of_socket(value.transport_socket.as_ref(), audit, path)?,
        })
    }

    pub(super) fn encode(&self) -> pb::cluster::TransportSocketMatch {
        let plain =
            || core::TransportSocket { name: "envoy.transport_sockets.raw_buffer".to_owned(), config_type: None };
        pb::cluster::TransportSocketMatch {
            name: self.name.clone(),
            r#match: Some(convert::proto_fields(&self.metadata)),
            transport_socket: Some(self.tls.as_ref().map_or_else(plain, UpstreamTls::encode)),
        }
    }

    /// Returns true when it is for an endpoint with this metadata.
    #[must_use]
    pub fn is_for(&self, metadata: &BTreeMap<String, String>) -> bool {
        self.metadata.iter().all(|(key, value)| metadata.get(key) == Some(value))
    }
}

/// How the name that is told to servers follows from a request (Envoy: `UpstreamHttpProtocolOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestNames {
    /// True when the name that the request is for is told.
    pub auto_sni: bool,
    /// True when the server's certificate must have that name.
    pub auto_san: bool,
    /// A header that has the name instead of `:authority`; empty for none.
    pub header: String,
}

impl RequestNames {
    pub(super) fn decode(
        value: Option<&core::UpstreamHttpProtocolOptions>,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(Self::default()) };
        let path = path.field("upstream_http_protocol_options");
        audit!(value, core::UpstreamHttpProtocolOptions as core::UpstreamHttpProtocolOptions, audit, &path;
            supported: auto_sni, auto_san_validation, override_auto_sni_header; ignored: ; refused: );
        let header = value.override_auto_sni_header.to_ascii_lowercase();
        if !header.is_empty() && header != ":authority" && !serin_http1::is_field_name(header.as_bytes()) {
            return Err(path.field("override_auto_sni_header").error("is no name of a header"));
        }
        Ok(Self { auto_sni: value.auto_sni, auto_san: value.auto_san_validation, header })
    }

    pub(super) fn encode(&self) -> Option<core::UpstreamHttpProtocolOptions> {
        (*self != Self::default()).then(|| core::UpstreamHttpProtocolOptions {
            auto_sni: self.auto_sni,
            auto_san_validation: self.auto_san,
            override_auto_sni_header: self.header.clone(),
        })
    }
}
