//! Telling a file that changed without opening it.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

/// A file that was written less long ago is read again at the next look: clocks of file systems tick slowly, and two writes within a
/// tick leave the same stamp.
const RECENT: Duration = Duration::from_secs(3);

/// The marks by which a file that changed is told from one that did not, without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether the file has rested long enough for the stamp to tell the next write.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        now.checked_sub(changed).is_some_and(|age| age > RECENT)
    }
}
