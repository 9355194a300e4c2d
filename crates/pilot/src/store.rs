//! All documents, and for each the last version that was good.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serin_ingest::{Code, Diagnostic, Document, Parsed, Position, Severity, check, parse};
use serin_model::{MeshSnapshot, Object, ObjectKey, Subset};

use crate::source::Contents;

/// What is known of one file.
struct File {
    text: Result<String, String>,
    documents: Vec<Document>,
    /// Earlier versions of what is broken in it now; a sound version anywhere comes before them.
    retained: Vec<Document>,
    /// What stands for what is broken in it and guards something, where no earlier version is known; policies close whatever was
    /// before.
    closing: Vec<Document>,
    diagnostics: Vec<Diagnostic>,
}

/// The store.
#[derive(Default)]
pub(crate) struct Store {
    files: BTreeMap<String, File>,
    unreadable: BTreeMap<String, String>,
    /// Versions that were in force at the last build.
    good: BTreeMap<ObjectKey, Document>,
    diagnostics: Vec<Diagnostic>,
    /// Policies that are not carried out are passed over instead of closing what they guard.
    unenforced: bool,
}

/// What a rebuild yields.
pub(crate) struct Built {
    /// The mesh as it is from now on.
    pub(crate) snapshot: MeshSnapshot,
    /// Findings that were not there before.
    pub(crate) news: Vec<Diagnostic>,
    /// Number of objects in force.
    pub(crate) objects: usize,
}

impl Store {
    /// An empty one; `unenforced` passes over policies that are not carried out.
    pub(crate) fn new(unenforced: bool) -> Self {
        Self { unenforced, ..Self::default() }
    }

    /// Takes the files in; `None` when nothing changed.
    pub(crate) fn update(&mut self, contents: Contents) -> Option<Built> {
        let mut changed = self.unreadable != contents.unreadable;
        self.unreadable = contents.unreadable;
        let unknown = |file: &str| self.unreadable.keys().any(|folder| Path::new(file).starts_with(folder));
        let gone = |file: &&String| !contents.files.contains_key(*file) && !unknown(file);
        for file in self.files.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.files.remove(&file);
            changed = true;
        }
        for (name, text) in contents.files {
            if self.files.get(&name).is_some_and(|f| f.text == text) {
                continue;
            }
            let before = self.files.remove(&name);
            self.files.insert(name.clone(), read(&name, text, before, &self.good));
            changed = true;
        }
        changed.then(|| self.build())
    }

    /// Every finding that stands.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The text of a file, for showing a finding.
    pub(crate) fn text(&self, file: &str) -> Option<&str> {
        self.files.get(file).and_then(|f| f.text.as_deref().ok())
    }

    /// The mesh that they make.
    pub(crate) fn mesh(&self) -> MeshSnapshot {
        let placed = |d: &Document| (d.object.clone(), d.provenance.clone());
        let mesh = MeshSnapshot::build(self.good.iter().map(|(key, d)| (key.clone(), placed(d))).collect());
        if self.unenforced { mesh.without_enforcement() } else { mesh }
    }

    /// The objects in force.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Document> {
        self.good.values()
    }

    fn build(&mut self) -> Built {
        let mut diagnostics: Vec<Diagnostic> = self.files.values().flat_map(|f| f.diagnostics.clone()).collect();
        diagnostics.extend(self.unreadable.iter().flat_map(|(folder, reason)| unreadable(folder, reason).diagnostics));
        let mut candidates: BTreeMap<ObjectKey, Document> = BTreeMap::new();
        for document in self.files.values().flat_map(|f| &f.documents) {
            if let Some(first) = candidates.get(&document.key) {
                diagnostics.push(duplicate(document, first));
            } else {
                candidates.insert(document.key.clone(), document.clone());
            }
        }
        for document in self.files.values().flat_map(|f| &f.retained) {
            candidates.entry(document.key.clone()).or_insert_with(|| document.clone());
        }
        for document in self.files.values().flat_map(|f| &f.closing) {
            // A policy that was sound once may have demanded less than it does now.
            let is_policy = matches!(document.object.as_ref(), Object::Guard(_));
            let known = candidates.entry(document.key.clone());
            let entry = known.or_insert_with(|| document.clone());
            if is_policy {
                entry.clone_from(document);
            }
        }
        let checked = check(candidates.values());
        diagnostics.extend(checked.diagnostics);
        for key in checked.dangling {
            match self.good.get(&key) {
                Some(good) => candidates.insert(key, good.clone()),
                None => candidates.remove(&key),
            };
        }
        for key in check(candidates.values()).dangling {
            let Some(user) = candidates.get(&key).cloned() else { continue };
            diagnostics.extend(self.good.values().filter_map(|good| keep(good, &user, &mut candidates)));
        }
        self.good = candidates;
        let news = diagnostics.iter().filter(|d| !self.diagnostics.contains(d)).cloned().collect();
        self.diagnostics = diagnostics;
        Built { snapshot: self.mesh(), news, objects: self.good.len() }
    }
}

