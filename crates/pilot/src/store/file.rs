//! One file: what stands in it, and what of its earlier versions is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serin_folders::{Found, Unread};
use serin_ingest::{
    Code, Diagnostic, Document, InParts, Parsed, Parts, Position, Severity, close_unreadable, parse, parse_beside,
};
use serin_model::ObjectKey;

/// One file, as it was read last.
pub(super) struct File {
    pub(super) text: Result<String, Unread>,
    /// Tells whether it was replaced or written over.
    pub(super) identity: (u64, u64),
    /// A newer version that may not stay.
    pub(super) doubtful: Option<Doubt>,
    pub(super) documents: Vec<Document>,
    /// Earlier versions of what is broken in it now; a sound version anywhere comes before them.
    pub(super) retained: Vec<Document>,
    /// Stand-ins for what is broken in it and guards something, where no earlier version is known; policies close whatever was
    /// before.
    pub(super) closing: Vec<Document>,
    /// The first error of each object that is broken in it.
    pub(super) faults: Vec<(ObjectKey, Diagnostic)>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Its parts as they were parsed, so that the next version is parsed only where it differs.
    parts: Parts,
}

/// A version of a file that lacks objects, as files do while somebody writes them.
pub(super) struct Doubt {
    pub(super) since: Instant,
    /// The version; `None` when there is no file.
    pub(super) found: Option<Found>,
}

impl Doubt {
    pub(super) fn text(&self) -> Result<&str, &Unread> {
        self.found.as_ref().map_or(Ok(""), |found| found.text.as_deref())
    }
}

impl File {
    /// Parses a file; what is broken in it keeps the version it had before, in this file or elsewhere.
    pub(super) fn read(name: &str, found: Found, before: Option<&Self>, good: &BTreeMap<ObjectKey, Document>) -> Self {
        let Found { text, identity } = found;
        let none = Parts::default();
        let InParts { parsed, parts } = match &text {
            Ok(text) => parse_beside(name, text, before.map_or(&none, |before| &before.parts)),
            Err(Unread { why, glimpse }) => InParts { parsed: unreadable(name, why, glimpse), parts: none },
        };
        let documents = parsed.documents;
        let everything = parsed.unreadable || parsed.nameless;
        let is_broken = |document: &&Document| everything || parsed.broken.contains(&document.key);
        let earlier = before.into_iter().flat_map(|file| file.documents.iter().chain(&file.retained)).filter(is_broken);
        let mut retained: Vec<Document> = Vec::new();
        for old in earlier.chain(parsed.broken.iter().filter_map(|key| good.get(key))) {
            if !documents.iter().chain(&retained).any(|d| d.key == old.key) {
                retained.push(old.clone());
            }
        }
        let (mut closing, mut diagnostics) = (parsed.closing, parsed.diagnostics);
        if parsed.unreadable && !retained.is_empty() {
            // Its objects are what they were.
            closing.clear();
            diagnostics.retain(|d| d.code != Code::NotEnforced);
        }
        let faults = parsed.faults;
        Self { text, identity, doubtful: None, documents, retained, closing, faults, diagnostics, parts }
    }

    /// Returns whether all that is in force of it is what stands in it.
    pub(super) fn is_plain(&self) -> bool {
        self.doubtful.is_none() && self.retained.is_empty() && self.closing.is_empty()
    }

    /// Returns whether it can be kept for a pilot that begins anew.
    pub(super) fn is_sound(&self) -> bool {
        let errors = self.diagnostics.iter().any(|d| d.severity == Severity::Error);
        self.doubtful.is_none() && !errors && self.retained.is_empty()
    }
}

/// Returns whether a file looks like one that somebody is writing: it is empty, or it is the same file still (not one that was put in its
/// place) and has lost the objects at its end.
pub(super) fn is_doubtful(name: &str, before: &File, found: &Found) -> bool {
    let Ok(text) = &found.text else { return false };
    let old: Vec<&ObjectKey> = before.documents.iter().chain(&before.retained).map(|d| &d.key).collect();
    if old.is_empty() {
        return false;
    }
    if text.trim().is_empty() {
        return true;
    }
    if found.identity != before.identity {
        return false;
    }
    let parsed = parse(name, text);
    let new: Vec<&ObjectKey> = parsed.documents.iter().map(|d| &d.key).chain(&parsed.broken).collect();
    let kept = old.iter().filter(|key| new.contains(*key)).count();
    // What is left are the first ones.
    kept < old.len() && old.iter().take(kept).all(|key| new.contains(key))
}

pub(super) fn unreadable(name: &str, reason: &str, glimpse: &str) -> Parsed {
    let diagnostic = Diagnostic {
        code: Code::Unreadable,
        severity: Severity::Error,
        file: Arc::from(name),
        at: Position::default(),
        path: String::new(),
        message: format!("cannot be read: {reason}"),
        help: "objects that it had stay as they were".to_owned(),
    };
    let mut parsed = close_unreadable(name, glimpse);
    parsed.diagnostics.push(diagnostic);
    parsed
}
