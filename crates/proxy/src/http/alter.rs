//! The filters that the parts of a body pass on their way, in their order.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serin_http1::HeaderBlock;

use super::compare::Tap;
use crate::wire::Frame;

/// A part of a body, and how long to wait before it.
pub(super) struct PacedChunk {
    pub(super) after: Duration,
    pub(super) frame: Frame,
}

impl PacedChunk {
    pub(super) fn new(after: Duration, data: Bytes) -> Self {
        Self { after, frame: Frame::Data(data) }
    }

    pub(super) fn into_data(self) -> Option<Bytes> {
        match self.frame {
            Frame::Data(data) => Some(data),
            Frame::Trailers(_) => None,
        }
    }
}

/// Changes the parts of one body, of a request or a response.
///
/// It waits for nothing. A filter that needs an answer from elsewhere about a request's body gathers the body before it lets the
/// head pass.
pub(super) trait BodyFilter {
    /// Returns true when the body may become longer or shorter.
    fn changes_length(&self) -> bool;

    /// Takes a part, and puts out what goes on in its place, now or later. Pauses hold only in responses.
    fn data(&mut self, data: Bytes, out: &mut Vec<PacedChunk>);

    /// Puts out what is left at the end.
    fn end(&mut self, _out: &mut Vec<PacedChunk>) {}

    /// Changes trailers.
    fn trailers(&mut self, _trailers: &mut HeaderBlock) {}
}

/// The way of a body through its filters.
#[derive(Default)]
pub(super) struct BodyTransform {
    filters: Vec<Box<dyn BodyFilter>>,
    /// Sees the body before the first of them.
    tap: Option<Rc<Tap>>,
}

impl BodyTransform {
    pub(super) fn new(filters: Vec<Box<dyn BodyFilter>>) -> Self {
        Self { filters, tap: None }
    }

    /// Lets the body pass another filter after the others.
    pub(super) fn push(&mut self, filter: Box<dyn BodyFilter>) {
        self.filters.push(filter);
    }

    /// Lets the body pass by there first.
    pub(super) fn tapped(mut self, tap: &Rc<Tap>) -> Self {
        self.tap = Some(tap.clone());
        self
    }

    /// Returns true when the body's length is not what its head says.
    pub(super) fn changes_length(&self) -> bool {
        self.filters.iter().any(|filter| filter.changes_length())
    }

    /// Changes a frame.
    pub(super) fn frame(&mut self, frame: Frame) -> Vec<PacedChunk> {
        match frame {
            Frame::Data(data) => {
                if let Some(tap) = &self.tap {
                    tap.put(&data);
                }
                self.pass(vec![PacedChunk::new(Duration::ZERO, data)], false)
            }
            Frame::Trailers(mut trailers) => {
                self.filters.iter_mut().for_each(|filter| filter.trailers(&mut trailers));
                let mut pieces = self.end();
                pieces.push(PacedChunk { after: Duration::ZERO, frame: Frame::Trailers(trailers) });
                pieces
            }
        }
    }

    /// Returns what is left at the end.
    pub(super) fn end(&mut self) -> Vec<PacedChunk> {
        let last = self.pass(Vec::new(), true);
        self.filters.clear();
        last
    }

    fn pass(&mut self, mut chunks: Vec<PacedChunk>, is_end: bool) -> Vec<PacedChunk> {
        for filter in &mut self.filters {
            let mut out = Vec::new();
            for PacedChunk { after, frame } in chunks {
                let Frame::Data(data) = frame else { continue };
                let first = out.len();
                filter.data(data, &mut out);
                if let Some(chunk) = out.get_mut(first) {
                    chunk.after += after;
                }
            }
            if is_end {
                filter.end(&mut out);
            }
            chunks = out;
        }
        chunks.retain(|chunk| !matches!(&chunk.frame, Frame::Data(data) if data.is_empty()));
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a mark behind every part, and another behind the last.
    struct Mark(&'static str);

    impl BodyFilter for Mark {
        fn changes_length(&self) -> bool {
            true
        }

        fn data(&mut self, data: Bytes, out: &mut Vec<PacedChunk>) {
            out.push(PacedChunk::new(Duration::from_millis(1), [&data, self.0.as_bytes()].concat().into()));
        }

        fn end(&mut self, out: &mut Vec<PacedChunk>) {
            out.push(PacedChunk::new(Duration::ZERO, Bytes::from_static(b".")));
        }
    }

    fn text(chunks: Vec<PacedChunk>) -> (String, u128) {
        let pause = chunks.iter().map(|chunk| chunk.after.as_millis()).sum();
        let texts = chunks.into_iter().map(|chunk| match chunk.frame {
            Frame::Data(data) => String::from_utf8_lossy(&data).into_owned(),
            Frame::Trailers(_) => "trailers".to_owned(),
        });
        (texts.collect(), pause)
    }

    #[test]
    fn a_body_passes_its_filters_in_order_and_pauses_add_up() {
        let mut transform = BodyTransform::new(vec![Box::new(Mark("1")), Box::new(Mark("2"))]);
        assert_eq!(text(transform.frame(Frame::Data(Bytes::from_static(b"a")))), ("a12".to_owned(), 2));
        // What the first has left at the end still passes the second.
        assert_eq!(text(transform.end()), (".2.".to_owned(), 1));
        assert_eq!(text(transform.end()), (String::new(), 0));
    }

    #[test]
    fn what_is_left_goes_before_trailers() {
        let mut transform = BodyTransform::new(vec![Box::new(Mark("1"))]);
        let trailers = Frame::Trailers(Default::default());
        assert_eq!(text(transform.frame(trailers)).0, ".trailers");
    }
}
