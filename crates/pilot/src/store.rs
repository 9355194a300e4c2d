//! All documents, and for each the last version that was good.

mod build;
mod file;
mod findings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use serin_folders::{Changes, Found};
use serin_ingest::{Diagnostic, Document};
use serin_model::{MeshSnapshot, ObjectKey};

use build::{Edited, Live};
use file::{Doubt, File, is_doubtful};

/// The store.
#[derive(Default)]
pub(crate) struct Store {
    files: BTreeMap<String, File>,
    /// Files that are doubtful or in which objects are broken.
    marked: BTreeSet<String>,
    unreadable: BTreeMap<String, String>,
    /// Versions that were in force at the last build.
    good: BTreeMap<ObjectKey, Document>,
    diagnostics: Vec<Diagnostic>,
    /// Objects of which an older version is in force, because the newer one is broken, held back or away, and since when.
    outdated: BTreeMap<ObjectKey, SystemTime>,
    /// The mesh that the versions in force make.
    mesh: MeshSnapshot,
    /// The means to change single ones; `None` when all files must be looked at.
    live: Option<Live>,
    /// Policies that are not carried out are passed over instead of closing what they guard.
    unenforced: bool,
    /// How long a file may be empty, or lack objects at its end, before it is believed.
    grace: Duration,
}

/// What a rebuild yields.
pub(crate) struct Built {
    /// The mesh as it is from now on.
    pub(crate) snapshot: MeshSnapshot,
    /// Findings that were not there before.
    pub(crate) news: Vec<Diagnostic>,
    /// Number of objects in force.
    pub(crate) objects: usize,
    /// The files that changed; `None` when any may have.
    pub(crate) edited: Option<BTreeSet<String>>,
}

impl Store {
    /// An empty one; `unenforced` passes over policies that are not carried out, and a file that lacks objects is believed after
    /// `grace`.
    pub(crate) fn new(unenforced: bool, grace: Duration) -> Self {
        let mesh = MeshSnapshot::default();
        let mesh = if unenforced { mesh.without_enforcement() } else { mesh };
        Self { mesh, unenforced, grace, ..Self::default() }
    }

    /// Goes on with what an earlier pilot had in force, as if there had been no restart: what is broken or away since then is
    /// looked at next.
    pub(crate) fn restore(&mut self, texts: BTreeMap<String, String>) -> Option<Built> {
        for (name, text) in texts {
            let found = Found { text: Ok(text), identity: (0, 0) };
            self.files.insert(name.clone(), File::read(&name, found, None, &self.good));
            self.mark(&name);
        }
        (!self.files.is_empty()).then(|| self.rebuild())
    }

