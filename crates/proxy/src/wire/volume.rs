//! How much was on the wire.

/// Bytes of one side's messages, as they stood on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WireBytes {
    /// All that was received, and the head of it.
    pub(crate) received: u64,
    pub(crate) received_head: u64,
    /// All that was sent, and the head of it.
    pub(crate) sent: u64,
    pub(crate) sent_head: u64,
}
