//! The outputs of access logs, their formats, and the requests that they take.

mod filter;

use envoy_types::pb::envoy::config::accesslog::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as pb_file;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as pb_stream;
use prost::Name as _;

use crate::convert;
use crate::json_format::JsonNode;
use crate::{Audit, Error, FormatKind, FormatString, Path};

pub use filter::{Comparison, LogFilter, Operator};

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// The output of the lines.
    pub sink: Sink,
    /// The format of a line.
    pub format: FormatString,
    /// The requests that it takes; `None` takes all.
    pub filter: Option<LogFilter>,
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
            filter: self.filter.as_ref().map(LogFilter::encode),
            config_type: Some(pb::access_log::ConfigType::TypedConfig(any)),
        }
    }

    pub(crate) fn decode(value: &pb::AccessLog, audit: &mut Audit, path: &Path<'_>) -> Result<Self, Error> {
        let filter = value.filter.as_ref().map(|f| LogFilter::decode(f, audit, &path.field("filter"))).transpose()?;
        let Some(pb::access_log::ConfigType::TypedConfig(any)) = &value.config_type else {
            return Err(path.error("needs typed_config"));
        };
        let here = path.field("typed_config");
        let format = |format: Option<&core::SubstitutionFormatString>, audit: &mut Audit| match format {
            Some(format) => FormatString::decode(format, audit, &here.field("log_format")),
            None => Ok(FormatString::default()),
        };
        if any.type_url == pb_file::FileAccessLog::type_url() {
            let file: pb_file::FileAccessLog = convert::from_any(any, &here)?;
            return Ok(Self { sink: Sink::File(file.path.clone()), format: file_format(&file, audit, &here)?, filter });
        }
        if any.type_url == pb_stream::StdoutAccessLog::type_url() {
            let log: pb_stream::StdoutAccessLog = convert::from_any(any, &here)?;
            let of_log = log.access_log_format.map(|pb_stream::stdout_access_log::AccessLogFormat::LogFormat(f)| f);
            return Ok(Self { sink: Sink::Stdout, format: format(of_log.as_ref(), audit)?, filter });
        }
        if any.type_url == pb_stream::StderrAccessLog::type_url() {
            let log: pb_stream::StderrAccessLog = convert::from_any(any, &here)?;
            let of_log = log.access_log_format.map(|pb_stream::stderr_access_log::AccessLogFormat::LogFormat(f)| f);
            return Ok(Self { sink: Sink::Stderr, format: format(of_log.as_ref(), audit)?, filter });
        }
        audit.ignore(path, "typed_config");
        Err(path.field("name").error(format!("access logger '{}' is not supported", value.name)))
    }
}

#[expect(deprecated, reason = "the plain format field is still common in published files")]
fn file_format(file: &pb_file::FileAccessLog, audit: &mut Audit, path: &Path<'_>) -> Result<FormatString, Error> {
    use pb_file::file_access_log::AccessLogFormat as F;
    Ok(match &file.access_log_format {
        None => FormatString::default(),
        Some(F::Format(text)) => FormatKind::text(text, path)?.into(),
        Some(F::LogFormat(format)) => FormatString::decode(format, audit, &path.field("log_format"))?,
        Some(F::JsonFormat(json) | F::TypedJsonFormat(json)) => FormatKind::Json(JsonNode::compile(json, path)?).into(),
    })
}
