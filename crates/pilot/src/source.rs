//! Folders of documents, watched.
//!
//! A change is acted on when what it touched has been quiet for a moment, and at the latest half a second after the first. The moment
//! is short for a file that was put in its place whole and longer for one that is being written. Now and then everything is looked at
//! anyway, for file systems that report nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, Watcher as _};
use serin_folders::{Changes, Folders};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Quiet after a file was put in its place by one step.
const PLACED: Duration = Duration::from_millis(5);
/// Quiet after a file was written and closed.
const CLOSED: Duration = Duration::from_millis(10);
/// Quiet after a file was written.
const WRITTEN: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_secs(2);
/// Looking at everything takes at most one part of this many of the time.
const SHARE: u32 = 500;

/// What was announced by the file system.
enum Announced {
    /// These names, of which it is known how long they must be quiet.
    Names(Vec<PathBuf>, Duration),
    /// Anything may have changed.
    Unknown,
}

/// The folders and the channel on which changes are announced.
pub(crate) struct Source {
    folders: Folders,
    announced: mpsc::UnboundedReceiver<Announced>,
    /// The names to look at; `None` when all must be.
    names: Option<BTreeSet<PathBuf>>,
    /// When everything is looked at next.
    poll: Instant,
    _watcher: notify::RecommendedWatcher,
}

impl Source {
    /// Watches these folders.
    pub(crate) fn open(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let (sender, announced) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(announced) = announcement(event) {
                let _ = sender.send(announced);
            }
        })
        .context("cannot watch files")?;
        for folder in folders {
            anyhow::ensure!(folder.is_dir(), "--config {}: no such folder", folder.display());
            watcher
                .watch(folder, notify::RecursiveMode::Recursive)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        let (folders, poll) = (Folders::new(folders), Instant::now());
        Ok(Self { folders, announced, names: None, poll, _watcher: watcher })
    }

    /// Expects files that were there when an earlier pilot looked.
    pub(crate) fn expect<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        self.folders.expect(names);
    }

    /// Reads the files that may have changed since the last call.
    pub(crate) fn read(&mut self) -> Changes {
        if let Some(names) = self.names.replace(BTreeSet::new()).filter(|_| Instant::now() < self.poll) {
            return self.folders.look(&names);
        }
        let begun = Instant::now();
        let changes = self.folders.scan();
        self.poll = Instant::now() + POLL.max(begun.elapsed() * SHARE);
        changes
    }

    /// Waits until something may have changed, or until then.
    pub(crate) async fn changed(&mut self, until: Option<Duration>) {
        let poll = until.map_or(self.poll, |until| self.poll.min(Instant::now() + until));
        // When each name is quiet.
        let mut pending: BTreeMap<PathBuf, Instant> = BTreeMap::new();
        let mut latest = None;
        loop {
            let end = pending.values().max().copied().map_or(poll, |quiet| latest.map_or(quiet, |l| quiet.min(l)));
            let Ok(Some(announced)) = tokio::time::timeout_at(end, self.announced.recv()).await else { break };
            let now = Instant::now();
            match announced {
                Announced::Names(paths, quiet) => {
                    let heeded = paths.into_iter().filter(|path| self.folders.heeds(path));
                    pending.extend(heeded.map(|path| (path, now + quiet)));
                }
                Announced::Unknown => {
                    self.names = None;
                    pending.insert(PathBuf::new(), now + WRITTEN);
                }
            }
            if !pending.is_empty() {
                latest.get_or_insert(now + LONGEST);
            }
        }
        if let Some(names) = &mut self.names {
            names.extend(pending.into_keys());
        }
    }
}

/// Tells what an event of the file system says; `None` when nothing changed.
fn announcement(event: notify::Result<Event>) -> Option<Announced> {
    let Ok(event) = event else { return Some(Announced::Unknown) };
    if event.need_rescan() {
        return Some(Announced::Unknown);
    }
    let quiet = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => CLOSED,
        EventKind::Access(_) => return None,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => PLACED,
        _ => WRITTEN,
    };
    Some(Announced::Names(event.paths, quiet))
}
