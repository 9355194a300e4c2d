//! `envoy.config.core.v3.SubstitutionFormatString`: what a line of a log or a body is made of, as text or JSON.

use envoy_types::pb::envoy::config::core::v3 as core;

use crate::json_format::JsonNode;
use crate::substitution::{Format, FormatContext};
use crate::{Audit, Error, Path};

/// A format of lines or bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatString {
    /// Text or JSON.
    pub kind: FormatKind,
    /// True when what is not known is left out, instead of `-` and `null`.
    pub omits_empty: bool,
    /// The content type of a body; empty for that of its kind.
    pub content_type: String,
}

/// The kinds of formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatKind {
    /// This text.
    Text(Format),
    /// An object of JSON, on a line.
    Json(JsonNode),
}

impl Default for FormatString {
    fn default() -> Self {
        FormatKind::Text(Format::default_log()).into()
    }
}

impl From<FormatKind> for FormatString {
    fn from(kind: FormatKind) -> Self {
        Self { kind, omits_empty: false, content_type: String::new() }
    }
}

impl FormatString {
    fn missing(&self) -> &'static str {
        if self.omits_empty { "" } else { "-" }
    }

    /// Appends a line of a log. In text, what clients and backends say is escaped.
    pub fn write_line(&self, record: &dyn FormatContext, out: &mut String) {
        match &self.kind {
            FormatKind::Text(format) => format.write_line(record, self.missing(), out),
            FormatKind::Json(_) => self.write(record, out),
        }
    }

    /// Appends a body.
    pub fn write(&self, record: &dyn FormatContext, out: &mut String) {
        match &self.kind {
            FormatKind::Text(format) => format.write(record, self.missing(), out),
            FormatKind::Json(json) => {
                json.write(record, self.omits_empty, out);
                out.push('\n');
            }
        }
    }

    /// Returns the content type of a body.
    #[must_use]
    pub fn content_type(&self) -> &str {
        match (self.content_type.as_str(), &self.kind) {
            ("", FormatKind::Text(_)) => "text/plain",
            ("", FormatKind::Json(_)) => "application/json",
            (given, _) => given,
        }
    }

    #[expect(deprecated, reason = "text_format is still common in published files")]
    pub(crate) fn decode(
        value: &core::SubstitutionFormatString,
        audit: &mut Audit,
        path: &Path<'_>,
    ) -> Result<Self, Error> {
        use core::data_source::Specifier;
        use core::substitution_format_string::Format as F;
        audit!(value, core::SubstitutionFormatString as core::SubstitutionFormatString, audit, path;
            supported: format, omit_empty_values, content_type; ignored: formatters, json_format_options; refused: );
        let kind = match &value.format {
            None => return Err(path.error("needs a format")),
            Some(F::TextFormat(text)) => FormatKind::text(text, path)?,
            Some(F::TextFormatSource(source)) => match &source.specifier {
                Some(Specifier::InlineString(text)) => FormatKind::text(text, path)?,
                Some(Specifier::InlineBytes(bytes)) => FormatKind::text(&String::from_utf8_lossy(bytes), path)?,
                _ => return Err(path.field("text_format_source").error("only inline_string is supported")),
            },
            Some(F::JsonFormat(json)) => FormatKind::Json(JsonNode::compile(json, path)?),
        };
        Ok(Self { kind, omits_empty: value.omit_empty_values, content_type: value.content_type.clone() })
    }

    pub(crate) fn encode(&self) -> core::SubstitutionFormatString {
        use core::data_source::Specifier;
        use core::substitution_format_string::Format as F;
        let format = match &self.kind {
            FormatKind::Text(format) => F::TextFormatSource(core::DataSource {
                specifier: Some(Specifier::InlineString(format.source().to_owned())),
                ..Default::default()
            }),
            FormatKind::Json(json) => F::JsonFormat(json.encode()),
        };
        core::SubstitutionFormatString {
            format: Some(format),
            omit_empty_values: self.omits_empty,
            content_type: self.content_type.clone(),
            ..Default::default()
        }
    }
}

impl FormatKind {
    pub(crate) fn text(text: &str, path: &Path<'_>) -> Result<Self, Error> {
        Format::compile(text).map(Self::Text).map_err(|e| path.error(e.to_string()))
    }
}
