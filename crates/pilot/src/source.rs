//! Where documents come from.
//!
//! A source yields texts by name, and only those that changed: a file of a folder is such a text, and so is an object that a
//! Kubernetes API server tells. The store is fed by any number of sources and knows none of them. A source does not look into texts.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use serin_folders::Changes;

pub(crate) use files::Files;

/// Resolves when something may have changed.
pub(crate) type Changed<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A place where documents come from.
pub(crate) trait Source: Send {
    /// Expects texts that were there when an earlier pilot looked: the next reading says of each what it is now, or that it is no more.
    fn expect(&mut self, names: &BTreeSet<String>);

    /// Reads what may have changed since the last call. What cannot be read now is named as such: nothing of it is gone.
    fn read(&mut self) -> Changes;

    /// Waits until something may have changed. Dropping the future loses nothing.
    fn changed(&mut self) -> Changed<'_>;
}

/// All sources of a pilot, as one.
pub(crate) struct Sources {
    all: Vec<Known>,
}

struct Known {
    source: Box<dyn Source>,
    /// The parts of it that cannot be read, and why.
    unreadable: BTreeMap<String, String>,
}

impl Sources {
    /// Joins sources, whose names must not meet.
    pub(crate) fn new(sources: Vec<Box<dyn Source>>) -> Self {
        let known = |source| Known { source, unreadable: BTreeMap::new() };
        Self { all: sources.into_iter().map(known).collect() }
    }

    /// Expects texts that were there when an earlier pilot looked.
    pub(crate) fn expect(&mut self, names: &BTreeSet<String>) {
        self.all.iter_mut().for_each(|known| known.source.expect(names));
    }

    /// Reads what may have changed since the last call.
    pub(crate) fn read(&mut self) -> Changes {
        let mut all = Changes::default();
        let mut is_looked_at = false;
        for known in &mut self.all {
            let Changes { files, unreadable } = known.source.read();
            all.files.extend(files);
            if let Some(unreadable) = unreadable {
                known.unreadable = unreadable;
                is_looked_at = true;
            }
        }
        let unreadable = self.all.iter().flat_map(|known| known.unreadable.clone());
        all.unreadable = is_looked_at.then(|| unreadable.collect());
        all
    }

    /// Waits until something may have changed in some source, or for so long.
    pub(crate) async fn changed(&mut self, limit: Option<Duration>) {
        let mut waiting: Vec<Changed<'_>> = self.all.iter_mut().map(|known| known.source.changed()).collect();
        let some = std::future::poll_fn(|context| {
            let is_ready = waiting.iter_mut().any(|changed| changed.as_mut().poll(context).is_ready());
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        });
        match limit {
            Some(limit) => drop(tokio::time::timeout(limit, some).await),
            None => some.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_folders::Found;

    use super::*;

    /// A source that yields what it is given.
    struct Given(Vec<Changes>);

    impl Source for Given {
        fn expect(&mut self, _: &BTreeSet<String>) {}

        fn read(&mut self) -> Changes {
            self.0.pop().unwrap_or_default()
        }

        fn changed(&mut self) -> Changed<'_> {
            Box::pin(std::future::pending())
        }
    }

    fn changes(names: &[&str], unreadable: Option<&[&str]>) -> Changes {
        let found = |name: &&str| ((*name).to_owned(), Some(Found { text: Ok(String::new()), identity: (0, 0) }));
        let why = |name: &&str| ((*name).to_owned(), "closed".to_owned());
        Changes {
            files: names.iter().map(found).collect(),
            unreadable: unreadable.map(|names| names.iter().map(why).collect()),
        }
    }

    #[test]
    fn what_cannot_be_read_of_one_source_stays_so_while_another_is_read() {
        let one = Given(vec![changes(&["a"], None), changes(&[], Some(&["x"]))]);
        let other = Given(vec![changes(&["b"], Some(&[])), changes(&["c"], None)]);
        let mut sources = Sources::new(vec![Box::new(one), Box::new(other)]);
        let first = sources.read();
        assert_eq!(first.files.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!(first.unreadable.map(|all| all.into_keys().collect()), Some(vec!["x".to_owned()]));
        let second = sources.read();
        assert_eq!(second.files.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(second.unreadable.map(|all| all.into_keys().collect()), Some(vec!["x".to_owned()]));
        assert_eq!(sources.read().unreadable, None);
    }
}
