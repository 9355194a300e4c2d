//! Folders that are read again and again: only files that changed are opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::stamp::Stamp;
use crate::walk::{Walk, is_document};
use crate::{Found, read_stamped};

/// The changes since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files that were opened because they may have changed, and files that are no more (`None`).
    pub files: BTreeMap<String, Option<Found>>,
    /// Folders that cannot be read, and why; `None` when only certain files were looked at.
    pub unreadable: Option<BTreeMap<String, String>>,
}

/// Folders, and what was read of them.
#[derive(Debug)]
pub struct Folders {
    roots: Vec<Root>,
    /// The files that were read; without a stamp where the next look must open them again.
    known: BTreeMap<String, Option<Stamp>>,
    /// The folders that were read.
    within: BTreeSet<PathBuf>,
    /// True when every file stands where its name says and all of them could be read, so that single ones can be looked at.
    is_plain: bool,
}

/// A folder as it was named, and its absolute name, by which changes are announced.
#[derive(Debug)]
struct Root {
    named: PathBuf,
    absolute: PathBuf,
}

impl Folders {
    /// Folders of which nothing was read yet.
    #[must_use]
    pub fn new(folders: &[PathBuf]) -> Self {
        let root = |named: &PathBuf| Root {
            named: named.clone(),
            absolute: std::path::absolute(named).unwrap_or_else(|_| named.clone()),
        };
        Self {
            roots: folders.iter().map(root).collect(),
            known: BTreeMap::new(),
            within: BTreeSet::new(),
            is_plain: false,
        }
    }

    /// Expects files that somebody knows from elsewhere: the next look says of each what it is now, or that it is no more.
    pub fn expect<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        self.known.extend(names.map(|name| (name.clone(), None)));
    }

    /// Looks at all names, and reads the files that changed.
    pub fn scan(&mut self) -> Changes {
        let named: Vec<PathBuf> = self.roots.iter().map(|root| root.named.clone()).collect();
        let walk = Walk::through(&named);
        let mut changes = Changes::default();
        let unknown = |name: &str| walk.unreadable.keys().any(|folder| Path::new(name).starts_with(folder));
        let gone = self.known.keys().filter(|name| !walk.files.contains_key(*name) && !unknown(name));
        changes.files.extend(gone.map(|name| (name.clone(), None)));
        self.known.retain(|name, _| !changes.files.contains_key(name));
        for (name, stamp) in &walk.files {
            let is_same = self.known.get(name).is_some_and(|known| known.is_some() && known == stamp);
            if !is_same {
                self.open(name, &mut changes);
            }
        }
        self.is_plain = !walk.has_links && walk.unreadable.is_empty();
        self.within = walk.folders;
        changes.unreadable = Some(walk.unreadable);
        changes
    }

    /// Looks at names that were announced as changed, and reads those that are documents. Looks at all names when the change may
    /// concern others than these: links, folders, and places that could not be read.
    pub fn look(&mut self, announced: &BTreeSet<PathBuf>) -> Changes {
        let mut changes = Changes::default();
        for path in announced {
            let Some(path) = self.named(path).filter(|_| self.is_plain) else { return self.scan() };
            let name = path.display().to_string();
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() && !is_document(&path) => {}
                Ok(metadata) if metadata.is_file() => {
                    if !path.parent().is_some_and(|parent| self.within.contains(parent)) {
                        return self.scan();
                    }
                    self.open(&name, &mut changes);
                }
                Ok(_) => return self.scan(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if self.within.contains(&path) {
                        return self.scan();
                    }
                    if self.known.remove(&name).is_some() {
                        changes.files.insert(name, None);
                    }
                }
                Err(_) => return self.scan(),
            }
        }
        changes
    }

    /// Returns whether an announced name can matter: hidden ones do not where no link leads to them.
    #[must_use]
    pub fn heeds(&self, path: &Path) -> bool {
        !self.is_plain || !self.named(path).is_some_and(|path| self.is_hidden(&path))
    }

    fn is_hidden(&self, path: &Path) -> bool {
        let below = self.roots.iter().find_map(|root| path.strip_prefix(&root.named).ok());
        below.is_some_and(is_hidden)
    }

    /// The name that a path has below its folder as it was named.
    fn named(&self, path: &Path) -> Option<PathBuf> {
        let below = |root: &Root| match path.strip_prefix(&root.absolute).or_else(|_| path.strip_prefix(&root.named)) {
            Ok(below) if below.as_os_str().is_empty() => Some(root.named.clone()),
            Ok(below) => Some(root.named.join(below)),
            Err(_) => None,
        };
        self.roots.iter().find_map(below)
    }

    fn open(&mut self, name: &str, changes: &mut Changes) {
        let (found, stamp) = read_stamped(Path::new(name));
        let stamp = stamp.filter(|stamp| found.text.is_ok() && stamp.is_settled(SystemTime::now()));
        self.known.insert(name.to_owned(), stamp);
        changes.files.insert(name.to_owned(), Some(found));
    }
}

