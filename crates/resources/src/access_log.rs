//! Where access logs go and in which format.

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as pb_file;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as pb_stream;
use prost::Name as _;

use crate::convert;
use crate::{Audit, Error, Path};

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: Sink,
    /// Envoy format string; `None` is Envoy's default.
    pub format: Option<String>,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file that is appended to.
    File(String),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl AccessLog {
    pub(crate) fn decode(value: &pb::AccessLog, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        if value.filter.is_some() {
            audit.ignore(path, "filter");
        }
        let Some(pb::access_log::ConfigType::TypedConfig(any)) = &value.config_type else {
            return Err(path.error("needs typed_config"));
        };
        let here = path.field("typed_config");
        if any.type_url == pb_file::FileAccessLog::type_url() {
            let file: pb_file::FileAccessLog = convert::from_any(any, &here)?;
            return Ok(Self { sink: Sink::File(file.path.clone()), format: file_format(&file, audit, &here)? });
        }
        if any.type_url == pb_stream::StdoutAccessLog::type_url() {
            let log: pb_stream::StdoutAccessLog = convert::from_any(any, &here)?;
            let pb_stream::stdout_access_log::AccessLogFormat::LogFormat(format) = match log.access_log_format {
                Some(f) => f,
                None => return Ok(Self { sink: Sink::Stdout, format: None }),
            };
            return Ok(Self { sink: Sink::Stdout, format: text_format(&format, audit, &here)? });
        }
        if any.type_url == pb_stream::StderrAccessLog::type_url() {
            return Ok(Self { sink: Sink::Stderr, format: None });
        }
        audit.ignore(path, "typed_config");
        Err(path.field("name").error(format!("access logger '{}' is not supported", value.name)))
    }
}

#[expect(deprecated, reason = "the plain format field is still common in published files")]
fn file_format(file: &pb_file::FileAccessLog, audit: &mut Audit, path: &Path<'_>) -> Result<Option<String>, Error> {
    use pb_file::file_access_log::AccessLogFormat as F;
    match &file.access_log_format {
        None => Ok(None),
        Some(F::Format(text)) => Ok(Some(text.clone())),
        Some(F::LogFormat(format)) => text_format(format, audit, path),
        Some(F::JsonFormat(_) | F::TypedJsonFormat(_)) => {
            audit.ignore(path, "json_format");
            Ok(None)
        }
    }
}

#[expect(deprecated, reason = "text_format is still common in published files")]
fn text_format(
    format: &core::SubstitutionFormatString,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<Option<String>, Error> {
    use core::data_source::Specifier;
    use core::substitution_format_string::Format as F;
    match &format.format {
        None => Ok(None),
        Some(F::TextFormat(text)) => Ok(Some(text.clone())),
        Some(F::TextFormatSource(source)) => match &source.specifier {
            Some(Specifier::InlineString(text)) => Ok(Some(text.clone())),
            _ => Err(path.field("text_format_source").error("only inline_string is supported")),
        },
        Some(F::JsonFormat(_)) => {
            audit.ignore(path, "json_format");
            Ok(None)
        }
    }
}
