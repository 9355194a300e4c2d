//! The outputs of access logs, and their formats.

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as pb_file;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as pb_stream;
use prost::Name as _;

use crate::convert;
use crate::json_format::JsonNode;
use crate::substitution::Format;
use crate::{Audit, Error, Path};

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The output of the lines.
    pub sink: Sink,
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// This text.
    Text(Format),
    /// A line of JSON.
    Json(JsonNode),
}

impl Default for LogFormat {
    fn default() -> Self {
        Self::Text(Format::default_log())
    }
}

impl LogFormat {
    fn encode(&self) -> core::SubstitutionFormatString {
        use core::data_source::Specifier;
        use core::substitution_format_string::Format as F;
        let format = match self {
            Self::Text(format) => F::TextFormatSource(core::DataSource {
                specifier: Some(Specifier::InlineString(format.source().to_owned())),
                ..Default::default()
            }),
            Self::Json(json) => F::JsonFormat(json.encode()),
        };
        core::SubstitutionFormatString { format: Some(format), ..Default::default() }
    }
}

/// The output of log lines.
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
    pub(crate) fn encode(&self) -> pb::AccessLog {
        use pb_stream::{stderr_access_log, stdout_access_log};
        let format = self.format.encode();
        let (name, any) = match &self.sink {
            Sink::File(path) => {
                let format = Some(pb_file::file_access_log::AccessLogFormat::LogFormat(format));
                let log = pb_file::FileAccessLog { path: path.clone(), access_log_format: format };
                ("envoy.access_loggers.file", convert::any(&log))
            }
            Sink::Stdout => {
                let format = Some(stdout_access_log::AccessLogFormat::LogFormat(format));
                let log = pb_stream::StdoutAccessLog { access_log_format: format };
                ("envoy.access_loggers.stdout", convert::any(&log))
            }
            Sink::Stderr => {
                let format = Some(stderr_access_log::AccessLogFormat::LogFormat(format));
                let log = pb_stream::StderrAccessLog { access_log_format: format };
                ("envoy.access_loggers.stderr", convert::any(&log))
            }
        };
        pb::AccessLog {
            name: name.to_owned(),
            filter: None,
            config_type: Some(pb::access_log::ConfigType::TypedConfig(any)),
        }
    }

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
                None => return Ok(Self { sink: Sink::Stdout, format: LogFormat::default() }),
            };
            return Ok(Self { sink: Sink::Stdout, format: text_format(&format, audit, &here)? });
        }
        if any.type_url == pb_stream::StderrAccessLog::type_url() {
            let log: pb_stream::StderrAccessLog = convert::from_any(any, &here)?;
            let format = match log.access_log_format {
                Some(pb_stream::stderr_access_log::AccessLogFormat::LogFormat(f)) => text_format(&f, audit, &here)?,
                None => LogFormat::default(),
            };
            return Ok(Self { sink: Sink::Stderr, format });
        }
        audit.ignore(path, "typed_config");
        Err(path.field("name").error(format!("access logger '{}' is not supported", value.name)))
    }
}

#[expect(deprecated, reason = "the plain format field is still common in published files")]
fn file_format(file: &pb_file::FileAccessLog, audit: &mut Audit, path: &Path<'_>) -> Result<LogFormat, Error> {
    use pb_file::file_access_log::AccessLogFormat as F;
    match &file.access_log_format {
        None => Ok(LogFormat::default()),
        Some(F::Format(text)) => text_of(text, path),
        Some(F::LogFormat(format)) => text_format(format, audit, path),
        Some(F::JsonFormat(json) | F::TypedJsonFormat(json)) => Ok(LogFormat::Json(JsonNode::compile(json, path)?)),
    }
}

#[expect(deprecated, reason = "text_format is still common in published files")]
fn text_format(
    format: &core::SubstitutionFormatString,
    audit: &mut Audit,
    path: &Path<'_>,
) -> Result<LogFormat, Error> {
    use core::data_source::Specifier;
    use core::substitution_format_string::Format as F;
    audit!(format, core::SubstitutionFormatString as core::SubstitutionFormatString, audit, path;
        supported: format; ignored: omit_empty_values, content_type, formatters, json_format_options; refused: );
    match &format.format {
        None => Ok(LogFormat::default()),
        Some(F::TextFormat(text)) => text_of(text, path),
        Some(F::TextFormatSource(source)) => match &source.specifier {
            Some(Specifier::InlineString(text)) => text_of(text, path),
            _ => Err(path.field("text_format_source").error("only inline_string is supported")),
        },
        Some(F::JsonFormat(json)) => Ok(LogFormat::Json(JsonNode::compile(json, path)?)),
    }
}

fn text_of(text: &str, path: &Path<'_>) -> Result<LogFormat, Error> {
    Format::compile(text).map(LogFormat::Text).map_err(|e| path.error(e.to_string()))
}
