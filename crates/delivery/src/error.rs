//! The reasons for which a command about a release is refused, in the words that users read.

use crate::status::Phase;

const FORCE: &str = "use --force to do it all the same";

/// The reason for which a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The release has ended, one way or the other.
    #[error("the release is over ({})", .0.words())]
    Over(Phase),
    /// An undo of a release that moved no traffic.
    #[error("there is nothing to undo")]
    NothingToUndo,
    /// A retry of a release that was not rolled back.
    #[error("only a release that was aborted or rolled back is begun anew (this one is {})", .0.words())]
    NotRolledBack(Phase),
    /// An approval that no step waits for.
    #[error("no consent is waited for (the release is {})", .0.words())]
    NotAwaitingApproval(Phase),
    /// A promotion of a release that is rolling back.
    #[error("traffic is going back")]
    RollingBack,
    /// The traffic belongs to a version that the release does not name as stable; holds the sentence about it.
    #[error("{0}")]
    Misnamed(String),
    /// The result of a hook that does not run.
    #[error("this hook is not at work")]
    NoSuchHook,
    /// A rollback to a stable version without a ready instance; holds its labels.
    #[error("no instance of the stable version ({0}) is ready, so traffic would find nobody; {FORCE}")]
    StableNotReady(String),
    /// A rollback to a stable version without an instance in some subsets; holds their names.
    #[error("no instance of the stable version is of subset {0}, so requests to it would find nobody; {FORCE}")]
    SubsetNotReady(String),
    /// A promotion of a candidate without a ready instance; holds its labels.
    #[error("no instance of the candidate ({0}) is ready, so traffic would find nobody; {FORCE}")]
    CandidateNotReady(String),
    /// A promotion in a freeze; holds its end.
    #[error("it is a time of freeze until {0}; {FORCE}")]
    Frozen(String),
}
