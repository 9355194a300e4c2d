//! Documents of releases: what they ask for, and that they come and go; and how releases end.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serin_delivery::{DOCUMENT_GONE, Status, Versions};
use serin_model::{Kind, ObjectKey, ObjectName, Release};

use super::{Inner, Releases};

/// Why something that was said is not done, or not for certain.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It makes no sense now, or would do harm.
    Senseless(String),
    /// It is done, and is not on the disk.
    NotKept(String),
}

/// How releases ended since this pilot began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) rollbacks: BTreeMap<ObjectName, String>,
}

/// The document of a release is there: nothing waits for it.
pub(super) fn appear(status: &mut Status) {
    if status.paused.as_deref() == Some(DOCUMENT_GONE) {
        status.paused = status.paused_before.take();
    }
}

/// How fingerprints begin that are made of what was written. Those before were made of how it was understood, which changed with
/// every version of Serin.
const WRITTEN: &str = "w:";

/// What was asked for, in few letters: of the document's own fields, whatever their order.
pub(super) fn fingerprint(spec: &Release) -> String {
    // The parser's objects are ordered by key.
    let canonical = serde_json::from_str::<serde_json::Value>(&spec.document).unwrap_or_default().to_string();
    format!("{WRITTEN}{:016x}", xxhash_rust::xxh64::xxh64(canonical.as_bytes(), 0))
}

/// Whether a document is another than the one that a status is about.
pub(super) fn is_other(status: &Status, spec: &Release, print: &str) -> bool {
    if status.spec.starts_with(WRITTEN) || status.spec.is_empty() {
        return status.spec != print;
    }
    // Which document an older pilot had is not known; other versions are another release for certain.
    status.versions != Versions::of(spec)
}

impl Releases {
    /// Remembers of which releases an older document is in force, and what is wrong with documents.
    pub(crate) fn outdate(&self, objects: &BTreeMap<ObjectKey, SystemTime>, faults: BTreeMap<ObjectName, String>) {
        let mut inner = self.lock();
        inner.faults = faults;
        let Inner { entries, faults, .. } = &mut *inner;
        for (name, entry) in entries {
            entry.fault = faults.get(name).cloned();
            let since = objects.get(&ObjectKey { kind: Kind::Release, name: name.clone() });
            entry.outdated =
                since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|d| d.as_millis() as u64);
        }
    }

    /// Releases that are not known because their documents have errors: what is wrong with each.
    pub(crate) fn refused(&self) -> BTreeMap<ObjectName, String> {
        let inner = self.lock();
        let unknown = inner.faults.iter().filter(|(name, _)| !inner.entries.contains_key(*name));
        unknown.map(|(name, why)| (name.clone(), why.clone())).collect()
    }
}
