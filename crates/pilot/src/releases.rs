//! Releases at work: documents in, evidence in, traffic out. `serin-delivery` decides; here it is given what it asks for.
//!
//! A look every [`LOOK`]: what proxies reported and confirmed since the last one. What is decided is written to the state file
//! before it is done, so that a pilot that is killed goes on where it was.

mod api;
mod audit;
mod commands;
mod document;
mod ending;
mod order;
mod outside;
mod page;
mod state;
mod tally;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serin_delivery::{
    Action, Command, Event, EventKind, Evidence, Outcome, Phase, Reading, Said, Status, advance, changed, may_begin,
    overlay,
};
use serin_model::{Hostname, MeshSnapshot, ObjectName, Overlay, Release};
use tokio::sync::Notify;

pub(crate) use crate::clock::now;
use crate::clock::{Jumps, calendar};
use crate::fleet::Fleet;
use crate::loads::{LoadDelta, Loads};
use audit::{Audit, Stamp, Whole};
pub(crate) use document::{Ends, Refusal};
use document::{appear, fingerprint, is_other};
use order::{Wait, arrived, is_contested, joint_rollback, replaces, waits_for};
use state::StateFile;
pub(crate) use state::StateLock;
use tally::{Caller, Callers, Tally, ready};

pub(crate) use api::{BODY, Tokens, routes};
pub(crate) use outside::EffectRunner;

/// How often releases are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// How long a new pilot waits for the proxies of the one before it.
const RETURN: Duration = Duration::from_secs(5);

/// How long documents may take to come when a pilot begins; what has not come then was taken away while no pilot was there.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How long a release whose document is gone holds its traffic: files are written anew, and folders are swapped.
const VANISHED: Duration = Duration::from_secs(60);

/// Ended releases without a document that are remembered.
const ENDED: usize = 1000;

/// Events that are kept for those who ask.
const EVENTS: usize = 4096;

/// A release with its status.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) spec: Release,
    pub(crate) status: Status,
    /// What was known of it in the last look.
    known: Evidence,
    /// Since when its document is gone.
    vanished: Option<Instant>,
    /// Since when a newer version of its document is not taken, because it is broken or half-written; in milliseconds since 1970.
    pub(crate) outdated: Option<u64>,
    /// What is wrong with its document.
    pub(crate) fault: Option<String>,
}

impl Entry {
    /// Its document is there.
    fn appear(&mut self) {
        self.vanished = None;
        appear(&mut self.status);
    }

    /// Waits for another release, or gives up, as its document says.
    fn wait(&mut self, wait: Wait) -> Vec<Event> {
        match wait {
            Wait::For(why) => {
                self.status.reason = why;
                Vec::new()
            }
            Wait::Refused(why) => {
                // It never began: until its document changes it is over.
                self.status.phase = Phase::RolledBack;
                self.status.reason.clone_from(&why);
                vec![self.status.note(now(), EventKind::Done, why)]
            }
        }
    }
}

/// Something that happened to a release, numbered.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    pub(crate) number: u64,
    pub(crate) release: ObjectName,
    pub(crate) event: Event,
}

/// All releases.
pub(crate) struct Releases {
    began: Instant,
    inner: Mutex<Inner>,
    spoken: Notify,
}

struct Inner {
    entries: BTreeMap<ObjectName, Entry>,
    /// What was known of the status of releases whose documents have not been read yet.
    remembered: BTreeMap<ObjectName, Status>,
    /// How releases ended whose documents are gone.
    ended: BTreeMap<ObjectName, Status>,
    /// What is wrong with the documents of releases.
    faults: BTreeMap<ObjectName, String>,
    /// Whether all documents could be read the last time.
    whole: bool,
    /// What was reported of releases.
    tally: Tally,
    /// How long nobody looked before this pilot did.
    away: Duration,
    /// The last answers to the queries of releases.
    readings: BTreeMap<ObjectName, BTreeMap<String, Reading>>,
    events: VecDeque<Happened>,
    number: u64,
    state: Option<StateFile>,
    audit: Audit,
    /// How releases ended, how often, and why they went back last.
    ends: Ends,
    /// What people said, for those who are told.
    pending: Vec<PendingEffects>,
    /// How long a release whose document is gone holds its traffic.
    holds: Duration,
    /// Whether the last attempt to keep the state failed.
    unsaved: bool,
    jumps: Jumps,
}

/// What is to be done outside after a look.
pub(crate) struct PendingEffects {
    pub(crate) release: Release,
    pub(crate) actions: Vec<Action>,
    pub(crate) events: Vec<Event>,
}

