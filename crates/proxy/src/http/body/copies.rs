//! Copies of a request's body, for mirrors: each is read at its own pace and never holds the original up.
//!
//! A reader that is slower than [`COPIED`] bytes loses its copy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{BodyError, Take};
use crate::wire::Frame;

/// Most bytes that wait for the reader of a copy; one that is slower than that loses its copy.
const COPIED: usize = 1024 * 1024;

/// The progress of a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Copied {
    #[default]
    Going,
    Whole,
    Broken,
}

#[derive(Default)]
struct Shared {
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    /// Nobody reads it any more.
    unread: Cell<bool>,
    state: Cell<Copied>,
    wake: Notify,
}

/// Begins a copy of a body of which these pieces were received; when the body goes on, what comes is to be put into the writing end.
pub(super) fn begin<'a>(received: impl Iterator<Item = &'a Bytes>, finished: bool) -> (BodyCopy, Option<Copier>) {
    let shared = Rc::new(Shared::default());
    shared.queue.borrow_mut().extend(received.cloned());
    shared.queued.set(shared.queue.borrow().iter().map(Bytes::len).sum());
    if finished {
        shared.state.set(Copied::Whole);
    }
    let copier = (!finished).then(|| Copier(shared.clone()));
    (BodyCopy(shared), copier)
}

/// The writing end of a copy. Dropped before the end, it breaks the copy off.
pub(super) struct Copier(Rc<Shared>);

impl Copier {
    /// False when the copy is given up.
    pub(super) fn put(&self, bytes: &Bytes) -> bool {
        let queued = self.0.queued.get() + bytes.len();
        if queued > COPIED || self.0.unread.get() {
            return false;
        }
        self.0.queued.set(queued);
        self.0.queue.borrow_mut().push_back(bytes.clone());
        self.0.wake.notify_one();
        true
    }

    pub(super) fn end(self) {
        self.0.state.set(Copied::Whole);
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        if self.0.state.get() == Copied::Going {
            self.0.state.set(Copied::Broken);
        }
        self.0.wake.notify_one();
    }
}

/// The reading end of a copy.
pub(crate) struct BodyCopy(Rc<Shared>);

impl Drop for BodyCopy {
    fn drop(&mut self) {
        self.0.unread.set(true);
        self.0.queue.borrow_mut().clear();
    }
}

impl BodyCopy {
    pub(super) fn is_empty(&self) -> bool {
        self.0.state.get() == Copied::Whole && self.0.queue.borrow().is_empty()
    }

    pub(super) fn take(&self) -> Result<Take, BodyError> {
        if let Some(bytes) = self.0.queue.borrow_mut().pop_front() {
            self.0.queued.set(self.0.queued.get() - bytes.len());
            return Ok(Take::Frame(Frame::Data(bytes)));
        }
        match self.0.state.get() {
            Copied::Going => Ok(Take::Wait),
            Copied::Whole => Ok(Take::End),
            Copied::Broken => Err(BodyError::Aborted),
        }
    }

    pub(super) async fn fill(&self) -> Result<(), BodyError> {
        while self.0.queue.borrow().is_empty() && self.0.state.get() == Copied::Going {
            self.0.wake.notified().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const PIECE: Bytes = Bytes::from_static(b"piece");

    /// The next step of a copy in words.
    fn next(copy: &BodyCopy) -> String {
        match copy.take() {
            Ok(Take::Frame(Frame::Data(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Take::Frame(_)) => "other".to_owned(),
            Ok(Take::Wait) => "wait".to_owned(),
            Ok(Take::End) => "end".to_owned(),
            Err(_) => "broken".to_owned(),
        }
    }

    fn is_ready(copy: &BodyCopy) -> bool {
        let fill = pin!(copy.fill());
        matches!(fill.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    #[test]
    fn a_copy_is_the_body_from_its_beginning_to_its_end() {
        let (copy, copier) = begin([Bytes::from_static(b"first")].iter(), false);
        let Some(copier) = copier else { panic!("the body goes on") };
        assert!(is_ready(&copy));
        assert_eq!((next(&copy), next(&copy)), ("first".to_owned(), "wait".to_owned()));
        assert!(!is_ready(&copy));
        assert!(copier.put(&PIECE) && is_ready(&copy));
        copier.end();
        assert!(!copy.is_empty());
        assert_eq!((next(&copy), next(&copy)), ("piece".to_owned(), "end".to_owned()));
        assert!(copy.is_empty() && is_ready(&copy));
    }

    #[test]
    fn a_body_that_was_received_needs_no_writing_end() {
        let (copy, copier) = begin([PIECE].iter(), true);
        assert!(copier.is_none());
        assert_eq!((next(&copy), next(&copy)), ("piece".to_owned(), "end".to_owned()));
        let (empty, _) = begin([].iter(), true);
        assert!(empty.is_empty());
    }

    #[test]
    fn a_body_that_breaks_off_breaks_its_copies_after_what_came() {
        let (copy, copier) = begin([PIECE].iter(), false);
        drop(copier);
        assert_eq!((next(&copy), next(&copy)), ("piece".to_owned(), "broken".to_owned()));
        assert!(is_ready(&copy));
    }

    #[test]
    fn a_slow_reader_loses_its_copy_and_one_that_reads_does_not() {
        let (copy, copier) = begin([].iter(), false);
        let Some(copier) = copier else { panic!("the body goes on") };
        let half = Bytes::from(vec![0; COPIED / 2]);
        for _ in 0..8 {
            assert!(copier.put(&half));
            assert_ne!(next(&copy), "wait");
        }
        assert!(copier.put(&half) && copier.put(&half));
        assert!(!copier.put(&PIECE), "more waits than may");
        let (gone, copier) = begin([].iter(), false);
        drop(gone);
        assert!(copier.is_some_and(|copier| !copier.put(&PIECE)), "nobody reads it");
    }
}
