//! Changes to local replies (`local_reply_config` of the connection manager).

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use crate::access_log::LogFilter;
use crate::convert;
use crate::header::HeaderEdits;
use crate::{Audit, Error, FormatString, Path};

/// How local replies are changed: by the first mapper whose filter they pass, and then by a format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalReplyConfig {
    /// The mappers, in their order.
    pub mappers: Vec<Mapper>,
    /// The format of bodies where the mapper has none; `None` leaves them as they are.
    pub format: Option<FormatString>,
}

/// What becomes of the local replies that pass a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapper {
    /// The filter.
    pub filter: LogFilter,
    /// Their status instead.
    pub status: Option<u16>,
    /// Their body instead.
    pub body: Option<Vec<u8>>,
    /// The format of their bodies.
    pub format: Option<FormatString>,
    /// Headers that are added.
    pub headers: HeaderEdits,
}

impl LocalReplyConfig {
    pub(crate) fn decode(value: &pb::LocalReplyConfig, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::LocalReplyConfig as pb::LocalReplyConfig, audit, path;
            supported: mappers, body_format; ignored: ; refused: );
        let of_mappers = path.field("mappers");
        let mappers = value.mappers.iter().enumerate();
        let mappers = mappers.map(|(i, mapper)| Mapper::decode(mapper, audit, &of_mappers.index(i)));
        let mappers = mappers.collect::<Result<Vec<_>, _>>()?;
        let format = value.body_format.as_ref();
        let format = format.map(|f| FormatString::decode(f, audit, &path.field("body_format"))).transpose()?;
        Ok(Self { mappers, format })
    }

    pub(crate) fn encode(&self) -> pb::LocalReplyConfig {
        pb::LocalReplyConfig {
            mappers: self.mappers.iter().map(Mapper::encode).collect(),
            body_format: self.format.as_ref().map(FormatString::encode),
        }
    }
}

impl Mapper {
    fn decode(value: &pb::ResponseMapper, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        audit!(value, pb::ResponseMapper as pb::ResponseMapper, audit, path;
            supported: filter, status_code, body, body_format_override, headers_to_add; ignored: ; refused: );
        let of_filter = path.field("filter");
        let filter = value.filter.as_ref().ok_or_else(|| of_filter.error("is required"))?;
        let status = value.status_code.as_ref().map(|status| {
            let status = u16::try_from(status.value).ok().filter(|status| (200..600).contains(status));
            status.ok_or_else(|| path.field("status_code").error("must be 200 to 599"))
        });
        let format = value.body_format_override.as_ref();
        let format = format.map(|f| FormatString::decode(f, audit, &path.field("body_format_override")));
        Ok(Self {
            filter: LogFilter::decode(filter, audit, &of_filter)?,
            status: status.transpose()?,
            body: value.body.as_ref().map(|body| convert::inline(body, &path.field("body"))).transpose()?,
            format: format.transpose()?,
            headers: HeaderEdits::decode(&value.headers_to_add, &[], path)?,
        })
    }

    fn encode(&self) -> pb::ResponseMapper {
        let body = |bytes: &Vec<u8>| core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineBytes(bytes.clone())),
            ..Default::default()
        };
        pb::ResponseMapper {
            filter: Some(self.filter.encode()),
            status_code: self.status.map(|status| convert::wrap_u32(status.into())),
            body: self.body.as_ref().map(body),
            body_format_override: self.format.as_ref().map(FormatString::encode),
            headers_to_add: self.headers.encode_add(),
        }
    }
}
