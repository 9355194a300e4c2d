//! Folders of documents, watched.
//!
//! A change is acted on when the files have been quiet for a moment, and at the latest half a second after the first
//! change. Every two seconds everything is looked at anyway, for file systems that report nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use notify::Watcher as _;
use tokio::sync::mpsc;

use serin_folders::Contents;

const QUIET: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_secs(2);

/// The folders and the channel on which changes are announced.
pub(crate) struct Source {
    folders: Vec<PathBuf>,
    changes: mpsc::UnboundedReceiver<()>,
    _watcher: notify::RecommendedWatcher,
}

impl Source {
    /// Watches these folders.
    pub(crate) fn open(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = event.as_ref().is_ok_and(|e| !e.kind.is_access());
            if relevant {
                let _ = sender.send(());
            }
        })
        .context("cannot watch files")?;
        for folder in folders {
            anyhow::ensure!(folder.is_dir(), "--config {}: no such folder", folder.display());
            watcher
                .watch(folder, notify::RecursiveMode::Recursive)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        Ok(Self { folders: folders.to_vec(), changes, _watcher: watcher })
    }

    /// Reads every document file.
    pub(crate) fn read(&self) -> Contents {
        serin_folders::read(&self.folders)
    }

    /// Waits until something may have changed, or until then.
    pub(crate) async fn changed(&mut self, until: Option<Duration>) {
        let first = tokio::time::timeout(until.map_or(POLL, |until| until.min(POLL)), self.changes.recv()).await;
        if first.is_err() {
            return;
        }
        let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {} };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
    }
}