impl Releases {
    /// Releases whose status is kept in that file, which is this pilot's alone from here on. Nothing is written yet.
    pub(crate) fn open(state: Option<(&Path, StateLock)>) -> anyhow::Result<Self> {
        let path = state.as_ref().map(|(path, _)| *path);
        let (file, remembered, away) = match state {
            Some((path, lock)) => {
                let (file, remembered, away) = StateFile::open(path, lock)?;
                (Some(file), remembered, away)
            }
            None => (None, BTreeMap::new(), Duration::ZERO),
        };
        let audit = Audit::open(path.map(|path| path.with_extension("audit.jsonl")))?;
        if let Some(path) = path.filter(|path| !path.exists() && audit.count() > 0) {
            tracing::warn!(
                "{} is missing, but its audit log is there: every release begins anew; to go on, end this pilot and put the file back",
                path.display()
            );
        }
        let inner = Inner {
            entries: BTreeMap::new(),
            remembered,
            ended: BTreeMap::new(),
            faults: BTreeMap::new(),
            whole: false,
            tally: Tally::default(),
            away,
            readings: BTreeMap::new(),
            events: VecDeque::new(),
            // Numbers go on where those of an earlier pilot ended.
            number: now(),
            state: file,
            audit,
            ends: Ends::default(),
            pending: Vec::new(),
            holds: VANISHED,
            unsaved: false,
            jumps: Jumps::default(),
        };
        Ok(Self { began: Instant::now(), inner: Mutex::new(inner), spoken: Notify::new() })
    }

