//! Copies of the documents that are in force, beside the state of releases.
//!
//! A pilot that runs keeps the last sound version of a file that is broken or away. One that begins anew would not know it, and
//! what the document brought about (routes, the share of a release, a rollback) would be undone by a restart: it begins with these.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::store::Store;

/// The folder of copies.
pub(crate) struct Copies {
    folder: PathBuf,
    /// The folders of documents, as they were named and as they really are.
    roots: Vec<(PathBuf, PathBuf)>,
    /// What stands in the copies.
    written: HashMap<String, u64>,
    failed: bool,
}

impl Copies {
    /// Copies beside that state file of what stands in these folders.
    pub(crate) fn beside(state: &Path, roots: &[PathBuf]) -> Self {
        let real = |root: &PathBuf| (root.clone(), root.canonicalize().unwrap_or_else(|_| root.clone()));
        let folder = state.with_extension("documents");
        Self { folder, roots: roots.iter().map(real).collect(), written: HashMap::new(), failed: false }
    }

    /// The texts of an earlier pilot, by the names that files have for this one.
    pub(crate) fn read(&mut self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Ok(copy) = serin_folders::read_file(&entry.path()).text else { continue };
            let Some((place, text)) = copy.split_once('\n') else { continue };
            let named =
                self.roots.iter().find_map(|(named, real)| Some(named.join(Path::new(place).strip_prefix(real).ok()?)));
            if let Some(name) = named.filter(|_| copy_name(place) == entry.file_name().to_string_lossy()) {
                let name = name.display().to_string();
                self.written.insert(name.clone(), hash(text));
                texts.insert(name, text.to_owned());
            }
        }
        texts
    }

    /// Keeps what is sound now, and forgets files that are gone; of all, or of those that were edited.
    pub(crate) fn keep(&mut self, store: &Store, edited: Option<&BTreeSet<String>>) {
        let result = self.write(store, edited.filter(|_| !self.failed));
        if let Err(error) = &result
            && !self.failed
        {
            tracing::warn!("{}: documents cannot be kept for a restart: {error}", self.folder.display());
        }
        self.failed = result.is_err();
    }

    fn write(&mut self, store: &Store, edited: Option<&BTreeSet<String>>) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        for (name, text) in store.sound(edited) {
            let now = hash(text);
            let (Some(place), false) = (self.place(name), self.written.get(name) == Some(&now)) else { continue };
            let (copy, beside) = (self.folder.join(copy_name(&place)), self.folder.join(".new"));
            std::fs::write(&beside, format!("{place}\n{text}"))?;
            std::fs::rename(&beside, copy)?;
            self.written.insert(name.clone(), now);
        }
        let all = self.written.keys().filter(|_| edited.is_none());
        let some = edited.into_iter().flatten().filter(|name| self.written.contains_key(*name));
        let gone: Vec<String> = all.chain(some).filter(|name| !store.knows(name)).cloned().collect();
        for name in gone {
            if let Some(place) = self.place(&name) {
                std::fs::remove_file(self.folder.join(copy_name(&place)))?;
            }
            self.written.remove(&name);
        }
        Ok(())
    }

    /// Where a file really is.
    fn place(&self, name: &str) -> Option<String> {
        let (root, real) = self.roots.iter().find(|(named, _)| Path::new(name).starts_with(named))?;
        Some(real.join(Path::new(name).strip_prefix(root).ok()?).display().to_string())
    }
}

fn hash(text: &str) -> u64 {
    xxhash_rust::xxh64::xxh64(text.as_bytes(), 0)
}

fn copy_name(place: &str) -> String {
    format!("{:016x}.copy", hash(place))
}
