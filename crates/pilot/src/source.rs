//! Folders of documents, watched.
//!
//! A change is acted on when the files have been quiet for a moment, and at the latest half a second after the first
//! change. Every two seconds everything is looked at anyway, for file systems that report nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use notify::Watcher as _;
use tokio::sync::mpsc;

use serin_ingest::MAX_FILE_BYTES;

/// What was found.
#[derive(Default)]
pub(crate) struct Contents {
    /// What stands in each file, or why it cannot be read.
    pub(crate) files: BTreeMap<String, Result<String, String>>,
    /// Folders that cannot be read, and why: nothing is known about the files in them.
    pub(crate) unreadable: BTreeMap<String, String>,
}

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
        let mut contents = Contents::default();
        for folder in &self.folders {
            read_folder(folder, &mut contents, 0);
        }
        contents
    }

    /// Waits until something may have changed.
    pub(crate) async fn changed(&mut self) {
        let first = tokio::time::timeout(POLL, self.changes.recv()).await;
        if first.is_err() {
            return;
        }
        let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {} };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
    }
}

/// Folders within folders are read down to this depth, which also ends loops of links.
const DEPTH: usize = 8;

fn read_folder(folder: &Path, contents: &mut Contents, depth: usize) {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = match entries {
        Ok(entries) => entries,
        // A folder within, of which the name was just read, may go away at any moment.
        Err(error) if depth > 0 && error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            contents.unreadable.insert(folder.display().to_string(), error.to_string());
            return;
        }
    };
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || depth > DEPTH {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, contents, depth + 1);
        } else if path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e == *k)) {
            contents.files.insert(path.display().to_string(), read_file(&path));
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(format!("the file has {size} bytes, more than {MAX_FILE_BYTES}: split it into several files"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}
