//! What people write: Istio, Kubernetes and Serin documents, parsed into `model` values or into diagnostics
//! with file, line, column and field path.
//!
//! Never a panic and never silence: an unknown kind, an unknown field or a field that has no effect yet is said.
//! One bad field spoils its object, not the others of the file; a file that is no YAML spoils only itself.
//! It deliberately reads no files and has no clock: text comes in, values and diagnostics go out.

mod check;
mod closing;
mod cursor;
mod diagnostic;
mod document;
mod duration;
mod kind;
mod lower;
mod node;
mod outline;
mod parts;
mod reference;
mod render;
mod spelling;

pub use check::{Checked, Checker, Difference, check};
pub use cursor::{Context, Cursor};
pub use diagnostic::{Code, Diagnostic, Severity};
pub use document::{Document, MAX_FILE_BYTES, Parsed, close_unreadable};
pub use duration::{InvalidDuration, duration};
pub use node::Position;
pub use parts::{InParts, Parts, parse, parse_beside};
pub use reference::Reference;
pub use render::{render_text, summary};
