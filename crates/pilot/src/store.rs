//! All documents, and for each the last version that was good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serin_ingest::{Code, Diagnostic, Document, Parsed, Position, Severity, check, close_unreadable, parse};
use serin_model::{DestinationRule, MeshSnapshot, Object, ObjectKey, Outdated, Subset, TrafficPolicy};

use serin_folders::{Contents, Found, Unread};

/// What is known of one file.
struct File {
    text: Result<String, Unread>,
    /// Tells whether it was replaced or written over.
    identity: (u64, u64),
    /// What it became and may not stay: objects are missing, as they are while somebody writes it.
    doubtful: Option<(Instant, Result<String, Unread>)>,
    documents: Vec<Document>,
    /// Earlier versions of what is broken in it now; a sound version anywhere comes before them.
    retained: Vec<Document>,
    /// What stands for what is broken in it and guards something, where no earlier version is known; policies close whatever was
    /// before.
    closing: Vec<Document>,
    /// The first error of each object that is broken in it.
    faults: Vec<(ObjectKey, Diagnostic)>,
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
    /// Objects of which an older version is in force, because the newer one is broken, held back or away, and since when.
    outdated: BTreeMap<ObjectKey, SystemTime>,
    /// Policies that are not carried out are passed over instead of closing what they guard.
    unenforced: bool,
    /// How long a file may be empty, or lack objects at its end, before it is believed.
    grace: Duration,
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
    /// An empty one; `unenforced` passes over policies that are not carried out, and a file that lacks objects is believed after
    /// `grace`.
    pub(crate) fn new(unenforced: bool, grace: Duration) -> Self {
        Self { unenforced, grace, ..Self::default() }
    }

    /// Goes on with what an earlier pilot had in force, as if there had been no restart: what is broken or away since then is
    /// looked at next.
    pub(crate) fn restore(&mut self, texts: BTreeMap<String, String>) -> Option<Built> {
        for (name, text) in texts {
            let found = Found { text: Ok(text), identity: (0, 0) };
            self.files.insert(name.clone(), read(&name, found, None, &self.good));
        }
        (!self.files.is_empty()).then(|| self.build())
    }

    /// The files that are sound as they are, with their text.
    pub(crate) fn sound(&self) -> impl Iterator<Item = (&String, &String)> {
        let sound = |file: &File| {
            let errors = file.diagnostics.iter().any(|d| d.severity == Severity::Error);
            file.doubtful.is_none() && !errors && file.retained.is_empty()
        };
        self.files
            .iter()
            .filter(move |(_, file)| sound(file))
            .filter_map(|(name, file)| Some((name, file.text.as_ref().ok()?)))
    }

    /// Takes the files in; `None` when nothing changed.
    pub(crate) fn update(&mut self, contents: Contents, now: Instant) -> Option<Built> {
        let mut changed = self.unreadable != contents.unreadable;
        self.unreadable = contents.unreadable;
        let unknown = |file: &str| self.unreadable.keys().any(|folder| Path::new(file).starts_with(folder));
        let gone: Vec<String> =
            self.files.keys().filter(|file| !contents.files.contains_key(*file) && !unknown(file)).cloned().collect();
        // A file that is away may be put there anew in a moment: editors and links do so.
        for name in gone {
            changed |= self.take(&name, Found { text: Ok(String::new()), identity: (0, 0) }, now);
            if self.files.get(&name).is_some_and(|file| file.doubtful.is_none()) {
                changed |= self.files.remove(&name).is_some_and(|file| !file.documents.is_empty());
            }
        }
        for (name, found) in contents.files {
            changed |= self.take(&name, found, now);
        }
        changed.then(|| self.build())
    }

    /// Takes one file in; true when that changes something.
    fn take(&mut self, name: &str, found: Found, now: Instant) -> bool {
        let Some(file) = self.files.get_mut(name) else {
            self.files.insert(name.to_owned(), read(name, found, None, &self.good));
            return true;
        };
        if file.text == found.text && file.doubtful.is_none() {
            file.identity = found.identity;
            return false;
        }
        if file.text == found.text {
            file.doubtful = None;
            file.identity = found.identity;
            return true;
        }
        if is_doubtful(name, file, &found) {
            let since = match &file.doubtful {
                Some((since, text)) if *text == found.text => *since,
                _ => now,
            };
            if now.saturating_duration_since(since) < self.grace {
                let is_news = file.doubtful.is_none();
                file.doubtful = Some((since, found.text));
                return is_news;
            }
        }
        let before = self.files.remove(name);
        self.files.insert(name.to_owned(), read(name, found, before, &self.good));
        true
    }

