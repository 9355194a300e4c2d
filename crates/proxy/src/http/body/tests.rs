//! Tests of the way of a request's body past filters.

use super::*;

/// Holds everything back, and puts it out at the end with its length before it.
#[derive(Default)]
struct Counted(Vec<u8>);

impl BodyFilter for Counted {
    fn changes_length(&self) -> bool {
        true
    }

    fn data(&mut self, data: Bytes, _: &mut Vec<PacedChunk>) {
        self.0.extend_from_slice(&data);
    }

    fn end(&mut self, out: &mut Vec<PacedChunk>) {
        out.push(PacedChunk::new(Duration::ZERO, format!("{}:", self.0.len()).into()));
        out.push(PacedChunk::new(Duration::ZERO, std::mem::take(&mut self.0).into()));
    }
}

fn text(body: &mut RequestBody<'_>) -> String {
    let mut text = String::new();
    while let Ok(Take::Frame(Frame::Data(data))) = body.take() {
        text.push_str(&String::from_utf8_lossy(&data));
    }
    text
}

#[test]
fn a_body_passes_its_filters_before_it_is_kept() {
    let timers = Timers::new();
    let mut body = RequestBody::new(Source::of(&["ab", "c"], true), &timers);
    assert_eq!(body.pass_through(Box::new(Counted::default())), None);
    body.keep(KEEP);
    assert_eq!(text(&mut body), "3:abc");
    assert!(matches!(body.take(), Ok(Take::End)));
    body.rewind();
    assert_eq!((text(&mut body).as_str(), body.received()), ("3:abc", 3));
}

#[test]
fn a_gathered_body_passes_a_later_filter_at_once() {
    let timers = Timers::new();
    let mut body = RequestBody::new(Source::of(&["ab", "c"], true), &timers);
    body.pass_through(Box::new(Counted::default()));
    assert_eq!(body.gather_ready(100), Some(Gathered::Whole(5)));
    assert_eq!(body.pass_through(Box::new(Counted::default())), Some(7));
    assert_eq!(text(&mut body), "5:3:abc");
}

#[test]
fn what_has_not_come_is_waited_for() {
    let timers = Timers::new();
    let mut body = RequestBody::new(Source::of(&["ab"], false), &timers);
    body.pass_through(Box::new(Counted::default()));
    assert!(matches!(body.take(), Ok(Take::Wait)));
    assert_eq!(body.gather_ready(100), None);
}
