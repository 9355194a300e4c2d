//! The two responses of a request that was mirrored to be compared; whichever is complete last compares them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serin_http1::{RequestHead, ResponseHead};
use serin_resources::route::Comparison;
use serin_traffic::compare::{Answered, differences};

use crate::worker::Worker;

/// Longest body that is compared.
const KEEP: usize = 64 * 1024;

/// A body as it passes by.
#[derive(Debug, Default)]
pub(super) struct Tap {
    bytes: RefCell<Vec<u8>>,
    too_long: Cell<bool>,
}

impl Tap {
    pub(super) fn put(&self, data: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + data.len() > KEEP {
            self.too_long.set(true);
            bytes.clear();
        }
        if !self.too_long.get() {
            bytes.extend_from_slice(data);
        }
    }

    fn seen(&self) -> Option<Vec<u8>> {
        (!self.too_long.get()).then(|| self.bytes.borrow().clone())
    }
}

/// A request and one mirror of it.
pub(crate) struct Pair {
    worker: Rc<Worker>,
    config: Comparison,
    cluster: String,
    request: String,
    /// The client's response and the mirror's.
    answers: RefCell<[Option<Answered>; 2]>,
}

impl Pair {
    pub(super) fn new(worker: &Rc<Worker>, config: &Comparison, cluster: &str, head: &RequestHead) -> Rc<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Rc::new(Self {
            worker: worker.clone(),
            config: config.clone(),
            cluster: cluster.to_owned(),
            request: format!("{} {}", text(head.method()), text(head.target())),
            answers: RefCell::default(),
        })
    }

    /// The part of a head that is compared.
    pub(super) fn head(&self, head: &ResponseHead) -> Answered {
        let value = |name: &String| Some((name.clone(), head.fields.get_str(name)?.to_owned()));
        Answered { status: head.status, headers: self.config.headers.iter().filter_map(value).collect(), body: None }
    }

    /// Takes a response whose body is complete; `mirror` tells whose it is.
    pub(super) fn complete(&self, mirror: bool, answer: Answered, body: &Tap) {
        let mut answers = self.answers.borrow_mut();
        let [client, shadow] = &mut *answers;
        *if mirror { shadow } else { client } = Some(Answered { body: body.seen(), ..answer });
        if let [Some(one), Some(other)] = &*answers {
            let found = differences(&self.config, one, other);
            self.worker.state.mirrors().note(&self.cluster, self.request.clone(), found);
        }
    }
}