    /// When a file that may be half-written is believed.
    pub(crate) fn next_decision(&self, now: Instant) -> Option<Duration> {
        let until = self.files.values().filter_map(|f| Some(f.doubtful.as_ref()?.0 + self.grace));
        until.min().map(|until| until.saturating_duration_since(now))
    }

    /// Every finding that stands.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The text of a file, for showing a finding.
    pub(crate) fn text(&self, file: &str) -> Option<&str> {
        self.files.get(file).and_then(|f| f.text.as_deref().ok())
    }

    /// Whether a file is there, as far as is known.
    pub(crate) fn knows(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The mesh that they make.
    pub(crate) fn mesh(&self) -> MeshSnapshot {
        let placed = |d: &Document| (d.object.clone(), d.provenance.clone());
        let mesh = MeshSnapshot::build(self.good.iter().map(|(key, d)| (key.clone(), placed(d))).collect());
        let outdated = self.outdated.iter().filter_map(|(key, since)| {
            let object = self.good.get(key)?.object.clone();
            let since = jiff::Timestamp::try_from(*since).map(|t| format!("{t:.0}")).unwrap_or_default();
            let why = self.faults().find(|(broken, _)| *broken == key).map(|(_, why)| format!(" ({why})"));
            let why = format!("an older version is in force since {since}{}", why.unwrap_or_default());
            Some(Outdated { key: key.clone(), object, why })
        });
        let mesh = mesh.with_outdated(outdated.collect());
        if self.unenforced { mesh.without_enforcement() } else { mesh }
    }

    /// Objects of which an older version is in force, and since when a newer one is not taken.
    pub(crate) fn outdated(&self) -> &BTreeMap<ObjectKey, SystemTime> {
        &self.outdated
    }

    /// Objects that are broken, each with its first error and the place of it.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&ObjectKey, String)> {
        let said = |d: &Diagnostic| {
            let file = d.file.rsplit('/').next().unwrap_or_default();
            let at = if d.path.is_empty() { String::new() } else { format!("{}: ", d.path) };
            format!("{file}:{}: {at}{}", d.at.line, d.message)
        };
        self.files.values().flat_map(|f| &f.faults).map(move |(key, diagnostic)| (key, said(diagnostic)))
    }

    /// The objects in force.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Document> {
        self.good.values()
    }

    fn build(&mut self) -> Built {
        let mut diagnostics: Vec<Diagnostic> = self.files.values().flat_map(|f| f.diagnostics.clone()).collect();
        let doubtful = self.files.iter().filter(|(_, f)| f.doubtful.is_some());
        diagnostics.extend(doubtful.map(|(name, _)| half_written(name, self.grace)));
        diagnostics
            .extend(self.unreadable.iter().flat_map(|(folder, reason)| unreadable(folder, reason, "").diagnostics));
        let mut candidates: BTreeMap<ObjectKey, Document> = BTreeMap::new();
        // What may be gone gives way to what is there: objects move from file to file.
        let (certain, doubtful): (Vec<&File>, Vec<&File>) = self.files.values().partition(|f| f.doubtful.is_none());
        for document in certain.iter().flat_map(|f| &f.documents) {
            if let Some(first) = candidates.get(&document.key) {
                diagnostics.push(duplicate(document, first));
            } else {
                candidates.insert(document.key.clone(), document.clone());
            }
        }
        let retained = self.files.values().flat_map(|f| &f.retained);
        let mut outdated = BTreeSet::new();
        for document in doubtful.iter().flat_map(|f| &f.documents).chain(retained) {
            candidates.entry(document.key.clone()).or_insert_with(|| {
                outdated.insert(document.key.clone());
                document.clone()
            });
        }
        for document in self.files.values().flat_map(|f| &f.closing) {
            let known = candidates.entry(document.key.clone());
            let entry = known.or_insert_with(|| document.clone());
            // What was sound once may have demanded less than it does now.
            if demands_more(&document.object, &entry.object) {
                entry.clone_from(document);
            }
        }
        let checked = check(candidates.values());
        diagnostics.extend(checked.diagnostics);
        for key in checked.dangling {
            match self.good.get(&key) {
                Some(good) => {
                    outdated.insert(key.clone());
                    candidates.insert(key, good.clone())
                }
                None => candidates.remove(&key),
            };
        }
        for key in check(candidates.values()).dangling {
            let Some(user) = candidates.get(&key).cloned() else { continue };
            diagnostics.extend(self.good.values().filter_map(|good| keep(good, &user, &mut candidates)));
        }
        if candidates.is_empty() {
            diagnostics.push(nothing());
        }
        if self.unenforced {
            diagnostics.iter_mut().filter(|d| d.code == Code::NotEnforced).for_each(not_refused);
        }
        let now = SystemTime::now();
        let before = std::mem::take(&mut self.outdated);
        let since = |key: ObjectKey| {
            let since = before.get(&key).copied().unwrap_or(now);
            (key, since)
        };
        self.outdated = outdated.into_iter().map(since).collect();
        self.good = candidates;
        let news = diagnostics.iter().filter(|d| !self.diagnostics.contains(d)).cloned().collect();
        self.diagnostics = diagnostics;
        Built { snapshot: self.mesh(), news, objects: self.good.len() }
    }
}