    /// The files that are sound as they are, with their text; of all, or of these.
    pub(crate) fn sound<'a>(
        &'a self,
        among: Option<&'a BTreeSet<String>>,
    ) -> impl Iterator<Item = (&'a String, &'a String)> {
        let all = self.files.iter().filter(move |_| among.is_none());
        let some = among.into_iter().flatten().filter_map(|name| self.files.get_key_value(name));
        let sound = all.chain(some).filter(|(_, file)| file.is_sound());
        sound.filter_map(|(name, file)| Some((name, file.text.as_ref().ok()?)))
    }

    /// Takes changed files in; `None` when that changes nothing.
    pub(crate) fn update(&mut self, changes: Changes, now: Instant) -> Option<Built> {
        let mut edited = Edited::default();
        let mut is_whole = false;
        if let Some(unreadable) = changes.unreadable.filter(|unreadable| *unreadable != self.unreadable) {
            self.unreadable = unreadable;
            is_whole = true;
        }
        let doubts = self.marked().filter(|(name, _)| !changes.files.contains_key(*name));
        let doubts: Vec<(String, Option<Found>)> =
            doubts.filter_map(|(name, file)| Some((name.clone(), file.doubtful.as_ref()?.found.clone()))).collect();
        for (name, found) in changes.files.into_iter().chain(doubts) {
            let taken = self.take(&name, found, now);
            self.mark(&name);
            match taken {
                Taken::Same => {}
                Taken::Doubt => is_whole = true,
                Taken::Edit(before) => drop(edited.insert(name, before.map(|before| *before))),
            }
        }
        if is_whole {
            return Some(self.rebuild());
        }
        if edited.is_empty() {
            return None;
        }
        Some(self.amend(&edited).unwrap_or_else(|| self.rebuild()))
    }

    /// The files that are doubtful or in which objects are broken.
    fn marked(&self) -> impl Iterator<Item = (&String, &File)> {
        self.marked.iter().filter_map(|name| self.files.get_key_value(name))
    }

    fn mark(&mut self, name: &str) {
        match self.files.get(name).is_some_and(|file| file.doubtful.is_some() || !file.faults.is_empty()) {
            true => self.marked.insert(name.to_owned()),
            false => self.marked.remove(name),
        };
    }

    /// Takes one file in; `None` is a file that is no more. It may be put there anew in a moment: editors and links do so.
    fn take(&mut self, name: &str, found: Option<Found>, now: Instant) -> Taken {
        let is_gone = found.is_none();
        let read = found.clone().unwrap_or_else(|| Found { text: Ok(String::new()), identity: (0, 0) });
        match self.files.get_mut(name) {
            None if is_gone => return Taken::Same,
            None => {}
            Some(file) if file.text == read.text && !is_gone => {
                file.identity = read.identity;
                return if file.doubtful.take().is_some() { Taken::Doubt } else { Taken::Same };
            }
            Some(file) if is_doubtful(name, file, &read) => {
                let since = match &file.doubtful {
                    Some(doubt) if doubt.text() == read.text.as_deref() => doubt.since,
                    _ => now,
                };
                if now.saturating_duration_since(since) < self.grace {
                    let is_news = file.doubtful.is_none();
                    file.doubtful = Some(Doubt { since, found });
                    return if is_news { Taken::Doubt } else { Taken::Same };
                }
            }
            Some(_) => {}
        }
        let before = self.files.remove(name);
        if !is_gone {
            self.files.insert(name.to_owned(), File::read(name, read, before.as_ref(), &self.good));
        }
        Taken::Edit(before.map(Box::new))
    }

    /// When a file that may be half-written is believed.
    pub(crate) fn next_decision(&self, now: Instant) -> Option<Duration> {
        let until = self.marked().filter_map(|(_, f)| Some(f.doubtful.as_ref()?.since + self.grace));
        until.min().map(|until| until.saturating_duration_since(now))
    }

    /// Every finding that stands.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The text of a file, for showing a finding.
    pub(crate) fn text(&self, file: &str) -> Option<&str> {
        self.files.get(file).and_then(|f| f.text.as_deref().ok())
    }

    /// The files that are there, as far as is known.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// Whether a file is there, as far as is known.
    pub(crate) fn knows(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The mesh that the versions in force make.
    pub(crate) fn mesh(&self) -> MeshSnapshot {
        self.mesh.clone()
    }

    /// Objects of which an older version is in force, and since when a newer one is not taken.
    pub(crate) fn outdated(&self) -> &BTreeMap<ObjectKey, SystemTime> {
        &self.outdated
    }

    /// Objects that are broken, each with its first error and the place of it.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&ObjectKey, String)> {
        let said = |d: &Diagnostic| {
            let file = d.file.rsplit('/').next().unwrap_or_default();
            let at = if d.path.is_empty() { String::new() } else { format!("{}: ", d.path) };
            format!("{file}:{}: {at}{}", d.at.line, d.message)
        };
        self.marked().flat_map(|(_, f)| &f.faults).map(move |(key, diagnostic)| (key, said(diagnostic)))
    }

    /// The objects in force.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Document> {
        self.good.values()
    }
}

/// The effect of taking a file in.
enum Taken {
    /// Nothing.
    Same,
    /// It became doubtful, or certain again.
    Doubt,
    /// It has another text; this is what it was.
    Edit(Option<Box<File>>),
}
