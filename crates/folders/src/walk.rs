//! Finding the document files in folders.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::stamp::Stamp;

/// Folders within folders are read down to this depth.
const DEPTH: usize = 8;

/// Other names that are looked at at most: a link to a whole system must not take all the time there is.
const OTHERS: usize = 10_000;

/// Files that are read at most: beyond any set of rules.
const FILES: usize = 100_000;

/// The names in folders.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The document files, with their stamps as far as they can be had.
    pub(crate) files: BTreeMap<String, Option<Stamp>>,
    /// Folders that cannot be read, and why.
    pub(crate) unreadable: BTreeMap<String, String>,
    /// The folders that were read, by the name that led to them.
    pub(crate) folders: BTreeSet<PathBuf>,
    /// True when some name is a link: what stands behind it may change without its name.
    pub(crate) has_links: bool,
    /// Folders that were read, so that links that lead back are followed once.
    visited: BTreeSet<(u64, u64)>,
    /// The number of names that were no document.
    others: usize,
}

/// Returns whether a name is that of a document file.
pub(crate) fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|k| e == *k))
}

impl Walk {
    /// Finds the names in these folders.
    pub(crate) fn through(folders: &[PathBuf]) -> Self {
        let mut walk = Self::default();
        folders.iter().for_each(|folder| walk.folder(folder, 0));
        walk
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        // Of a folder that two names lead to, the first is read.
        match std::fs::metadata(folder) {
            Ok(metadata) if !self.visited.insert((metadata.dev(), metadata.ino())) => return,
            _ => {}
        }
        let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let entries = match entries {
            Ok(entries) => entries,
            // A folder within, of which the name was just read, may go away at any moment.
            Err(error) if depth > 0 && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                self.unreadable.insert(folder.display().to_string(), error.to_string());
                return;
            }
        };
        self.folders.insert(folder.to_path_buf());
        let mut entries: Vec<Entry> = entries.iter().filter_map(Entry::of).collect();
        self.has_links |= entries.iter().any(|entry| entry.is_link);
        // Documents before folders, so that a folder without end takes none of them away.
        entries.sort_by(|a, b| (a.is_folder, &a.path).cmp(&(b.is_folder, &b.path)));
        for Entry { path, is_folder, .. } in entries {
            let is_document = is_document(&path);
            if !is_document {
                self.others += 1;
                if self.others > OTHERS {
                    let why = format!(
                        "below it are more than {OTHERS} names that are no documents: the rest is not read; is a link in it?"
                    );
                    self.unreadable.insert(folder.display().to_string(), why);
                    return;
                }
            }
            if is_folder {
                if depth < DEPTH {
                    self.folder(&path, depth + 1);
                } else {
                    let why = format!("it is nested more than {DEPTH} deep, and is not read");
                    self.unreadable.insert(path.display().to_string(), why);
                }
            } else if is_document && self.files.len() < FILES {
                let stamp = std::fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata));
                self.files.insert(path.display().to_string(), stamp);
            } else if is_document {
                let why = format!("it has more than {FILES} files; the rest is not read");
                self.unreadable.insert(folder.display().to_string(), why);
            }
        }
    }
}

/// A name in a folder.
struct Entry {
    path: PathBuf,
    is_folder: bool,
    is_link: bool,
}

impl Entry {
    /// Looks at a name; `None` when it is hidden.
    fn of(entry: &std::fs::DirEntry) -> Option<Self> {
        if entry.file_name().to_string_lossy().starts_with('.') {
            return None;
        }
        let path = entry.path();
        let kind = entry.file_type().ok();
        let is_link = kind.is_none_or(|kind| kind.is_symlink());
        let is_folder = if is_link { path.is_dir() } else { kind.is_some_and(|kind| kind.is_dir()) };
        Some(Self { path, is_folder, is_link })
    }
}
