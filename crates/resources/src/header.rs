//! Header edits: set, append, remove. Values are literal; a value with a format command is refused.

use envoy_types::pb::envoy::config::core::v3 as core;

use crate::{Error, Path};

/// What to do with a header of the same name that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Add another value.
    Append,
    /// Add only when absent.
    AddIfAbsent,
    /// Replace, or add when absent.
    Overwrite,
    /// Replace; never add.
    OverwriteIfExists,
}

/// One header to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue {
    /// Name, lower-case.
    pub name: String,
    /// Literal value.
    pub value: String,
    /// How.
    pub action: AppendAction,
}

/// Edits to one header block; removals come after additions, as in Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Headers to put, in order.
    pub add: Vec<HeaderValue>,
    /// Names to remove.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    pub(crate) fn decode(add: &[core::HeaderValueOption], remove: &[String], path: &Path<'_>) -> Result<Self, Error> {
        let add =
            add.iter().enumerate().map(|(i, option)| decode_value(option, &path.index(i))).collect::<Result<_, _>>()?;
        Ok(Self { add, remove: remove.iter().map(|n| n.to_ascii_lowercase()).collect() })
    }

    pub(crate) fn encode_add(&self) -> Vec<core::HeaderValueOption> {
        use core::header_value_option::HeaderAppendAction as A;
        self.add
            .iter()
            .map(|edit| core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: edit.name.clone(),
                    value: edit.value.replace('%', "%%"),
                    raw_value: Vec::new(),
                }),
                append_action: match edit.action {
                    AppendAction::Append => A::AppendIfExistsOrAdd,
                    AppendAction::AddIfAbsent => A::AddIfAbsent,
                    AppendAction::Overwrite => A::OverwriteIfExistsOrAdd,
                    AppendAction::OverwriteIfExists => A::OverwriteIfExists,
                } as i32,
                ..Default::default()
            })
            .collect()
    }
}

#[expect(deprecated, reason = "the older append flag still decides when it is set")]
fn decode_value(option: &core::HeaderValueOption, path: &Path<'_>) -> Result<HeaderValue, Error> {
    use core::header_value_option::HeaderAppendAction as A;
    let header = option.header.as_ref().ok_or_else(|| path.field("header").error("is required"))?;
    let raw = if header.raw_value.is_empty() {
        header.value.clone()
    } else {
        String::from_utf8(header.raw_value.clone())
            .map_err(|_| path.field("header").field("raw_value").error("is not UTF-8"))?
    };
    let value = raw.replace("%%", "\u{0}");
    if value.contains('%') {
        return Err(path.field("header").field("value").error("format commands (%…%) are not supported yet"));
    }
    let action = match (option.append.as_ref(), A::try_from(option.append_action)) {
        (Some(append), _) if append.value => AppendAction::Append,
        (Some(_), _) | (None, Ok(A::OverwriteIfExistsOrAdd)) => AppendAction::Overwrite,
        (None, Ok(A::AppendIfExistsOrAdd)) => AppendAction::Append,
        (None, Ok(A::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(A::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (None, Err(_)) => return Err(path.field("append_action").error("is no known action")),
    };
    let valid =
        serin_http1::is_field_name(header.key.as_bytes()) || header.key == ":path" || header.key == ":authority";
    if !valid || !serin_http1::is_field_value(raw.as_bytes()) {
        return Err(path.field("header").error("has an invalid name or value"));
    }
    Ok(HeaderValue { name: header.key.to_ascii_lowercase(), value: value.replace('\u{0}', "%"), action })
}
