//! Configuration of the compressor filter, of responses, with gzip (`envoy.filters.http.compressor`). Source: Envoy, "Compressor".

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::compression::gzip::compressor::v3 as pb_gzip;
use envoy_types::pb::envoy::extensions::filters::http::compressor::v3 as pb;
use envoy_types::pb::google::protobuf::Any;
use pb::compressor::{CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig};
use prost::Name as _;

use super::{FilterMessage, PerRoute};
use crate::convert;
use crate::{Audit, Error, Path};

/// The responses that are compressed, and the settings of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressor {
    /// True when responses are compressed at all.
    pub enabled: bool,
    /// Shortest body, in bytes.
    pub shortest: u64,
    /// Media types, in lower case.
    pub types: Vec<String>,
    /// True when responses with a strong `etag` are left as they are, instead of losing it.
    pub not_with_etag: bool,
    /// True when a strong `etag` becomes a weak one.
    pub weaken_etag: bool,
    /// True when the upstream does not see `accept-encoding`.
    pub hide_accepted: bool,
    /// Statuses whose responses are left as they are.
    pub except: Vec<u16>,
    /// From 0 (not at all) to 9 (as small as possible).
    pub level: u32,
}

/// The content types that are compressed by default (Envoy `DefaultContentTypes`).
const TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
];

impl Compressor {
    #[expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]
    fn decode(value: &pb::Compressor, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Compressor as pb::Compressor, audit, path;
            supported: content_length, content_type, disable_on_etag_header, remove_accept_encoding_header, runtime_enabled,
                compressor_library, request_direction_config, response_direction_config;
            ignored: choose_first; refused: );
        if let Some(request) = &value.request_direction_config {
            let here = path.field("request_direction_config");
            audit!(request, RequestDirectionConfig as RequestDirectionConfig, audit, &here;
                supported: common_config; ignored: ; refused: );
            if request
                .common_config
                .as_ref()
                .and_then(|c| c.enabled.as_ref())
                .is_some_and(|f| convert::runtime_flag(f, audit))
            {
                return Err(here.field("common_config").field("enabled").error("requests cannot be compressed"));
            }
        }
        let mut response = value.response_direction_config.clone().unwrap_or_else(|| ResponseDirectionConfig {
            disable_on_etag_header: value.disable_on_etag_header,
            remove_accept_encoding_header: value.remove_accept_encoding_header,
            common_config: Some(CommonDirectionConfig {
                enabled: value.runtime_enabled.clone(),
                min_content_length: value.content_length,
                content_type: value.content_type.clone(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let here = path.field("response_direction_config");
        audit!(&response, ResponseDirectionConfig as ResponseDirectionConfig, audit, &here;
            supported: common_config, disable_on_etag_header, weaken_etag_on_compress, remove_accept_encoding_header,
                uncompressible_response_codes;
            ignored: status_header_enabled; refused: );
        let common = response.common_config.take().unwrap_or_default();
        audit!(&common, CommonDirectionConfig as CommonDirectionConfig, audit, &here.field("common_config");
            supported: enabled, min_content_length, content_type; ignored: ; refused: content_type_matcher);
        let types = common.content_type.iter().map(|t| t.to_ascii_lowercase()).collect();
        Ok(Self {
            enabled: common.enabled.as_ref().is_none_or(|f| convert::runtime_flag(f, audit)),
            shortest: common.min_content_length.as_ref().map_or(30, |v| v.value.into()),
            types: if common.content_type.is_empty() { TYPES.map(str::to_owned).into() } else { types },
            not_with_etag: response.disable_on_etag_header,
            weaken_etag: response.weaken_etag_on_compress,
            hide_accepted: response.remove_accept_encoding_header,
            except: response.uncompressible_response_codes.iter().filter_map(|c| u16::try_from(*c).ok()).collect(),
            level: level(value.compressor_library.as_ref(), audit, &path.field("compressor_library"))?,
        })
    }

    #[expect(deprecated, reason = "content_type is what older control planes and proxies know")]
    fn encode(&self) -> pb::Compressor {
        let gzip = pb_gzip::Gzip { compression_level: self.level.cast_signed(), ..Default::default() };
        let common = CommonDirectionConfig {
            enabled: convert::proto_off(self.enabled, "compressor.enabled"),
            min_content_length: Some(convert::wrap_u32(u32::try_from(self.shortest).unwrap_or(u32::MAX))),
            content_type: self.types.clone(),
            ..Default::default()
        };
        pb::Compressor {
            compressor_library: Some(core::TypedExtensionConfig {
                name: "envoy.compression.gzip.compressor".to_owned(),
                typed_config: Some(convert::any(&gzip)),
            }),
            response_direction_config: Some(ResponseDirectionConfig {
                common_config: Some(common),
                disable_on_etag_header: self.not_with_etag,
                weaken_etag_on_compress: self.weaken_etag,
                remove_accept_encoding_header: self.hide_accepted,
                uncompressible_response_codes: self.except.iter().map(|s| u32::from(*s)).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// The compression level of the library.
fn level(library: Option<&core::TypedExtensionConfig>, audit: &mut Audit, path: &Path<'_>) -> Result<u32, Error> {
    let any = library.and_then(|l| l.typed_config.as_ref()).ok_or_else(|| path.error("is required"))?;
    let path = path.field("typed_config");
    if any.type_url != pb_gzip::Gzip::type_url() {
        return Err(path.error(format!("{} is not supported; supported is gzip", any.type_url)));
    }
    let gzip: pb_gzip::Gzip = convert::from_any(any, &path)?;
    audit!(&gzip, pb_gzip::Gzip as pb_gzip::Gzip, audit, &path;
        supported: compression_level; ignored: memory_level, compression_strategy, window_bits, chunk_size; refused: );
    Ok(match gzip.compression_level {
        level @ 1..=9 => level as u32,
        _ => 6,
    })
}

impl FilterMessage for Compressor {
    const NAME: &'static str = "envoy.filters.http.compressor";

    fn from_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<Self>, Error> {
        let message: Option<pb::Compressor> = super::message(any, path)?;
        message.map(|message| Self::decode(&message, audit, path)).transpose()
    }

    fn to_any(&self) -> Any {
        convert::any(&self.encode())
    }

    fn from_route_any(any: &Any, audit: &mut Audit, path: &Path<'_>) -> Result<Option<PerRoute<Self>>, Error> {
        use pb::compressor_per_route::Override;
        let message: Option<pb::CompressorPerRoute> = super::message(any, path)?;
        let Some(message) = message else { return super::from_same_message(any, audit, path) };
        match &message.r#override {
            Some(Override::Disabled(true)) => Ok(Some(PerRoute::Off)),
            Some(Override::Overrides(_)) => Err(Audit::refuse(path, "overrides")),
            _ => Err(path.error("needs disabled")),
        }
    }
}
