//! Ways to find the address of the client (`original_ip_detection_extensions`).

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb_hcm;
use envoy_types::pb::envoy::extensions::http::original_ip_detection as pb;
use prost::Name as _;

use crate::convert;
use crate::network::Network;
use crate::{Audit, Error, Path};

/// A way to find the address of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressDetection {
    /// A header that holds the address.
    Header {
        /// Its name.
        name: String,
        /// True when a client with that address may be internal.
        is_trusted: bool,
        /// The status of the reply to a request without it; `None` lets the request pass.
        otherwise: Option<u16>,
    },
    /// `x-forwarded-for`.
    Forwarded {
        /// The proxies in front.
        proxies: TrustedProxies,
        /// True when the address of the peer is appended to the header.
        appends: bool,
    },
}

/// The proxies whose entries in `x-forwarded-for` are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxies {
    /// This number of proxies.
    Hops(u32),
    /// The proxies with addresses in these networks.
    Networks(Vec<Network>),
}

impl AddressDetection {
    /// Decodes the extensions of a connection manager.
    pub(super) fn decode_all(
        value: &pb_hcm::HttpConnectionManager,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Vec<Self>, Error> {
        let path = path.field("original_ip_detection_extensions");
        let extensions = &value.original_ip_detection_extensions;
        if extensions.is_empty() {
            return Ok(Vec::new());
        }
        let uses_peer = value.use_remote_address.as_ref().is_some_and(|v| v.value);
        if uses_peer || value.xff_num_trusted_hops > 0 {
            return Err(path.error("does not go with use_remote_address or xff_num_trusted_hops"));
        }
        extensions.iter().enumerate().map(|(i, extension)| Self::decode(extension, audit, &path.index(i))).collect()
    }

    fn decode(value: &core::TypedExtensionConfig, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        let Some(any) = &value.typed_config else { return Err(path.error("needs typed_config")) };
        let here = path.field("typed_config");
        if any.type_url == pb::custom_header::v3::CustomHeaderConfig::type_url() {
            use pb::custom_header::v3::CustomHeaderConfig;
            let config: CustomHeaderConfig = convert::from_any(any, &here)?;
            audit!(&config, CustomHeaderConfig as CustomHeaderConfig, audit, &here;
                supported: header_name, allow_extension_to_set_address_as_trusted, reject_with_status;
                ignored: ; refused: );
            if config.header_name.is_empty() {
                return Err(here.field("header_name").error("is required"));
            }
            // Envoy: a status outside of 400 to 511 is 403.
            let status = config
                .reject_with_status
                .map(|status| u16::try_from(status.code).ok().filter(|code| (400..=511).contains(code)).unwrap_or(403));
            return Ok(Self::Header {
                name: config.header_name.to_ascii_lowercase(),
                is_trusted: config.allow_extension_to_set_address_as_trusted,
                otherwise: status,
            });
        }
        if any.type_url == pb::xff::v3::XffConfig::type_url() {
            use pb::xff::v3::XffConfig;
            let config: XffConfig = convert::from_any(any, &here)?;
            audit!(&config, XffConfig as XffConfig, audit, &here;
                supported: xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append; ignored: ; refused: );
            let proxies = match config.xff_trusted_cidrs {
                Some(_) if config.xff_num_trusted_hops > 0 => {
                    return Err(here.error("xff_num_trusted_hops and xff_trusted_cidrs exclude each other"));
                }
                Some(trusted) => {
                    let of = here.field("xff_trusted_cidrs");
                    let networks = trusted.cidrs.iter().map(|cidr| Network::decode(cidr, &of));
                    TrustedProxies::Networks(networks.collect::<Result<_, _>>()?)
                }
                None => TrustedProxies::Hops(config.xff_num_trusted_hops),
            };
            let appends = config.skip_xff_append.is_some_and(|skips| !skips.value);
            return Ok(Self::Forwarded { proxies, appends });
        }
        Err(path.error(format!("'{}' is not supported", value.name)))
    }

    pub(super) fn encode(&self) -> core::TypedExtensionConfig {
        let (name, config) = match self {
            Self::Header { name, is_trusted, otherwise } => {
                let status = otherwise.map(|code| envoy_types::pb::envoy::r#type::v3::HttpStatus { code: code.into() });
                let config = pb::custom_header::v3::CustomHeaderConfig {
                    header_name: name.clone(),
                    allow_extension_to_set_address_as_trusted: *is_trusted,
                    reject_with_status: status,
                };
                ("envoy.extensions.http.original_ip_detection.custom_header", convert::any(&config))
            }
            Self::Forwarded { proxies, appends } => {
                let mut config = pb::xff::v3::XffConfig {
                    skip_xff_append: appends.then(|| convert::wrap_bool(false)),
                    ..Default::default()
                };
                match proxies {
                    TrustedProxies::Hops(hops) => config.xff_num_trusted_hops = *hops,
                    TrustedProxies::Networks(networks) => {
                        let cidrs = networks.iter().map(Network::encode).collect();
                        config.xff_trusted_cidrs = Some(pb::xff::v3::XffTrustedCidrs { cidrs });
                    }
                }
                ("envoy.extensions.http.original_ip_detection.xff", convert::any(&config))
            }
        };
        core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
    }
}
