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

use super::{Changed, Source};

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

/// A message of the file system.
enum Announced {
    /// These names, of which it is known how long they must be quiet.
    Names(Vec<PathBuf>, Duration),
    /// Anything may have changed.
    Unknown,
}

/// Folders, and the channel on which changes are announced.
pub(crate) struct Files {
    folders: Folders,
    announced: mpsc::UnboundedReceiver<Announced>,
    /// The names to look at; `None` when all must be.
    names: Option<BTreeSet<PathBuf>>,
    /// When each name that was announced is quiet.
    pending: BTreeMap<PathBuf, Instant>,
    /// When the names are looked at even if they are not quiet.
    latest: Option<Instant>,
    /// When everything is looked at next.
    poll: Instant,
    _watcher: notify::RecommendedWatcher,
}

impl Files {
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
        Ok(Self {
            folders: Folders::new(folders),
            announced,
            names: None,
            pending: BTreeMap::new(),
            latest: None,
            poll: Instant::now(),
            _watcher: watcher,
        })
    }

    /// Waits until names that were announced are quiet, or all must be looked at.
    async fn quiet(&mut self) {
        loop {
            let quiet = self.pending.values().max().copied();
            let end = quiet.map_or(self.poll, |quiet| self.latest.map_or(quiet, |latest| quiet.min(latest)));
            let Ok(Some(announced)) = tokio::time::timeout_at(end, self.announced.recv()).await else { return };
            let now = Instant::now();
            match announced {
                Announced::Names(paths, quiet) => {
                    let heeded = paths.into_iter().filter(|path| self.folders.heeds(path));
                    self.pending.extend(heeded.map(|path| (path, now + quiet)));
                }
                Announced::Unknown => {
                    self.names = None;
                    self.pending.insert(PathBuf::new(), now + WRITTEN);
                }
            }
            if !self.pending.is_empty() && now >= *self.latest.get_or_insert(now + LONGEST) {
                return;
            }
        }
    }
}

impl Source for Files {
    fn expect(&mut self, names: &BTreeSet<String>) {
        self.folders.expect(names.iter());
    }

    fn read(&mut self) -> Changes {
        let pending = std::mem::take(&mut self.pending).into_keys();
        self.latest = None;
        if let Some(mut names) = self.names.replace(BTreeSet::new()).filter(|_| Instant::now() < self.poll) {
            names.extend(pending);
            return self.folders.look(&names);
        }
        let begun = Instant::now();
        let changes = self.folders.scan();
        self.poll = Instant::now() + POLL.max(begun.elapsed() * SHARE);
        changes
    }

    fn changed(&mut self) -> Changed<'_> {
        Box::pin(self.quiet())
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