/// Returns whether a part of a relative name begins with a dot: such names are left out.
#[must_use]
pub fn is_hidden(below: &Path) -> bool {
    below.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Folder {
        root: tempfile::TempDir,
        folders: Folders,
    }

    impl Folder {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let folders = Folders::new(&[root.path().to_path_buf()]);
            Self { root, folders }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.at(name), text).unwrap();
        }

        /// The changes by name, with `-` for what is no more.
        fn said(&self, changes: Changes) -> Vec<(String, String)> {
            let text = |found: Option<Found>| found.map_or_else(|| "-".to_owned(), |found| found.text.unwrap());
            let short =
                |name: String| name.strip_prefix(&format!("{}/", self.root.path().display())).unwrap().to_owned();
            changes.files.into_iter().map(|(name, found)| (short(name), text(found))).collect()
        }

        fn scan(&mut self) -> Vec<(String, String)> {
            let changes = self.folders.scan();
            self.said(changes)
        }

        fn look(&mut self, names: &[&str]) -> Vec<(String, String)> {
            let changes = self.folders.look(&names.iter().map(|name| self.at(name)).collect());
            self.said(changes)
        }

        /// Makes files look as if they had rested.
        fn rest(&mut self) {
            let stamp = |name: &String| std::fs::metadata(name).ok().map(|metadata| Stamp::of(&metadata));
            self.folders.known = self.folders.known.keys().map(|name| (name.clone(), stamp(name))).collect();
        }
    }

    fn said(changes: &[(&str, &str)]) -> Vec<(String, String)> {
        changes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn only_files_that_changed_are_opened() {
        let mut folder = Folder::new();
        folder.write("a.yaml", "a: 1");
        folder.write("b.yaml", "b: 1");
        assert_eq!(folder.scan(), said(&[("a.yaml", "a: 1"), ("b.yaml", "b: 1")]));
        // Fresh ones are opened again.
        assert_eq!(folder.scan(), said(&[("a.yaml", "a: 1"), ("b.yaml", "b: 1")]));
        folder.rest();
        assert_eq!(folder.scan(), []);
        std::thread::sleep(Duration::from_millis(20));
        folder.write("a.yaml", "a: 2");
        std::fs::remove_file(folder.at("b.yaml")).unwrap();
        folder.write("c.yaml", "c: 1");
        assert_eq!(folder.scan(), said(&[("a.yaml", "a: 2"), ("b.yaml", "-"), ("c.yaml", "c: 1")]));
    }

    #[test]
    fn what_is_announced_is_looked_at_alone() {
        let mut folder = Folder::new();
        folder.write("a.yaml", "a: 1");
        folder.scan();
        folder.rest();
        folder.write("a.yaml", "a: 2");
        folder.write("b.json", "{}");
        folder.write("c.yaml", "c: 1");
        assert_eq!(
            folder.look(&["a.yaml", "b.json", "other.txt", "nowhere.yaml"]),
            said(&[("a.yaml", "a: 2"), ("b.json", "{}")])
        );
        std::fs::remove_file(folder.at("a.yaml")).unwrap();
        assert_eq!(folder.look(&["a.yaml"]), said(&[("a.yaml", "-")]));
        assert!(!folder.folders.heeds(&folder.at(".a.swp")) && folder.folders.heeds(&folder.at("a.yaml")));
        // A folder that comes has files of its own.
        std::fs::create_dir(folder.at("within")).unwrap();
        folder.write("within/d.yaml", "d: 1");
        folder.rest();
        assert_eq!(folder.look(&["within"]), said(&[("c.yaml", "c: 1"), ("within/d.yaml", "d: 1")]));
        std::fs::rename(folder.at("within"), folder.at(".hidden")).unwrap();
        folder.rest();
        let gone = folder.look(&["within"]);
        assert!(gone.contains(&("within/d.yaml".to_owned(), "-".to_owned())), "{gone:?}");
    }

    #[test]
    fn links_are_followed_at_every_change() {
        let mut folder = Folder::new();
        // As the files of a ConfigMap stand.
        std::fs::create_dir(folder.at("..first")).unwrap();
        folder.write("..first/a.yaml", "a: 1");
        std::os::unix::fs::symlink("..first", folder.at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", folder.at("a.yaml")).unwrap();
        assert_eq!(folder.scan(), said(&[("a.yaml", "a: 1")]));
        folder.rest();
        std::fs::create_dir(folder.at("..second")).unwrap();
        folder.write("..second/a.yaml", "a: 2");
        std::os::unix::fs::symlink("..second", folder.at("..new")).unwrap();
        std::fs::rename(folder.at("..new"), folder.at("..data")).unwrap();
        assert!(folder.folders.heeds(&folder.at("..data")));
        assert_eq!(folder.look(&["..data"]), said(&[("a.yaml", "a: 2")]));
    }
}
