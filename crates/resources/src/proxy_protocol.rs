//! The PROXY protocol: who asked, said before the first byte (HAProxy's specification, versions 1 and 2).

use envoy_types::pb::envoy::config::core::v3 as pb;

use crate::{Audit, Error, Path};

/// The version of a header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    #[default]
    V1,
    /// Binary, with values by type behind the addresses.
    V2,
}

/// The header that is sent to an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Its version.
    pub version: ProxyVersion,
    /// The values of the client's own header that it repeats; for version 2.
    pub passed: PassedValues,
    /// Values that it adds, by type; for version 2. They go before values that are passed on.
    pub added: Vec<(u8, Vec<u8>)>,
}

/// The values of a client's header that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PassedValues {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those of these types.
    Of(Vec<u8>),
}

impl PassedValues {
    /// Returns whether values of that type are kept.
    #[must_use]
    pub fn contains(&self, kind: u8) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Of(kinds) => kinds.contains(&kind),
        }
    }

    pub(crate) fn decode(value: Option<&pb::ProxyProtocolPassThroughTlVs>, path: &Path<'_>) -> Result<Self, Error> {
        let Some(value) = value else { return Ok(Self::Nothing) };
        let path = path.field("pass_through_tlvs");
        match value.match_type {
            0 => Ok(Self::All),
            1 => {
                value.tlv_type.iter().map(|t| kind(*t, &path.field("tlv_type"))).collect::<Result<_, _>>().map(Self::Of)
            }
            _ => Err(path.field("match_type").error("is not known")),
        }
    }

    pub(crate) fn encode(&self) -> Option<pb::ProxyProtocolPassThroughTlVs> {
        let of = |match_type, kinds: &[u8]| pb::ProxyProtocolPassThroughTlVs {
            match_type,
            tlv_type: kinds.iter().map(|k| u32::from(*k)).collect(),
        };
        match self {
            Self::Nothing => None,
            Self::All => Some(of(0, &[])),
            Self::Of(kinds) => Some(of(1, kinds)),
        }
    }
}

/// A type of a value: one byte.
pub(crate) fn kind(value: u32, path: &Path<'_>) -> Result<u8, Error> {
    u8::try_from(value).map_err(|_| path.error("must be less than 256"))
}

impl ProxyProtocol {
    pub(crate) fn decode(value: &pb::ProxyProtocolConfig, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::ProxyProtocolConfig as pb::ProxyProtocolConfig, audit, path;
            supported: version, pass_through_tlvs, added_tlvs; ignored: ; refused: );
        let added_path = path.field("added_tlvs");
        let mut added = Vec::new();
        for (i, entry) in value.added_tlvs.iter().enumerate() {
            let here = added_path.index(i);
            audit!(entry, pb::TlvEntry as pb::TlvEntry, audit, &here;
                supported: r#type, value; ignored: ; refused: format_string);
            added.push((kind(entry.r#type, &here.field("type"))?, entry.value.clone()));
        }
        Ok(Self {
            version: match value.version {
                0 => ProxyVersion::V1,
                1 => ProxyVersion::V2,
                _ => return Err(path.field("version").error("is not known")),
            },
            passed: PassedValues::decode(value.pass_through_tlvs.as_ref(), path)?,
            added,
        })
    }

    pub(crate) fn encode(&self) -> pb::ProxyProtocolConfig {
        let entry = |(kind, value): &(u8, Vec<u8>)| pb::TlvEntry {
            r#type: (*kind).into(),
            value: value.clone(),
            ..Default::default()
        };
        pb::ProxyProtocolConfig {
            version: self.version as i32,
            pass_through_tlvs: self.passed.encode(),
            added_tlvs: self.added.iter().map(entry).collect(),
        }
    }
}
