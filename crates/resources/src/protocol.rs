//! Settings of HTTP/1 and HTTP/2 on one side of the proxy.

use envoy_types::pb::envoy::config::core::v3 as pb;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3 as pb_case;
use pb::http1_protocol_options::header_key_format::HeaderFormat;
use prost::Name as _;

use crate::convert;
use crate::matcher::StringMatcher;
use crate::{Audit, Error, Path};

/// Settings of HTTP/1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// Whether a whole URL as the target is taken apart; for clients.
    pub absolute_url: bool,
    /// Whether HTTP/1.0 is spoken; for clients.
    pub accept_http_10: bool,
    /// The authority of requests in HTTP/1.0 that name none; empty refuses them.
    pub default_host: String,
    /// How names of fields are written.
    pub names: NameCase,
    /// Whether trailers pass.
    pub trailers: bool,
    /// Whether a length beside chunks is left out rather than refused.
    pub chunked_length: bool,
    /// Whether a connection goes on after a request that was refused; `None` is as the manager says.
    pub keep_after_error: Option<bool>,
    /// Whether upstreams get whole URLs as targets.
    pub full_url: bool,
    /// Upgrades that are overlooked.
    pub ignored_upgrades: Vec<StringMatcher>,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            absolute_url: true,
            accept_http_10: false,
            default_host: String::new(),
            names: NameCase::default(),
            trailers: false,
            chunked_length: false,
            keep_after_error: None,
            full_url: false,
            ignored_upgrades: Vec::new(),
        }
    }
}

/// How names of fields are written in HTTP/1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NameCase {
    /// In lower case.
    #[default]
    Lower,
    /// `Content-Type`
    Proper,
    /// As they came.
    Kept {
        /// Whether the reason phrase of a status stays as it came, too.
        reason: bool,
        /// Whether names that came from nobody are written `Content-Type`.
        own_proper: bool,
    },
}

