//! Every decision about a release, without I/O, clock or chance: what the evidence says, and what happens next.
//!
//! `judge` holds the statistics, `verdict` what they say of a release's evidence, `queries` what others measure, `series` the points of
//! Kayenta's score, `machine` what is done in a look and when people speak, `states` how a release goes from one to the next, `traffic`
//! what that makes of routes, `change` what becomes of it when the document changes. Time, evidence and what people ask for come in as
//! arguments, and everything that is needed to go on is in the status: a process that was killed goes on as if it had not been.

mod change;
mod error;
mod evidence;
pub mod judge;
pub mod machine;
mod queries;
mod series;
mod states;
mod status;
mod traffic;
pub mod verdict;

pub use change::changed;
pub use error::Error;
pub use evidence::{Applied, Arm, Class, Evidence, Verdict};
pub use machine::{Command, Said, advance, command, may_begin};
pub use queries::{Queried, Reading};
pub use states::{Action, DOCUMENT_GONE, HookAt};
pub use status::{Event, EventKind, Outcome, Phase, Status, Target, Versions, Weights};
pub use traffic::overlay;
pub use verdict::Judgement;

/// Milliseconds of the calendar (since 1970).
pub type Millis = u64;
