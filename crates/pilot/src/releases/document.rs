//! Documents of releases: what they ask for, and that they come and go; and how releases end.

use std::collections::BTreeMap;

use serin_delivery::{DOCUMENT_GONE, Status, Versions};
use serin_model::{ObjectName, Release};

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