impl Http1Options {
    /// Decodes them; what would only make the codec laxer is said to be ignored.
    #[expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]
    pub(crate) fn decode(value: &pb::Http1ProtocolOptions, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Http1ProtocolOptions as pb::Http1ProtocolOptions, audit, path;
            supported: allow_absolute_url, accept_http_10, default_host_for_http_10, header_key_format, enable_trailers,
                allow_chunked_length, override_stream_error_on_invalid_http_message, send_fully_qualified_url,
                ignore_http_11_upgrade;
            ignored: use_balsa_parser, allow_custom_methods;
            refused: );
        let ignored = path.field("ignore_http_11_upgrade");
        let matchers = value.ignore_http_11_upgrade.iter().enumerate();
        Ok(Self {
            absolute_url: value.allow_absolute_url.as_ref().is_none_or(|v| v.value),
            accept_http_10: value.accept_http_10,
            default_host: value.default_host_for_http_10.clone(),
            names: NameCase::decode(value.header_key_format.as_ref(), &path.field("header_key_format"))?,
            trailers: value.enable_trailers,
            chunked_length: value.allow_chunked_length,
            keep_after_error: value.override_stream_error_on_invalid_http_message.as_ref().map(|v| v.value),
            full_url: value.send_fully_qualified_url,
            ignored_upgrades: matchers
                .map(|(i, m)| StringMatcher::decode(m, &ignored.index(i)))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn encode(&self) -> pb::Http1ProtocolOptions {
        pb::Http1ProtocolOptions {
            allow_absolute_url: (!self.absolute_url).then(|| convert::wrap_bool(false)),
            accept_http_10: self.accept_http_10,
            default_host_for_http_10: self.default_host.clone(),
            header_key_format: self.names.encode(),
            enable_trailers: self.trailers,
            allow_chunked_length: self.chunked_length,
            override_stream_error_on_invalid_http_message: self.keep_after_error.map(convert::wrap_bool),
            send_fully_qualified_url: self.full_url,
            ignore_http_11_upgrade: self.ignored_upgrades.iter().map(StringMatcher::encode).collect(),
            ..Default::default()
        }
    }

    /// The message, if anything in it is said.
    pub(crate) fn said(&self) -> Option<pb::Http1ProtocolOptions> {
        (*self != Self::default()).then(|| self.encode())
    }
}

impl NameCase {
    fn decode(value: Option<&pb::http1_protocol_options::HeaderKeyFormat>, path: &Path<'_>) -> Result<Self, Error> {
        match value.and_then(|v| v.header_format.as_ref()) {
            None if value.is_some() => Err(path.error("needs a format")),
            None => Ok(Self::Lower),
            Some(HeaderFormat::ProperCaseWords(_)) => Ok(Self::Proper),
            Some(HeaderFormat::StatefulFormatter(extension)) => {
                let here = path.field("stateful_formatter");
                let kind = pb_case::PreserveCaseFormatterConfig::type_url();
                let Some(any) = extension.typed_config.as_ref().filter(|any| any.type_url == kind) else {
                    return Err(here.error(format!("'{}' is not supported", extension.name)));
                };
                let config: pb_case::PreserveCaseFormatterConfig = convert::from_any(any, &here)?;
                Ok(Self::Kept {
                    reason: config.forward_reason_phrase,
                    own_proper: config.formatter_type_on_envoy_headers == 1,
                })
            }
        }
    }

    fn encode(self) -> Option<pb::http1_protocol_options::HeaderKeyFormat> {
        let header_format = match self {
            Self::Lower => return None,
            Self::Proper => HeaderFormat::ProperCaseWords(Default::default()),
            Self::Kept { reason, own_proper } => HeaderFormat::StatefulFormatter(pb::TypedExtensionConfig {
                name: "envoy.http.stateful_header_formatters.preserve_case".to_owned(),
                typed_config: Some(convert::any(&pb_case::PreserveCaseFormatterConfig {
                    forward_reason_phrase: reason,
                    formatter_type_on_envoy_headers: own_proper.into(),
                })),
            }),
        };
        Some(pb::http1_protocol_options::HeaderKeyFormat { header_format: Some(header_format) })
    }
}

/// Settings of HTTP/2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// Whether the extended CONNECT of RFC 8441 is spoken.
    pub connect: bool,
    /// Streams of a connection at a time; `None` is the default.
    pub streams: Option<u32>,
}

impl Http2Options {
    /// Decodes them; other limits than our own are said to be ignored.
    #[expect(deprecated, reason = "every field is named, deprecated ones too, so that none is overlooked")]
    pub(crate) fn decode(value: &pb::Http2ProtocolOptions, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::Http2ProtocolOptions as pb::Http2ProtocolOptions, audit, path;
            supported: allow_connect, max_concurrent_streams;
            ignored: hpack_table_size, initial_stream_window_size, initial_connection_window_size,
                allow_metadata, max_outbound_frames, max_outbound_control_frames,
                max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
                max_inbound_window_update_frames_per_data_frame_sent, stream_error_on_invalid_http_messaging,
                override_stream_error_on_invalid_http_message, custom_settings_parameters, connection_keepalive,
                use_oghttp2_codec, max_metadata_size, enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text,
                stream_reset_burst, stream_reset_rate;
            refused: );
        let streams = value.max_concurrent_streams.as_ref().map(|v| v.value);
        if streams.is_some_and(|n| !(1..=0x7fff_ffff).contains(&n)) {
            return Err(path.field("max_concurrent_streams").error("must be 1 to 2147483647"));
        }
        for (field, window) in [
            ("initial_stream_window_size", &value.initial_stream_window_size),
            ("initial_connection_window_size", &value.initial_connection_window_size),
        ] {
            if window.as_ref().is_some_and(|v| !(65_535..=0x7fff_ffff).contains(&v.value)) {
                return Err(path.field(field).error("must be 65535 to 2147483647"));
            }
        }
        Ok(Self { connect: value.allow_connect, streams })
    }

    pub(crate) fn encode(self) -> pb::Http2ProtocolOptions {
        pb::Http2ProtocolOptions {
            allow_connect: self.connect,
            max_concurrent_streams: self.streams.map(convert::wrap_u32),
            ..Default::default()
        }
    }

    /// The message, if anything in it is said.
    pub(crate) fn said(self) -> Option<pb::Http2ProtocolOptions> {
        (self != Self::default()).then(|| self.encode())
    }
}
