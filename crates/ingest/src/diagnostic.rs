//! What is wrong with a document, and where.

use std::fmt;
use std::sync::Arc;

use crate::node::Position;

/// How bad it is. Only an error keeps an object from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Works, but probably not as meant.
    Warning,
    /// The object is not used.
    Error,
}

impl Severity {
    /// `error`, `warning` or `info`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The kinds of findings; their names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The file is no YAML, or breaks a size or nesting limit.
    Syntax,
    /// A file that is too large or cannot be read.
    Unreadable,
    /// A file that lacks objects, as one does while somebody writes it: they stay in force for a moment.
    HalfWritten,
    /// Folders without any object.
    NoObjects,
    /// A kind or API version nobody here knows.
    UnknownKind,
    /// A field nobody here knows.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A field has the wrong type.
    WrongType,
    /// A field has a value it cannot have.
    InvalidValue,
    /// Two objects of one name, or two items of one name in an object.
    Duplicate,
    /// A host that no service has.
    UnknownHost,
    /// A subset that no DestinationRule defines.
    UnknownSubset,
    /// A gateway that does not exist.
    UnknownGateway,
    /// A port that the service does not have.
    UnknownPort,
    /// Something was taken away that another object still uses: it stays in force.
    StillUsed,
    /// A valid field that has no effect yet.
    NoEffectYet,
    /// A valid field that must not be ignored and is not carried out yet.
    NotSupported,
    /// A rule that no request reaches.
    UnreachableRule,
    /// A policy that is not carried out, so that what it guards is closed.
    NotEnforced,
    /// A redirect that leads where the request came from.
    RedirectLoop,
    /// Weights that do not add up to 100: the shares that result are said.
    UnusualWeights,
    /// Several objects are one, and what is used of each is said.
    Merged,
    /// A release that cannot see what it should at the traffic there is.
    BlindRelease,
}

impl Code {
    /// The stable code, such as `SRN0102`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SRN0001",
            Self::Unreadable => "SRN0002",
            Self::HalfWritten => "SRN0009",
            Self::NoObjects => "SRN0010",
            Self::UnknownKind => "SRN0003",
            Self::UnknownField => "SRN0004",
            Self::MissingField => "SRN0005",
            Self::WrongType => "SRN0006",
            Self::InvalidValue => "SRN0007",
            Self::Duplicate => "SRN0008",
            Self::UnknownHost => "SRN0101",
            Self::UnknownSubset => "SRN0102",
            Self::UnknownGateway => "SRN0103",
            Self::UnknownPort => "SRN0104",
            Self::StillUsed => "SRN0105",
            Self::NoEffectYet => "SRN0201",
            Self::NotSupported => "SRN0202",
            Self::UnreachableRule => "SRN0203",
            Self::NotEnforced => "SRN0204",
            Self::RedirectLoop => "SRN0205",
            Self::UnusualWeights => "SRN0206",
            Self::Merged => "SRN0207",
            Self::BlindRelease => "SRN0301",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of finding.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Which file.
    pub file: Arc<str>,
    /// Where in it; line 0 speaks of the file as a whole.
    pub at: Position,
    /// Field path, such as `spec.http[0].route[1].weight`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}[{}]",
            self.file,
            self.at.line,
            self.at.column,
            self.severity.as_str(),
            self.code.as_str()
        )?;
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}