    /// Waits until somebody says something.
    pub(crate) async fn spoken(&self) {
        self.spoken.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the documents in: new releases, changed ones, those that are gone; `whole` when all of them could be read.
    pub(crate) fn sync(&self, mesh: &MeshSnapshot, whole: bool) {
        let mut inner = self.lock();
        let documents: BTreeMap<ObjectName, Release> = mesh.releases().map(|r| (r.name.clone(), r.clone())).collect();
        let gone: Vec<ObjectName> = inner.entries.keys().filter(|n| !documents.contains_key(n)).cloned().collect();
        for name in gone {
            inner.vanish(&name);
        }
        for (name, spec) in documents {
            let print = fingerprint(&spec);
            if let Some(entry) = inner.entries.get_mut(&name) {
                entry.appear();
            }
            match inner.entries.get_mut(&name) {
                Some(entry) if entry.status.spec == print => {}
                Some(entry) => {
                    let before = std::mem::replace(&mut entry.spec, spec);
                    let events = changed(Some(&before), &entry.spec, &mut entry.status, now());
                    entry.status.spec = print;
                    let begins_anew = entry.status.phase == Phase::Pending;
                    let value = serde_json::json!({"phase": entry.status.phase, "weights": entry.status.weights});
                    if begins_anew {
                        inner.tally.forget(&name);
                    }
                    inner.audit.write(
                        Stamp { at: now(), who: "the documents" },
                        &name,
                        "its document has changed",
                        &value,
                    );
                    inner.happened(&name, &events);
                }
                None => {
                    let kept = inner.remembered.remove(&name).or_else(|| inner.ended.remove(&name));
                    let mut status = kept.unwrap_or_else(|| Status { spec: print.clone(), ..Status::of(&spec) });
                    appear(&mut status);
                    // It may come later than the pilot did.
                    status.sleep(inner.away + self.began.elapsed(), now());
                    if is_other(&status, &spec, &print) {
                        let events = changed(None, &spec, &mut status, now());
                        let value = serde_json::json!({"phase": status.phase, "weights": status.weights});
                        inner.audit.write(
                            Stamp { at: now(), who: "the documents" },
                            &name,
                            "its document has changed",
                            &value,
                        );
                        inner.happened(&name, &events);
                    }
                    status.spec = print;
                    inner.entries.insert(
                        name,
                        Entry { spec, status, known: Evidence::default(), vanished: None, outdated: None, fault: None },
                    );
                }
            }
        }
        // What people say before the next look is answered by what is ready now.
        for entry in inner.entries.values_mut() {
            entry.known.stable_ready = ready(mesh, &entry.spec, &entry.spec.stable);
            entry.known.candidate_ready = ready(mesh, &entry.spec, &entry.spec.candidate);
            entry.known.calendar = calendar();
        }
        inner.whole = whole;
        let _ = inner.save();
    }

    /// What releases make of the routes to their hosts; of several of one host the one that moved it last counts.
    pub(crate) fn overlays(&self) -> BTreeMap<Hostname, Overlay> {
        let inner = self.lock();
        let mut found: BTreeMap<Hostname, (u64, Overlay)> = BTreeMap::new();
        for entry in inner.entries.values() {
            let Some(overlay) = overlay(&entry.spec, &entry.status) else { continue };
            let moved = entry.status.moved;
            if found.get(&entry.spec.host).is_none_or(|(before, _)| *before <= moved) {
                found.insert(entry.spec.host.clone(), (moved, overlay));
            }
        }
        found.into_iter().map(|(host, (_, overlay))| (host, overlay)).collect()
    }

    /// Looks at every release.
    pub(crate) fn look(&self, mesh: &MeshSnapshot, fleet: &Fleet, loads: &Loads) -> Vec<PendingEffects> {
        let mut inner = self.lock();
        if inner.whole && self.began.elapsed() > ARRIVAL {
            inner.forget();
        }
        inner.take_in(&loads.take(), mesh, fleet);
        inner.bury();
        if let Some(text) = inner.jumps.look(now(), calendar()) {
            tracing::warn!("{text}");
            let nobody = ObjectName { namespace: String::new(), name: "clock".to_owned() };
            inner.audit.write(Stamp { at: now(), who: "serin" }, &nobody, &text, &serde_json::Value::Null);
        }
        let names: Vec<ObjectName> = inner.entries.keys().cloned().collect();
        let mut due = Vec::new();
        for name in names {
            inner.make_way(&name, mesh, fleet);
            let wait = waits_for(&inner.entries, &name);
            inner.inherit(&name);
            let Some(mut entry) = inner.entries.get(&name).cloned() else { continue };
            // One that went back is looked at until every proxy has confirmed it.
            if entry.status.phase.is_final() && entry.status.laggards.is_empty() {
                continue;
            }
            let before = entry.status.clone();
            entry.known = inner.evidence(&entry, mesh, fleet, self.began.elapsed() < RETURN);
            let (events, actions) = match wait {
                Some(wait) => (entry.wait(wait), Vec::new()),
                None => advance(&entry.spec, &mut entry.status, &entry.known, now()),
            };
            inner.entries.entry(name.clone()).and_modify(|e| e.known.clone_from(&entry.known));
            if entry.status != before || !events.is_empty() {
                inner.audit_events(&name, &before, &entry.status, &events);
                inner.entries.insert(name.clone(), entry.clone());
                inner.happened(&name, &events);
            }
            if !events.is_empty() || !actions.is_empty() {
                due.push(PendingEffects { release: entry.spec, actions, events });
            }
        }
        inner.trains(mesh);
        let _ = inner.save();
        due.append(&mut inner.pending);
        due
    }

    /// Does what somebody says.
    pub(crate) fn command(&self, name: &ObjectName, said: Said) -> Result<Status, Refusal> {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(name) {
            entry.known.calendar = calendar();
        }
        let status = inner.say(name, said)?;
        let saved = inner.save();
        self.spoken.notify_one();
        // It is done, but a pilot that begins anew would not know.
        saved.map_err(Refusal::NotKept)?;
        inner.audit.is_kept().map_err(|error| Refusal::NotKept(error.to_string()))?;
        Ok(status)
    }

    /// Takes the answer to a query.
    pub(crate) fn answered(&self, name: &ObjectName, query: &str, reading: Reading) {
        self.lock().readings.entry(name.clone()).or_default().insert(query.to_owned(), reading);
        self.spoken.notify_one();
    }

    /// Looks at one or all of them.
    pub(crate) fn each(&self, name: Option<&ObjectName>) -> Vec<Entry> {
        let inner = self.lock();
        inner.entries.iter().filter(|(n, _)| name.is_none_or(|wanted| *n == wanted)).map(|(_, e)| e.clone()).collect()
    }

    /// What happened after that number.
    pub(crate) fn events(&self, after: u64) -> Vec<Happened> {
        self.lock().events.iter().filter(|h| h.number > after).cloned().collect()
    }

    /// How releases ended.
    pub(crate) fn ends(&self) -> Ends {
        self.lock().ends.clone()
    }

    /// Whether the audit log is whole, and its last lines.
    pub(crate) fn audited(&self, last: usize) -> Result<Whole, audit::Error> {
        let (log, lost) = {
            let inner = self.lock();
            (inner.audit.log(), inner.audit.lost())
        };
        let whole = log.verify(last)?;
        Ok(Whole { missing: whole.missing + lost, ..whole })
    }
}

impl Inner {
    fn happened(&mut self, name: &ObjectName, events: &[Event]) {
        for event in events {
            let word = match event.outcome {
                Some(Outcome::Promoted) => Some("promoted"),
                Some(Outcome::RolledBack) => Some("rolledBack"),
                Some(Outcome::Held) => Some("held"),
                None => None,
            };
            if let Some(word) = word {
                *self.ends.counts.entry(word).or_default() += 1;
            }
            if event.outcome == Some(Outcome::RolledBack) {
                self.ends.rollbacks.insert(name.clone(), event.reason.clone());
            }
            self.number += 1;
            self.events.push_back(Happened { number: self.number, release: name.clone(), event: event.clone() });
        }
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
    }

