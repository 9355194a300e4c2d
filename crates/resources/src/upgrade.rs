//! Protocols that take a connection over: `Upgrade` and CONNECT (Envoy: HTTP upgrades).

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3::route_action as pb_route;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as pb;

use crate::convert;
use crate::http_filter::HttpFilter;
use crate::proxy_protocol::ProxyProtocol;
use crate::{Audit, Error, Path};

/// The name that stands for CONNECT among upgrades.
pub const CONNECT: &str = "CONNECT";

/// What a connection manager does about an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The protocol as it is configured, or `CONNECT`. Case does not count.
    pub protocol: String,
    /// Whether it is let in where the route does not say.
    pub enabled: bool,
    /// The filters that its requests pass; `None` are those of other requests.
    pub filters: Option<Vec<HttpFilter>>,
}

impl Upgrade {
    /// An upgrade that is let in.
    #[must_use]
    pub fn to(protocol: impl Into<String>) -> Self {
        Self { protocol: protocol.into(), enabled: true, filters: None }
    }

    pub(crate) fn decode_all(
        values: &[pb::UpgradeConfig],
        audit: &mut Audit,
        path: &Path<'_>,
        filters: impl Fn(&pb::UpgradeConfig, &mut Audit, &Path<'_>) -> Result<Vec<HttpFilter>, Error>,
    ) -> Result<Vec<Self>, Error> {
        let path = path.field("upgrade_configs");
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let here = path.index(i);
            audit!(value, pb::UpgradeConfig as pb::UpgradeConfig, audit, &here;
                supported: upgrade_type, enabled, filters; ignored: ; refused: );
            first(&value.upgrade_type, &mut seen, &here)?;
            let own = (!value.filters.is_empty()).then(|| filters(value, audit, &here)).transpose()?;
            let enabled = value.enabled.as_ref().is_none_or(|v| v.value);
            all.push(Self { protocol: value.upgrade_type.clone(), enabled, filters: own });
        }
        Ok(all)
    }

    pub(crate) fn encode(
        &self,
        router: &envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter,
    ) -> pb::UpgradeConfig {
        pb::UpgradeConfig {
            upgrade_type: self.protocol.clone(),
            enabled: (!self.enabled).then(|| convert::wrap_bool(false)),
            filters: match &self.filters {
                Some(filters) => filters.iter().map(HttpFilter::encode).chain([router.clone()]).collect(),
                None => Vec::new(),
            },
        }
    }
}

/// What a route does about an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// The protocol, or `CONNECT`. Case does not count.
    pub protocol: String,
    /// Whether it is let in, whatever the connection manager says.
    pub enabled: bool,
    /// How CONNECT ends here; `None` passes it on.
    pub connect: Option<ConnectConfig>,
}

/// CONNECT that ends here: the endpoint gets the bytes and no request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The header of the PROXY protocol that the endpoint gets first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether bodies of POST requests go the same way.
    pub allow_post: bool,
}

impl RouteUpgrade {
    pub(crate) fn decode_all(
        values: &[pb_route::UpgradeConfig],
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Vec<Self>, Error> {
        let path = path.field("upgrade_configs");
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let here = path.index(i);
            audit!(value, pb_route::UpgradeConfig as pb_route::UpgradeConfig, audit, &here;
                supported: upgrade_type, enabled, connect_config; ignored: ; refused: );
            if value.upgrade_type.is_empty() {
                return Err(here.field("upgrade_type").error("is required"));
            }
            first(&value.upgrade_type, &mut seen, &here)?;
            let connect = match &value.connect_config {
                None => None,
                Some(_) if !value.upgrade_type.eq_ignore_ascii_case(CONNECT) => {
                    return Err(here.field("connect_config").error("only CONNECT can end here"));
                }
                Some(config) => Some(ConnectConfig::decode(config, audit, &here.field("connect_config"))?),
            };
            let enabled = value.enabled.as_ref().is_none_or(|v| v.value);
            all.push(Self { protocol: value.upgrade_type.clone(), enabled, connect });
        }
        Ok(all)
    }

    pub(crate) fn encode(&self) -> pb_route::UpgradeConfig {
        pb_route::UpgradeConfig {
            upgrade_type: self.protocol.clone(),
            enabled: Some(convert::wrap_bool(self.enabled)),
            connect_config: self.connect.as_ref().map(ConnectConfig::encode),
        }
    }
}

impl ConnectConfig {
    fn decode(
        value: &pb_route::upgrade_config::ConnectConfig,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use pb_route::upgrade_config::ConnectConfig as Pb;
        audit!(value, Pb as Pb, audit, path; supported: proxy_protocol_config, allow_post; ignored: ; refused: );
        let proxy = value.proxy_protocol_config.as_ref();
        let proxy = proxy.map(|p| ProxyProtocol::decode(p, audit, &path.field("proxy_protocol_config"))).transpose()?;
        Ok(Self { proxy_protocol: proxy, allow_post: value.allow_post })
    }

    fn encode(&self) -> pb_route::upgrade_config::ConnectConfig {
        pb_route::upgrade_config::ConnectConfig {
            proxy_protocol_config: self.proxy_protocol.as_ref().map(|p| -> core::ProxyProtocolConfig { p.encode() }),
            allow_post: self.allow_post,
        }
    }
}

/// Refuses what is there twice.
fn first(protocol: &str, seen: &mut BTreeSet<String>, path: &Path<'_>) -> Result<(), Error> {
    match seen.insert(protocol.to_ascii_lowercase()) {
        true => Ok(()),
        false => Err(path.field("upgrade_type").error(format!("'{protocol}' is there twice"))),
    }
}
