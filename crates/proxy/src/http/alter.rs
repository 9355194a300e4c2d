//! Changes a response's body on its way: compresses it, or holds it back to a rate.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::compare::Tap;
use crate::wire::Frame;

/// Slow responses come in so many pieces a second (Envoy's `StreamRateLimiter`).
const PIECES: u64 = 16;

/// A part of a body, and how long to wait before it.
pub(super) struct PacedChunk {
    pub(super) after: Duration,
    pub(super) frame: Frame,
}

/// The changes to a body.
pub(crate) struct BodyTransform {
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Bytes of one piece.
    piece: Option<usize>,
    /// True when a piece went out already: the first waits for nothing.
    begun: bool,
    /// Sees the body as it came from the upstream.
    tap: Option<Rc<Tap>>,
}

impl BodyTransform {
    pub(super) fn new(level: Option<u32>, rate: Option<u64>) -> Self {
        Self {
            encoder: level.map(|level| GzEncoder::new(Vec::new(), Compression::new(level))),
            piece: rate.map(|rate| usize::try_from(rate / PIECES).unwrap_or(usize::MAX).max(1)),
            begun: false,
            tap: None,
        }
    }

    /// Lets the body pass by there.
    pub(super) fn tapped(mut self, tap: &Rc<Tap>) -> Self {
        self.tap = Some(tap.clone());
        self
    }

    /// Returns true when the body's length is not what the upstream said.
    pub(super) fn changes_length(&self) -> bool {
        self.encoder.is_some()
    }

    /// Changes a frame.
    pub(super) fn frame(&mut self, frame: Frame) -> Vec<PacedChunk> {
        match frame {
            Frame::Data(data) => {
                if let Some(tap) = &self.tap {
                    tap.put(&data);
                }
                let data = match &mut self.encoder {
                    // Writing into memory does not fail.
                    Some(encoder) => {
                        let _ = encoder.write_all(&data);
                        // What has come goes on: more may take its time (so does Envoy).
                        let _ = encoder.flush();
                        std::mem::take(encoder.get_mut()).into()
                    }
                    None => data,
                };
                self.pieces(data)
            }
            trailers @ Frame::Trailers(_) => {
                let mut pieces = self.end();
                pieces.push(PacedChunk { after: Duration::ZERO, frame: trailers });
                pieces
            }
        }
    }

    /// Returns what is left at the end.
    pub(super) fn end(&mut self) -> Vec<PacedChunk> {
        let rest = self.encoder.take().and_then(|encoder| encoder.finish().ok()).unwrap_or_default();
        self.pieces(rest.into())
    }

    fn pieces(&mut self, mut data: Bytes) -> Vec<PacedChunk> {
        let most = self.piece.unwrap_or(usize::MAX);
        let mut pieces = Vec::new();
        while data.has_remaining() {
            let part = data.split_to(most.min(data.len()));
            let wait = self.piece.is_some() && std::mem::replace(&mut self.begun, true);
            let share = part.len() as f64 / most as f64 / PIECES as f64;
            let after = if wait { Duration::from_secs_f64(share) } else { Duration::ZERO };
            pieces.push(PacedChunk { after, frame: Frame::Data(part) });
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_body_comes_in_pieces_with_pauses() {
        let mut alter = BodyTransform::new(None, Some(1024));
        let pieces = alter.frame(Frame::Data(vec![b'x'; 160].into()));
        let waits: Vec<u128> = pieces.iter().map(|p| p.after.as_micros()).collect();
        assert_eq!(waits, [0, 62_500, 31_250]);
        assert!(alter.end().is_empty());
    }

    #[test]
    fn a_compressed_body_is_one_stream() {
        let mut alter = BodyTransform::new(Some(6), None);
        let text = "the same again and again ".repeat(400);
        let (mut packed, mut sent) = (Vec::new(), 0);
        for part in text.as_bytes().chunks(1000) {
            let pieces = alter.frame(Frame::Data(Bytes::copy_from_slice(part)));
            pieces.into_iter().for_each(|p| {
                if let Frame::Data(data) = p.frame {
                    packed.extend_from_slice(&data)
                }
            });
            // What went in so far can be read so far.
            sent += part.len();
            let mut plain = vec![0; sent];
            std::io::Read::read_exact(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut plain).unwrap();
            assert_eq!(plain, text.as_bytes()[..sent]);
        }
        alter.end().into_iter().for_each(|p| {
            if let Frame::Data(data) = p.frame {
                packed.extend_from_slice(&data)
            }
        });
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut plain).unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(plain, text);
    }
}