/// Whether what is broken now demands something that its earlier version did not.
fn demands_more(now: &Object, before: &Object) -> bool {
    match (now, before) {
        (Object::Guard(_), _) => true,
        (Object::DestinationRule(now), Object::DestinationRule(before)) => {
            let policies = |rule: &DestinationRule| {
                let subsets = rule.subsets.iter().map(|s| s.policy.clone());
                subsets.chain([(*rule.policy).clone()]).filter_map(|p| p.not_carried_out().map(str::to_owned)).count()
            };
            let says_tls = |policy: &TrafficPolicy| policy.refused.as_ref().is_some_and(|text| text.contains("tls"));
            let tls = says_tls(&now.policy) || now.subsets.iter().any(|s| says_tls(&s.policy));
            tls && policies(before) == 0
        }
        _ => false,
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

/// Whether a file looks like one that somebody is writing: it is empty, or it is the same file still (not one that was put in its
/// place) and has lost the objects at its end.
fn is_doubtful(name: &str, before: &File, found: &Found) -> bool {
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

/// What is said of a policy that is passed over.
fn not_refused(diagnostic: &mut Diagnostic) {
    let said = diagnostic.message.replace(" are refused", " would be refused");
    diagnostic.message = format!("{said}; with --allow-unenforced-policies they go through without what it demands");
    "start the pilot without --allow-unenforced-policies to refuse them".clone_into(&mut diagnostic.help);
}

/// What is said of folders without a document.
fn nothing() -> Diagnostic {
    Diagnostic {
        code: Code::NoObjects,
        severity: Severity::Warning,
        file: Arc::from("--config"),
        at: Position::default(),
        path: String::new(),
        message: "there is no document: no service, rule or release is in force".to_owned(),
        help: "save documents with the ending .yaml, .yml or .json in the folder".to_owned(),
    }
}

fn half_written(name: &str, grace: Duration) -> Diagnostic {
    Diagnostic {
        code: Code::HalfWritten,
        severity: Severity::Warning,
        file: Arc::from(name),
        at: Position::default(),
        path: String::new(),
        message: "objects that stood in it are missing: they stay in force, because the file may be half-written"
            .to_owned(),
        help: format!("when it stays so for {} s they are taken away", grace.as_secs_f64()),
    }
}

/// Parses a file; what is broken in it keeps the version it had before, in this file or elsewhere.
fn read(name: &str, found: Found, before: Option<File>, good: &BTreeMap<ObjectKey, Document>) -> File {
    let Found { text, identity } = found;
    let parsed = match &text {
        Ok(text) => parse(name, text),
        Err(Unread { why, glimpse }) => unreadable(name, why, glimpse),
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
    let (mut closing, mut diagnostics) = (parsed.closing, parsed.diagnostics);
    if parsed.unreadable && !retained.is_empty() {
        // Its objects are what they were.
        closing.clear();
        diagnostics.retain(|d| d.code != Code::NotEnforced);
    }
    let faults = parsed.faults;
    File { text, identity, doubtful: None, documents, retained, closing, faults, diagnostics }
}

fn unreadable(name: &str, reason: &str, glimpse: &str) -> Parsed {
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
