//! The errors of commands that are not passed through from elsewhere.

/// An argument or a document that a command cannot use.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// A label that is not a pair.
    #[error("'{0}' is not KEY=VALUE")]
    Label(String),
    /// A Rollout whose weight falls from one step to the next.
    #[error(
        "a weight falls, from {from} % to {to} %: a Release only rises, and goes back at once when it is worse; write two Releases"
    )]
    FallingWeight {
        /// The weight of the earlier step, in per cent.
        from: f64,
        /// The weight of the later step, in per cent.
        to: f64,
    },
    /// A Canary whose weights do not rise from step to step.
    #[error("analysis.stepWeights do not rise, so Flagger would never get further")]
    FlatWeights,
}
