//! Header edits: set, append, remove. Values may hold format commands.

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as pb_mutation;
use envoy_types::pb::envoy::config::core::v3 as core;

use crate::matcher::StringMatcher;
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

    fn encode(&self) -> core::HeaderValueOption {
        use core::header_value_option::HeaderAppendAction as A;
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: self.name.clone(),
                value: self.value.source().to_owned(),
                raw_value: Vec::new(),
            }),
            append_action: match self.action {
                AppendAction::Append => A::AppendIfExistsOrAdd,
                AppendAction::AddIfAbsent => A::AddIfAbsent,
                AppendAction::Overwrite => A::OverwriteIfExistsOrAdd,
                AppendAction::OverwriteIfExists => A::OverwriteIfExists,
            } as i32,
            keep_empty_value: self.keep_empty,
            ..Default::default()
        }
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
        self.add.iter().map(HeaderValue::encode).collect()
    }
}

/// One change of a head. Unlike [`HeaderEdits`], changes are made one after the other, and each sees what those before it did
/// (Envoy: `HeaderMutations::evaluateHeaders`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Removes a header.
    Remove(String),
    /// Removes the headers with these names.
    RemoveMatching(StringMatcher),
    /// Puts a header.
    Put(HeaderValue),
}

impl Mutation {
    /// Decodes a list of changes.
    pub(crate) fn decode_all(list: &[pb_mutation::HeaderMutation], path: &Path<'_>) -> Result<Vec<Self>, Error> {
        list.iter().enumerate().map(|(i, mutation)| Self::decode(mutation, &path.index(i))).collect()
    }

    fn decode(mutation: &pb_mutation::HeaderMutation, path: &Path<'_>) -> Result<Self, Error> {
        use pb_mutation::header_mutation::Action as A;
        match &mutation.action {
            Some(A::Remove(name)) if serin_http1::is_field_name(name.as_bytes()) => {
                Ok(Self::Remove(name.to_ascii_lowercase()))
            }
            Some(A::Remove(_)) => Err(path.field("remove").error("is no name of a header")),
            Some(A::RemoveOnMatch(matching)) => {
                let path = path.field("remove_on_match");
                let matcher = matching.key_matcher.as_ref();
                let matcher = matcher.ok_or_else(|| path.field("key_matcher").error("is required"))?;
                Ok(Self::RemoveMatching(StringMatcher::decode(matcher, &path.field("key_matcher"))?))
            }
            Some(A::Append(option)) => Ok(Self::Put(decode_value(option, &path.field("append"))?)),
            None => Err(path.error("needs remove, remove_on_match or append")),
        }
    }

    /// As [`decode_all`](Self::decode_all) reads them.
    pub(crate) fn encode_all(list: &[Self]) -> Vec<pb_mutation::HeaderMutation> {
        use pb_mutation::header_mutation::{Action as A, RemoveOnMatch};
        let action = |mutation: &Self| match mutation {
            Self::Remove(name) => A::Remove(name.clone()),
            Self::RemoveMatching(matcher) => A::RemoveOnMatch(RemoveOnMatch { key_matcher: Some(matcher.encode()) }),
            Self::Put(value) => A::Append(value.encode()),
        };
        list.iter().map(|mutation| pb_mutation::HeaderMutation { action: Some(action(mutation)) }).collect()
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
