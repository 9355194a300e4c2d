//! Folders of documents, read so that nothing in them can hold the reader up or exhaust it.
//!
//! A file is opened without blocking and must be a regular one; its size is bounded before and while it is read; links are followed,
//! but a folder that two names lead to is read once. Names that begin with a dot are left out. It deliberately does not know what
//! stands in a file.

mod stamp;
mod walk;
mod watched;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use watched::{Changes, Folders, is_hidden};

use stamp::Stamp;
use walk::Walk;

/// Largest file that is read: beyond any set of rules, and small enough to parse in a moment.
pub const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// The result of reading folders.
#[derive(Debug, Default)]
pub struct Contents {
    /// The files with documents.
    pub files: BTreeMap<String, Found>,
    /// Folders that cannot be read, and why: nothing is known about the files in them.
    pub unreadable: BTreeMap<String, String>,
}

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its text, or the reason why it cannot be read.
    pub text: Result<String, Unread>,
    /// Tells whether the file was replaced, in one step, or written over.
    pub identity: (u64, u64),
}

/// The reason why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The reason.
    pub why: String,
    /// The part of the text that can be read all the same; empty when nothing can.
    pub glimpse: String,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<String> for Unread {
    fn from(why: String) -> Self {
        Self { why, glimpse: String::new() }
    }
}

/// Reads every document file in these folders.
#[must_use]
pub fn read(folders: &[PathBuf]) -> Contents {
    let walk = Walk::through(folders);
    let files = walk.files.into_keys().map(|name| (name.clone(), read_file(Path::new(&name)))).collect();
    Contents { files, unreadable: walk.unreadable }
}

/// Reads a regular file of bounded size, without waiting: a pipe, a device or a file that grows must not hold anybody up.
#[must_use]
pub fn read_file(path: &Path) -> Found {
    read_stamped(path).0
}

/// Reads a file, with its stamp from before the first byte was read.
fn read_stamped(path: &Path) -> (Found, Option<Stamp>) {
    match open(path) {
        Ok((file, metadata)) => {
            let found = Found { text: read_bounded(file), identity: (metadata.dev(), metadata.ino()) };
            (found, Some(Stamp::of(&metadata)))
        }
        Err(unread) => (Found { text: Err(unread), identity: (0, 0) }, None),
    }
}

fn open(path: &Path) -> Result<(std::fs::File, std::fs::Metadata), Unread> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|e| e.to_string())?);
    let metadata = file.metadata().map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned().into());
    }
    Ok((file, metadata))
}

fn read_bounded(file: std::fs::File) -> Result<String, Unread> {
    let size = file.metadata().map(|m| m.len()).unwrap_or_default();
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > MAX_FILE_BYTES {
        bytes.truncate(MAX_FILE_BYTES);
        return Err(Unread { why: too_large(size.max(bytes.len() as u64)), glimpse: glimpse(&bytes) });
    }
    String::from_utf8(bytes).map_err(|error| {
        let glimpse = glimpse(error.as_bytes());
        Unread { why: format!("it is not UTF-8: {}", error.utf8_error()), glimpse }
    })
}

/// Bytes that are no UTF-8 as text: UTF-16 where they begin so, else with a mark for each that cannot be told.
fn glimpse(bytes: &[u8]) -> String {
    let pairs = |read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> =
            bytes.chunks_exact(2).filter_map(|pair| Some(read([*pair.first()?, *pair.get(1)?]))).collect();
        String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').to_owned()
    };
    match bytes {
        [0xff, 0xfe, ..] => pairs(u16::from_le_bytes),
        [0xfe, 0xff, ..] => pairs(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn too_large(size: u64) -> String {
    format!("the file has {size} bytes, more than {MAX_FILE_BYTES}: split it into several files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_loops_and_large_files_hold_nobody_up() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("good.yaml"), "a: 1\n").unwrap();
        std::fs::write(at(".hidden.yaml"), "a: 1\n").unwrap();
        std::fs::write(at("other.txt"), "a: 1\n").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe.yaml"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero.yaml")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling.yaml")).unwrap();
        std::fs::File::create(at("large.yaml")).unwrap().set_len(1 << 32).unwrap();
        std::fs::create_dir(at("within")).unwrap();
        std::fs::write(at("within/more.json"), "{}").unwrap();
        for name in ["one", "two", "three", "four"] {
            std::os::unix::fs::symlink(".", at(name)).unwrap();
        }
        std::os::unix::fs::symlink("within", at("again")).unwrap();
        let contents = read(&[root.path().to_path_buf()]);
        let found: BTreeMap<String, Result<String, Unread>> = contents
            .files
            .into_iter()
            .map(|(name, found)| {
                (name.strip_prefix(&format!("{}/", root.path().display())).unwrap().to_owned(), found.text)
            })
            .collect();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        // The folder that two names lead to is read by the first.
        assert_eq!(names, ["again/more.json", "dangling.yaml", "good.yaml", "large.yaml", "pipe.yaml", "zero.yaml"]);
        assert_eq!(found["good.yaml"].as_ref().unwrap(), "a: 1\n");
        assert!(found["pipe.yaml"].as_ref().is_err_and(|e| e.why.contains("no regular file")));
        assert!(found["zero.yaml"].as_ref().is_err_and(|e| e.why.contains("no regular file")));
        assert!(found["large.yaml"].as_ref().is_err_and(|e| e.why.contains("split it")));
        assert!(contents.unreadable.is_empty());
    }

    #[test]
    fn what_is_no_utf8_is_made_out_as_far_as_it_can_be() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.yaml");
        let utf16: Vec<u8> = "\u{feff}kind: A\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, expected) in [(b"kind: \xe9\n".to_vec(), "kind: \u{fffd}\n"), (utf16, "kind: A\n")] {
            std::fs::write(&path, bytes).unwrap();
            let unread = read_file(&path).text.unwrap_err();
            assert!(unread.why.contains("not UTF-8") && unread.glimpse == expected, "{unread:?}");
        }
    }

    #[test]
    fn a_file_that_is_put_in_place_of_another_is_told_from_one_that_is_written_over() {
        let root = tempfile::tempdir().unwrap();
        let (path, other) = (root.path().join("a.yaml"), root.path().join(".a"));
        let identity = || read_file(&path).identity;
        std::fs::write(&path, "a: 1\n").unwrap();
        let first = identity();
        std::fs::write(&path, "a: 2\n").unwrap();
        assert_eq!(identity(), first);
        std::fs::write(&other, "a: 3\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(identity(), first);
    }
}