    fn audit_events(&mut self, name: &ObjectName, before: &Status, after: &Status, events: &[Event]) {
        for event in events.iter().filter(|e| e.event != EventKind::Evidence) {
            let value = serde_json::json!({
                "event": event.event,
                "phase": event.phase,
                "step": event.step,
                "before": {"phase": before.phase, "step": before.step, "weights": before.weights},
                "weights": after.weights,
                "evidence": after.judgement.steps.last(),
                "lnEvidence": after.judgement.ln_evidence,
            });
            let words = || format!("{} now", event.phase.words());
            let text = Some(event.reason.clone()).filter(|text| !text.is_empty()).unwrap_or_else(words);
            self.audit.write(Stamp { at: event.at, who: "serin" }, name, &text, &value);
        }
    }

    /// Keeps the state of all releases; the error says why it is not on the disk.
    fn save(&mut self) -> Result<(), String> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let all =
            self.entries.iter().map(|(name, entry)| (name, &entry.status)).chain(&self.remembered).chain(&self.ended);
        let saved = state.save(all).map_err(|error| format!("the state of releases cannot be written: {error:#}"));
        match &saved {
            Err(why) if !std::mem::replace(&mut self.unsaved, true) => tracing::error!("{why}"),
            Ok(()) => self.unsaved = false,
            Err(_) => {}
        }
        saved
    }

    /// Takes in what proxies reported.
    fn take_in(&mut self, news: &LoadDelta, mesh: &MeshSnapshot, fleet: &Fleet) {
        self.tally.learn(self.entries.values().map(|e| &e.spec), mesh);
        if self.entries.values().all(|entry| entry.status.phase.is_final()) {
            return;
        }
        let callers: HashMap<String, Caller> = fleet
            .each(|_, client| {
                let name = Caller {
                    namespace: client.identity.name.namespace.clone(),
                    labels: client.identity.labels.clone(),
                };
                (client.node_id.clone(), name)
            })
            .into_iter()
            .collect();
        let callers = Callers { mesh, by_node: callers };
        let under_way: Vec<&Release> =
            self.entries.values().filter(|e| !e.status.phase.is_final()).map(|e| &e.spec).collect();
        for spec in &under_way {
            self.tally.gather(spec, news, mesh);
            self.tally.trace(spec, &under_way, news, &callers);
        }
    }

    /// What is known of a release; a pilot that is new waits for the proxies of the one before it.
    fn evidence(&self, entry: &Entry, mesh: &MeshSnapshot, fleet: &Fleet, is_new: bool) -> Evidence {
        let mut evidence = self.tally.evidence(&entry.spec, mesh, fleet);
        evidence.contested = is_contested(&self.entries, &entry.spec.name);
        evidence.calendar = calendar();
        evidence.readings = self.readings.get(&entry.spec.name).cloned().unwrap_or_default();
        let known = entry.status.proxies.of;
        if is_new && evidence.applied.of < known {
            let lacking = known - evidence.applied.of;
            evidence.applied.of = known;
            evidence.applied.laggards.push(format!("{lacking} proxies that have not come back"));
        }
        evidence
    }

    /// Ends what a new release replaces, once it could begin itself.
    fn make_way(&mut self, name: &ObjectName, mesh: &MeshSnapshot, fleet: &Fleet) {
        let Some(other) = replaces(&self.entries, name) else { return };
        let Some(entry) = self.entries.get(name) else { return };
        if may_begin(&entry.spec, &entry.status, &self.evidence(entry, mesh, fleet, false)) {
            let says = Command::Abort(format!("release {name} takes its place"));
            let _ = self.say(&other, Said { force: true, ..Said::new("serin", says) });
        }
    }

    /// When one of a train goes back, all do that have somebody to go back to; when all are there, it has arrived.
    fn trains(&mut self, mesh: &MeshSnapshot) {
        for (name, because) in joint_rollback(&self.entries) {
            if self.entries.get(&name).is_some_and(|e| ready(mesh, &e.spec, &e.spec.stable) > 0) {
                let says = Command::Undo(format!("release {because} of the same train went back"));
                let _ = self.say(&name, Said::new("serin", says));
            }
        }
        for name in arrived(&self.entries) {
            self.entries.entry(name).and_modify(|e| e.status.arrived = true);
        }
    }
}

#[cfg(test)]
#[path = "releases/tests.rs"]
mod tests;