/// Puts back what `user` still uses of an earlier object: subsets of a DestinationRule, or a Gateway. Without them its
/// traffic would go nowhere. Services are not put back: they say what is really there.
fn keep(good: &Document, user: &Document, candidates: &mut BTreeMap<ObjectKey, Document>) -> Option<Diagnostic> {
    let mut kept = candidates.get(&good.key).unwrap_or(good).clone();
    let what = match (good.object.as_ref(), kept.object.as_ref()) {
        (Object::DestinationRule(before), Object::DestinationRule(now)) => {
            let here = candidates.contains_key(&good.key);
            let missing = |name: &str| !here || now.subsets.iter().all(|s| s.name != name);
            let used = |name: &str| user.references.iter().any(|r| r.is_subset(&before.host, name));
            let lost: Vec<Subset> =
                before.subsets.iter().filter(|s| used(&s.name) && missing(&s.name)).cloned().collect();
            let names: Vec<&str> = lost.iter().map(|s| s.name.as_str()).collect();
            let what = (!lost.is_empty()).then(|| format!("subset {} of {}", names.join(", "), good.key))?;
            if here {
                let mut merged = now.clone();
                merged.subsets.extend(lost);
                kept.object = Arc::new(Object::DestinationRule(merged));
            }
            what
        }
        (Object::Gateway(gateway), _) if !candidates.contains_key(&good.key) => {
            user.references.iter().any(|r| r.is_gateway(&gateway.name)).then(|| good.key.to_string())?
        }
        _ => return None,
    };
    candidates.insert(good.key.clone(), kept);
    Some(Diagnostic {
        code: Code::StillUsed,
        severity: Severity::Warning,
        file: user.file.clone(),
        at: user.at,
        path: String::new(),
        message: format!("{what} stays in force as it was: {} uses it", user.key),
        help: "take the use away first".to_owned(),
    })
}

/// Parses a file; what is broken in it keeps the version it had before, in this file or elsewhere.
fn read(name: &str, text: Result<String, String>, before: Option<File>, good: &BTreeMap<ObjectKey, Document>) -> File {
    let parsed = match &text {
        Ok(text) => parse(name, text),
        Err(reason) => unreadable(name, reason),
    };
    let documents = parsed.documents;
    let earlier = before.map(|f| f.documents.into_iter().chain(f.retained).collect::<Vec<_>>()).unwrap_or_default();
    let everything = parsed.unreadable || parsed.nameless;
    let mut retained: Vec<Document> = Vec::new();
    let of_elsewhere = parsed.broken.iter().filter_map(|key| good.get(key).cloned());
    for old in earlier.into_iter().filter(|d| everything || parsed.broken.contains(&d.key)).chain(of_elsewhere) {
        if !documents.iter().chain(&retained).any(|d| d.key == old.key) {
            retained.push(old);
        }
    }
    File { text, documents, retained, closing: parsed.closing, diagnostics: parsed.diagnostics }
}

fn unreadable(name: &str, reason: &str) -> Parsed {
    let diagnostic = Diagnostic {
        code: Code::Unreadable,
        severity: Severity::Error,
        file: Arc::from(name),
        at: Position::default(),
        path: String::new(),
        message: format!("cannot be read: {reason}"),
        help: "objects of this file stay as they were".to_owned(),
    };
    Parsed { diagnostics: vec![diagnostic], unreadable: true, ..Parsed::default() }
}

fn duplicate(document: &Document, first: &Document) -> Diagnostic {
    Diagnostic {
        code: Code::Duplicate,
        severity: Severity::Error,
        file: document.file.clone(),
        at: document.at,
        path: String::new(),
        message: format!("{} is defined twice", document.key),
        help: format!("the one in {}:{} is used", first.file, first.at.line),
    }
}
