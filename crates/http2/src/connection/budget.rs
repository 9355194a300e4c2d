//! Limits the work that a peer can cause without doing any itself. Rows G1 to G10 of the hostile corpus.

use crate::error::ConnectionError;

/// Frames of no use in a row, and between two refills.
const NOISE: i64 = 10_000;
/// The value of one stream, or of one frame of a body.
const PER_STREAM: i64 = 100;
/// Replies to PING and SETTINGS that wait to be written (Envoy's limit).
const REPLIES: u32 = 1000;
/// Streams before their resets are judged (Envoy's rule, as is the share).
const JUDGED_FROM: u64 = 500;

/// Counters of one connection.
#[derive(Debug)]
pub(super) struct Budget {
    noise: i64,
    replies: u32,
    opened: u64,
    /// Streams that the peer gave up before they were answered, or made us give up.
    spoilt: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { noise: NOISE, replies: 0, opened: 0, spoilt: 0 }
    }
}

impl Budget {
    pub(super) fn refill(&mut self) {
        self.noise = NOISE;
    }

    pub(super) fn opened(&mut self) {
        self.opened += 1;
        self.noise = (self.noise + PER_STREAM).min(NOISE);
    }

    /// A frame of a body went out: its receiver may open its window.
    pub(super) fn sent_data(&mut self) {
        self.noise = (self.noise + 10).min(NOISE);
    }

    /// A frame that moves nothing, at its price.
    pub(super) fn noise(&mut self, price: i64) -> Result<(), ConnectionError> {
        self.noise -= price;
        if self.noise < 0 { Err(ConnectionError::calm("too many frames that do nothing")) } else { Ok(()) }
    }

    /// A frame that must be answered.
    pub(super) fn reply(&mut self) -> Result<(), ConnectionError> {
        self.replies += 1;
        if self.replies > REPLIES {
            return Err(ConnectionError::calm("too many frames that must be answered"));
        }
        self.noise(1)
    }

    pub(super) fn replies_taken(&mut self) {
        self.replies = 0;
    }

    /// The peer gave a stream up before it was answered.
    pub(super) fn premature_reset(&mut self) -> Result<(), ConnectionError> {
        self.spoilt += 1;
        if self.opened >= JUDGED_FROM && self.spoilt * 2 > self.opened {
            return Err(ConnectionError::calm("most streams are given up before they are answered"));
        }
        Ok(())
    }

    /// The peer did something for which a stream had to be given up here.
    pub(super) fn caused_reset(&mut self) -> Result<(), ConnectionError> {
        self.premature_reset()?;
        self.noise(10)
    }
}
