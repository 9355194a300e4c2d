//! A refusal with the path of the field that caused it.

use std::fmt;

/// The reason why a resource was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Error {
    /// Field path from the resource, such as `Listener.filter_chains[0].filters[0]`.
    pub path: String,
    /// The mistake, and what would be accepted.
    pub message: String,
}

/// The place of a decoder, as a list from the leaf to the root: cheap to extend, written out only for a message.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Self>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The path of a whole resource.
    #[must_use]
    pub fn root(name: &'a str) -> Self {
        Self { parent: None, segment: Segment::Field(name) }
    }

    /// The path of a field of what `self` names.
    #[must_use]
    pub fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), segment: Segment::Field(name) }
    }

    /// The path of an element of what `self` names.
    #[must_use]
    pub fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), segment: Segment::Index(index) }
    }

    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error { path: self.to_string(), message: message.into() }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.segment {
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => write!(f, "{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
        }
    }
}
