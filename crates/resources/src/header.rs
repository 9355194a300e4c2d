//! Header edits: set, append, remove. Values may hold format commands.

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as pb_mutation;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::substitution::Format;
use crate::{Error, Path};

/// The handling of a header of the same name that is already there.
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
    /// Its value.
    pub value: Format,
    /// The handling of a header that is already there.
    pub action: AppendAction,
    /// True when it is put even when its value is empty.
    pub keep_empty: bool,
}

impl HeaderValue {
    /// A header that always has this value.
    #[must_use]
    pub fn literal(name: &str, value: &str, action: AppendAction) -> Self {
        Self { name: name.to_ascii_lowercase(), value: Format::literal(value), action, keep_empty: value.is_empty() }
    }
}

/// Edits to one header block, removals first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Headers to put, in order.
    pub add: Vec<HeaderValue>,
    /// Names to remove.
    pub remove: Vec<String>,
}

impl HeaderEdits {
    /// No edits.
    pub const NONE: Self = Self { add: Vec::new(), remove: Vec::new() };

    /// Returns true when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    pub(crate) fn decode(add: &[core::HeaderValueOption], remove: &[String], path: &Path<'_>) -> Result<Self, Error> {
        // Envoy's validation rules.
        if add.len() > 1000 {
            return Err(path.error("more than 1000 headers"));
        }
        let add =
            add.iter().enumerate().map(|(i, option)| decode_value(option, &path.index(i))).collect::<Result<_, _>>()?;
        let remove: Vec<String> = remove.iter().map(|n| n.to_ascii_lowercase()).collect();
        if let Some(name) = remove.iter().find(|n| n.starts_with(':') || *n == "host") {
            return Err(path.error(format!("'{name}' may not be removed")));
        }
        Ok(Self { add, remove })
    }

    pub(crate) fn encode_add(&self) -> Vec<core::HeaderValueOption> {
        use core::header_value_option::HeaderAppendAction as A;
        self.add
            .iter()
            .map(|edit| core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: edit.name.clone(),
                    value: edit.value.source().to_owned(),
                    raw_value: Vec::new(),
                }),
                append_action: match edit.action {
                    AppendAction::Append => A::AppendIfExistsOrAdd,
                    AppendAction::AddIfAbsent => A::AddIfAbsent,
                    AppendAction::Overwrite => A::OverwriteIfExistsOrAdd,
                    AppendAction::OverwriteIfExists => A::OverwriteIfExists,
                } as i32,
                keep_empty_value: edit.keep_empty,
                ..Default::default()
            })
            .collect()
    }
}

impl HeaderEdits {
    /// As mutations, which [`mutations`] reads.
    pub(crate) fn encode_mutations(&self) -> Vec<pb_mutation::HeaderMutation> {
        use pb_mutation::header_mutation::Action as A;
        let remove = self.remove.iter().cloned().map(A::Remove);
        let actions = remove.chain(self.encode_add().into_iter().map(A::Append));
        actions.map(|action| pb_mutation::HeaderMutation { action: Some(action) }).collect()
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
    let value_path = path.field("header");
    if raw.len() > 16_384 {
        return Err(value_path.field("value").error("more than 16384 bytes"));
    }
    let value = Format::compile(&raw).map_err(|e| value_path.field("value").error(e.to_string()))?;
    let action = match (option.append.as_ref(), A::try_from(option.append_action)) {
        (Some(append), _) if append.value => AppendAction::Append,
        (Some(_), _) | (None, Ok(A::OverwriteIfExistsOrAdd)) => AppendAction::Overwrite,
        (None, Ok(A::AppendIfExistsOrAdd)) => AppendAction::Append,
        (None, Ok(A::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(A::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (None, Err(_)) => return Err(path.field("append_action").error("is no known action")),
    };
    let name = header.key.to_ascii_lowercase();
    if name.starts_with(':') || name == "host" {
        return Err(path.field("header").field("key").error("':' names and host may not be modified"));
    }
    if !serin_http1::is_field_name(name.as_bytes()) || !serin_http1::is_field_value(raw.as_bytes()) {
        return Err(path.field("header").error("has an invalid name or value"));
    }
    Ok(HeaderValue { name, value, action, keep_empty: option.keep_empty_value })
}

/// Header mutations, in their order, as far as edits (removals first) mean the same.
pub(crate) fn mutations(list: &[pb_mutation::HeaderMutation], path: &Path<'_>) -> Result<HeaderEdits, Error> {
    use pb_mutation::header_mutation::Action as A;
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for (i, mutation) in list.iter().enumerate() {
        match &mutation.action {
            Some(A::Remove(name)) if !add.iter().any(|o: &core::HeaderValueOption| named(o, name)) => {
                remove.push(name.clone());
            }
            Some(A::Append(option)) => add.push(option.clone()),
            Some(A::Remove(_)) => return Err(path.index(i).error("removes what an earlier one puts")),
            _ => return Err(path.index(i).error("needs remove or append")),
        }
    }
    HeaderEdits::decode(&add, &remove, path)
}

fn named(option: &core::HeaderValueOption, name: &str) -> bool {
    option.header.as_ref().is_some_and(|h| h.key.eq_ignore_ascii_case(name))
}
