//! From files to the documents in force.
//!
//! An edit of files in which nothing is broken, doubtful or held back changes the documents that stand in them and nothing else: it
//! is carried over to the documents in force, their findings and the snapshot at the cost of what it touches. After any other edit
//! they are found anew from all files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serin_ingest::{Checker, Code, Diagnostic, Document, Position, Severity, check};
use serin_model::{BackendPolicy, Object, ObjectKey, Outdated, Subset, TrafficPolicy};

use super::file::{File, unreadable};
use super::findings::{duplicate, half_written, not_refused, nothing};
use super::{Built, Store};

/// The findings and keys behind the documents in force, when they can be changed one by one.
pub(super) struct Live {
    checker: Checker,
    /// Objects of which there is more than one version: a change of one must look at all files.
    several: BTreeSet<ObjectKey>,
}

/// Files that changed, as they were before.
pub(super) type Edited = BTreeMap<String, Option<File>>;

impl Store {
    /// Carries an edit over to the documents in force; `None` when all files must be looked at.
    pub(super) fn amend(&mut self, edited: &Edited) -> Option<Built> {
        let live = self.live.as_mut()?;
        let before: Vec<&File> = edited.values().flatten().collect();
        let after: Vec<&File> = edited.keys().filter_map(|name| self.files.get(name)).collect();
        if !before.iter().chain(&after).all(|file| file.is_plain()) {
            return None;
        }
        let of = |files: &[&File]| -> BTreeMap<ObjectKey, Document> {
            files.iter().flat_map(|file| &file.documents).map(|d| (d.key.clone(), d.clone())).collect()
        };
        let (mut old, mut new) = (of(&before), of(&after));
        let is_once = new.len() == after.iter().map(|file| file.documents.len()).sum::<usize>();
        if !is_once || old.keys().chain(new.keys()).any(|key| live.several.contains(key)) {
            return None;
        }
        // Of files with many documents most are as they were.
        let is_same = |a: &Document, b: &Document| {
            Arc::ptr_eq(&a.object, &b.object) && a.file == b.file && a.at == b.at && a.provenance == b.provenance
        };
        old.retain(|key, document| match new.get(key).is_some_and(|other| is_same(document, other)) {
            true => new.remove(key).is_none(),
            false => true,
        });
        let is_new = |key: &&ObjectKey| !old.contains_key(*key);
        let is_taken = new.keys().filter(is_new).any(|key| self.good.contains_key(key));
        if is_taken || self.good.len() + new.len() == old.len() {
            return None;
        }
        let difference = live.checker.replace(old.values(), new.values());
        if difference.has_dangling {
            self.live = None;
            return None;
        }
        let said = |files: &[&File]| files.iter().flat_map(|file| file.diagnostics.clone()).collect::<Vec<_>>();
        let (mut said_before, mut said_after) = (said(&before), said(&after));
        if said_before == said_after {
            (said_before, said_after) = (Vec::new(), Vec::new());
        }
        let gone = self.said([said_before, difference.gone]);
        let mut news = self.said([said_after, difference.new]);
        for finding in &gone {
            if let Some(place) = self.diagnostics.iter().position(|other| other == finding) {
                self.diagnostics.remove(place);
            }
        }
        self.diagnostics.extend(news.iter().cloned());
        self.diagnostics.sort_by(|a, b| place_of(a).cmp(&place_of(b)));
        news.retain(|finding| !gone.contains(finding));
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.good.remove(key);
        }
        let placed = |d: &Document| (d.object.clone(), d.provenance.clone());
        let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
        self.mesh.update(gone.chain(new.iter().map(|(key, d)| (key.clone(), Some(placed(d))))));
        self.good.extend(new);
        Some(self.built(news, Some(edited.keys().cloned().collect())))
    }

    /// Finds the documents in force from all files.
    pub(super) fn rebuild(&mut self) -> Built {
        let mut diagnostics: Vec<Diagnostic> = self.files.values().flat_map(|f| f.diagnostics.clone()).collect();
        let doubtful = self.files.iter().filter(|(_, f)| f.doubtful.is_some());
        diagnostics.extend(doubtful.map(|(name, _)| half_written(name, self.grace)));
        diagnostics
            .extend(self.unreadable.iter().flat_map(|(folder, reason)| unreadable(folder, reason, "").diagnostics));
        let Candidates { mut documents, several, mut outdated, duplicates } = self.candidates();
        diagnostics.extend(duplicates);
        let checker = Checker::of(documents.values());
        let checked = checker.checked();
        diagnostics.extend(checked.diagnostics);
        self.live = checked.dangling.is_empty().then_some(Live { checker, several });
        if !checked.dangling.is_empty() {
            for key in checked.dangling {
                match self.good.get(&key) {
                    Some(good) => {
                        outdated.insert(key.clone());
                        documents.insert(key, good.clone())
                    }
                    None => documents.remove(&key),
                };
            }
            for key in check(documents.values()).dangling {
                let Some(user) = documents.get(&key).cloned() else { continue };
                diagnostics.extend(self.good.values().filter_map(|good| keep(good, &user, &mut documents)));
            }
        }
        if documents.is_empty() {
            self.live = None;
            diagnostics.push(nothing());
        }
        let mut diagnostics = self.said([diagnostics, Vec::new()]);
        diagnostics.sort_by(|a, b| place_of(a).cmp(&place_of(b)));
        let news = diagnostics.iter().filter(|d| !self.diagnostics.contains(d)).cloned().collect();
        self.diagnostics = diagnostics;
        self.enforce(documents, outdated);
        self.built(news, None)
    }

    /// Puts documents in force.
    fn enforce(&mut self, documents: BTreeMap<ObjectKey, Document>, outdated: BTreeSet<ObjectKey>) {
        let now = SystemTime::now();
        let before = std::mem::take(&mut self.outdated);
        let since = |key: ObjectKey| {
            let since = before.get(&key).copied().unwrap_or(now);
            (key, since)
        };
        self.outdated = outdated.into_iter().map(since).collect();
        let gone = self.good.keys().filter(|key| !documents.contains_key(*key)).map(|key| (key.clone(), None));
        let is_same = |d: &Document| {
            let before = self.good.get(&d.key);
            before.is_some_and(|b| Arc::ptr_eq(&b.object, &d.object) && b.provenance == d.provenance)
        };
        let changed = documents.values().filter(|d| !is_same(d));
        let changed = changed.map(|d| (d.key.clone(), Some((d.object.clone(), d.provenance.clone()))));
        self.mesh.update(gone.chain(changed));
        self.good = documents;
        let outdated = self.outdated.iter().filter_map(|(key, since)| {
            let object = self.good.get(key)?.object.clone();
            let since = jiff::Timestamp::try_from(*since).map(|t| format!("{t:.0}")).unwrap_or_default();
            let why = self.faults().find(|(broken, _)| *broken == key).map(|(_, why)| format!(" ({why})"));
            let why = format!("an older version is in force since {since}{}", why.unwrap_or_default());
            Some(Outdated { key: key.clone(), object, why })
        });
        self.mesh = self.mesh.clone().with_outdated(outdated.collect());
    }

    fn built(&self, news: Vec<Diagnostic>, edited: Option<BTreeSet<String>>) -> Built {
        Built { snapshot: self.mesh(), news, objects: self.good.len(), edited }
    }

    /// Findings in the words of this pilot.
    fn said(&self, findings: [Vec<Diagnostic>; 2]) -> Vec<Diagnostic> {
        let mut findings: Vec<Diagnostic> = findings.into_iter().flatten().collect();
        if self.unenforced {
            findings.iter_mut().filter(|d| d.code == Code::NotEnforced).for_each(not_refused);
        }
        findings
    }

    /// The documents that stand for each object.
    fn candidates(&self) -> Candidates {
        let mut found = Candidates::default();
        // What may be gone gives way to what is there: objects move from file to file.
        let (certain, doubtful): (Vec<&File>, Vec<&File>) = self.files.values().partition(|f| f.doubtful.is_none());
        for document in certain.iter().flat_map(|f| &f.documents) {
            if let Some(first) = found.documents.get(&document.key) {
                found.duplicates.push(duplicate(document, first));
                found.several.insert(document.key.clone());
            } else {
                found.documents.insert(document.key.clone(), document.clone());
            }
        }
        let retained = self.files.values().flat_map(|f| &f.retained);
        for document in doubtful.iter().flat_map(|f| &f.documents).chain(retained) {
            found.several.insert(document.key.clone());
            found.documents.entry(document.key.clone()).or_insert_with(|| {
                found.outdated.insert(document.key.clone());
                document.clone()
            });
        }
        for document in self.files.values().flat_map(|f| &f.closing) {
            found.several.insert(document.key.clone());
            let known = found.documents.entry(document.key.clone());
            let entry = known.or_insert_with(|| document.clone());
            // What was sound once may have demanded less than it does now.
            if demands_more(&document.object, &entry.object) {
                entry.clone_from(document);
            }
        }
        found
    }
}

/// The documents that stand for each object.
#[derive(Default)]
struct Candidates {
    documents: BTreeMap<ObjectKey, Document>,
    /// Objects of which there is more than one version, or one that is not certain.
    several: BTreeSet<ObjectKey>,
    /// Objects for which an older version stands.
    outdated: BTreeSet<ObjectKey>,
    duplicates: Vec<Diagnostic>,
}

/// The place of a finding among others.
fn place_of(finding: &Diagnostic) -> (&str, Position) {
    (&finding.file, finding.at)
}

/// Returns whether what is broken now demands something that its earlier version did not.
fn demands_more(now: &Object, before: &Object) -> bool {
    match (now, before) {
        (Object::Guard(_), _) => true,
        (Object::BackendPolicy(now), Object::BackendPolicy(before)) => {
            let policies = |rule: &BackendPolicy| {
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
        (Object::BackendPolicy(before), Object::BackendPolicy(now)) => {
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
                kept.object = Arc::new(Object::BackendPolicy(merged));
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
