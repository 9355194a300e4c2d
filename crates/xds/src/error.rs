//! Errors of this crate.

/// A failure on a discovery stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A client that is not served; the sentence is for its operator.
    #[error("{0}")]
    Refused(String),
    /// A response that is not taken; the text is that of the rejection.
    #[error("{0}")]
    Rejected(String),
    /// A server that cannot be used, and why.
    #[error("{0}")]
    Unreachable(String),
}
