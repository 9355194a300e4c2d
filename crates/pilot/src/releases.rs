//! Releases at work: documents in, evidence in, traffic out. `serin-delivery` decides; here it is given what it asks for.
//!
//! A look every [`LOOK`]: what proxies reported and confirmed since the last one. What is decided is written to the state file
//! before it is done, so that a pilot that is killed goes on where it was.

mod api;
mod audit;
mod outside;
mod page;
mod state;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serin_delivery::{
    Action, Arm, Command, Event, EventKind, Evidence, Outcome, Phase, Reading, Status, Target, advance, changed,
    command, may_begin, overlay,
};
use serin_model::{Hostname, Labels, MeshSnapshot, ObjectName, Overlay, Release, Supersede, selects};
use tokio::sync::Notify;

use crate::fleet::Fleet;
use crate::loads::{Loads, News};
use audit::{Audit, Whole};
use state::StateFile;

pub(crate) use api::{Tokens, routes};
pub(crate) use outside::Outside;

/// How often releases are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// How long instances that are gone are known still: reports about them may be under way.
const GONE: Duration = Duration::from_secs(60);

/// How long a new pilot waits for the proxies of the one before it.
const RETURN: Duration = Duration::from_secs(5);

/// Events that are kept for those who ask.
const EVENTS: usize = 4096;

/// A release with its status.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) spec: Release,
    pub(crate) status: Status,
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
    /// Labels of instances, those that are gone too: their requests count still.
    known: HashMap<SocketAddr, (Labels, Instant)>,
    /// What was reported of releases since this pilot began; it only grows.
    totals: BTreeMap<ObjectName, Totals>,
    /// The last answers to the queries of releases.
    readings: BTreeMap<ObjectName, BTreeMap<String, Reading>>,
    events: VecDeque<Happened>,
    number: u64,
    state: Option<StateFile>,
    audit: Audit,
    /// How releases ended, how often, and why they went back last.
    ends: Ends,
    /// What people said, for those who are told.
    pending: Vec<Due>,
}

/// How releases ended since this pilot began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) rollbacks: BTreeMap<ObjectName, String>,
}

/// What was reported of a release.
#[derive(Debug, Clone, Default)]
struct Totals {
    stable: Arm,
    candidate: Arm,
    instances: BTreeMap<String, Arm>,
}

/// What is to be done outside after a look.
pub(crate) struct Due {
    pub(crate) release: Release,
    pub(crate) actions: Vec<Action>,
    pub(crate) events: Vec<Event>,
}

impl Releases {
    /// Releases whose status is kept in that file.
    pub(crate) fn open(state: Option<&Path>) -> anyhow::Result<Self> {
        let (file, remembered) = match state {
            Some(path) => {
                let (file, remembered) = StateFile::open(path)?;
                (Some(file), remembered)
            }
            None => (None, BTreeMap::new()),
        };
        let audit = Audit::open(state.map(|path| path.with_extension("audit.jsonl")))?;
        let inner = Inner {
            entries: BTreeMap::new(),
            remembered,
            known: HashMap::new(),
            totals: BTreeMap::new(),
            readings: BTreeMap::new(),
            events: VecDeque::new(),
            number: 0,
            state: file,
            audit,
            ends: Ends::default(),
            pending: Vec::new(),
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

    /// Takes the documents in: new releases, changed ones, those that are gone.
    pub(crate) fn sync(&self, mesh: &MeshSnapshot) {
        let mut inner = self.lock();
        let documents: BTreeMap<ObjectName, Release> = mesh.releases().map(|r| (r.name.clone(), r.clone())).collect();
        let gone: Vec<ObjectName> = inner.entries.keys().filter(|n| !documents.contains_key(n)).cloned().collect();
        for name in gone {
            inner.entries.remove(&name);
            inner.readings.remove(&name);
            inner.totals.remove(&name);
            inner.audit.write((now(), "the documents"), &name, "its document is gone", &serde_json::Value::Null);
        }
        for (name, spec) in documents {
            let print = fingerprint(&spec);
            match inner.entries.get_mut(&name) {
                Some(entry) if entry.status.spec == print => {}
                Some(entry) => {
                    let before = std::mem::replace(&mut entry.spec, spec);
                    let events = changed(Some(&before), &entry.spec, &mut entry.status, now());
                    entry.status.spec = print;
                    let begins_anew = entry.status.phase == Phase::Pending;
                    let value = serde_json::json!({"phase": entry.status.phase, "weights": entry.status.weights});
                    if begins_anew {
                        inner.totals.remove(&name);
                    }
                    inner.audit.write((now(), "the documents"), &name, "its document has changed", &value);
                    inner.happened(&name, &events);
                }
                None => {
                    let kept = inner.remembered.remove(&name);
                    let mut status = kept.unwrap_or_else(|| Status { spec: print.clone(), ..Status::of(&spec) });
                    if status.spec != print {
                        let events = changed(None, &spec, &mut status, now());
                        inner.happened(&name, &events);
                    }
                    status.spec = print;
                    inner.entries.insert(name, Entry { spec, status });
                }
            }
        }
        inner.save();
    }

    /// What releases make of the routes to their hosts; of several of one host the one that began last counts.
    pub(crate) fn overlays(&self) -> BTreeMap<Hostname, Overlay> {
        let inner = self.lock();
        let mut found: BTreeMap<Hostname, (u64, Overlay)> = BTreeMap::new();
        for entry in inner.entries.values() {
            let Some(overlay) = overlay(&entry.spec, &entry.status) else { continue };
            let started = entry.status.started;
            if found.get(&entry.spec.host).is_none_or(|(before, _)| *before <= started) {
                found.insert(entry.spec.host.clone(), (started, overlay));
            }
        }
        found.into_iter().map(|(host, (_, overlay))| (host, overlay)).collect()
    }

    /// Looks at every release.
    pub(crate) fn look(&self, mesh: &MeshSnapshot, fleet: &Fleet, loads: &Loads) -> Vec<Due> {
        let mut inner = self.lock();
        inner.learn(mesh);
        inner.gather(&loads.take(), mesh);
        let names: Vec<ObjectName> = inner.entries.keys().cloned().collect();
        let mut due = Vec::new();
        for name in names {
            inner.make_way(&name, mesh, fleet);
            let waits = inner.waits_for(&name);
            let Some(entry) = inner.entries.get(&name) else { continue };
            if entry.status.phase.is_final() {
                continue;
            }
            let mut evidence = inner.evidence(&entry.spec, mesh, fleet);
            let (_, known) = entry.status.proxies;
            if self.began.elapsed() < RETURN && evidence.applied.of < known {
                let lacking = known - evidence.applied.of;
                evidence.applied.of = known;
                evidence.applied.laggards.push(format!("{lacking} proxies that have not come back"));
            }
            let mut entry = entry.clone();
            if let Some(why) = waits {
                entry.status.reason.clone_from(&why);
                if entry.spec.supersede == Supersede::Refuse && inner.running(&name).is_some() {
                    // It never began: until its document changes it is over.
                    entry.status.phase = Phase::RolledBack;
                    let events = vec![entry.status.note(now(), EventKind::Done, why)];
                    inner.happened(&name, &events);
                    due.push(Due { release: entry.spec.clone(), actions: Vec::new(), events });
                }
                inner.entries.insert(name, entry);
                continue;
            }
            let before = entry.status.clone();
            let (events, actions) = advance(&entry.spec, &mut entry.status, &evidence, now());
            if entry.status != before || !events.is_empty() {
                inner.audit_events(&name, &before, &entry.status, &events);
                inner.entries.insert(name.clone(), entry.clone());
                inner.happened(&name, &events);
            }
            if !events.is_empty() || !actions.is_empty() {
                due.push(Due { release: entry.spec, actions, events });
            }
        }
        inner.joint_rollback();
        inner.save();
        due.append(&mut inner.pending);
        due
    }

    /// Does what somebody says.
    pub(crate) fn command(&self, name: &ObjectName, who: &str, says: Command) -> Result<Status, String> {
        let mut inner = self.lock();
        let status = inner.say(name, who, says)?;
        inner.save();
        self.spoken.notify_one();
        Ok(status)
    }

    /// Takes the answer to a query.
    pub(crate) fn answered(&self, name: &ObjectName, query: &str, value: Result<f64, String>) {
        let reading = Reading { at: now(), value };
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
    pub(crate) fn audited(&self, last: usize) -> Result<Whole, String> {
        let log = self.lock().audit.log();
        log.verify(last)
    }
}

impl Inner {
    /// Does what is said: in the status, in the audit log, for those who ask and for those who are told.
    fn say(&mut self, name: &ObjectName, who: &str, says: Command) -> Result<Status, String> {
        let entry = self.entries.get_mut(name).ok_or_else(|| format!("there is no release {name}"))?;
        let (before, text) = (entry.status.phase, format!("{says:?}"));
        let events = command(&entry.spec, &mut entry.status, (who, says), now())?;
        let (status, release) = (entry.status.clone(), entry.spec.clone());
        let value = serde_json::json!({"before": before, "after": status.phase, "target": status.target});
        self.audit.write((now(), who), name, &text, &value);
        self.happened(name, &events);
        self.pending.push(Due { release, actions: Vec::new(), events });
        Ok(status)
    }

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
            self.audit.write((event.at, "serin"), name, &event.reason, &value);
        }
    }

    fn save(&mut self) {
        let Some(state) = &mut self.state else { return };
        let all = self.entries.iter().map(|(name, entry)| (name, &entry.status)).chain(&self.remembered);
        if let Err(error) = state.save(all) {
            tracing::error!("cannot keep the state of releases: {error:#}");
        }
    }

    /// Remembers which instance has which labels.
    fn learn(&mut self, mesh: &MeshSnapshot) {
        let now = Instant::now();
        self.known.retain(|_, (_, seen)| now - *seen < GONE);
        for entry in self.entries.values() {
            let Some(service) = mesh.service(&entry.spec.host) else { continue };
            for endpoint in mesh.instances(&entry.spec.host) {
                for port in service.ports.iter().filter_map(|p| endpoint.port(p)) {
                    if let Ok(ip) = endpoint.address.parse() {
                        self.known.insert(SocketAddr::new(ip, port), (endpoint.labels.clone(), now));
                    }
                }
            }
        }
    }

    /// Another release of the same host that is under way.
    fn running(&self, name: &ObjectName) -> Option<&ObjectName> {
        let host = &self.entries.get(name)?.spec.host;
        let runs = |s: &Status| s.phase != Phase::Pending && !s.phase.is_final();
        let mut others = self.entries.iter().filter(|(n, e)| *n != name && e.spec.host == *host && runs(&e.status));
        others.next().map(|(n, _)| n)
    }

    /// The others of a release's train.
    fn train(&self, name: &ObjectName) -> impl Iterator<Item = (&ObjectName, &Entry)> {
        let train = self.entries.get(name).and_then(|e| e.spec.train.as_ref());
        let same = move |other: &ObjectName, e: &Entry| {
            let theirs = e.spec.train.as_ref().map(|(train, _)| train);
            train.is_some() && theirs == train.map(|(train, _)| train) && other.namespace == name.namespace
        };
        self.entries.iter().filter(move |(other, e)| *other != name && same(other, e))
    }

    /// When one of a train goes back, those that have traffic go back too.
    fn joint_rollback(&mut self) {
        let went_back = |s: &Status| matches!(s.phase, Phase::RollingBack | Phase::RolledBack);
        let back: Vec<ObjectName> =
            self.entries.iter().filter(|(_, e)| went_back(&e.status)).map(|(n, _)| n.clone()).collect();
        for name in back {
            let with_traffic = |e: &Entry| e.status.phase != Phase::Pending && !went_back(&e.status);
            let others: Vec<ObjectName> =
                self.train(&name).filter(|(_, e)| with_traffic(e)).map(|(n, _)| n.clone()).collect();
            for other in others {
                let says = Command::Undo(format!("release {name} of the same train went back"));
                let _ = self.say(&other, "serin", says);
            }
        }
    }

    /// Why a release that has not begun cannot, because of another.
    fn waits_for(&self, name: &ObjectName) -> Option<String> {
        let entry = self.entries.get(name).filter(|e| e.status.phase == Phase::Pending)?;
        if let Some(why) = self.train_before(name, entry) {
            return Some(why);
        }
        let other = self.running(name)?;
        Some(match entry.spec.supersede {
            Supersede::Refuse => format!("refused: release {other} of the same host is under way"),
            Supersede::Queue | Supersede::Replace => format!("it waits for release {other} of the same host"),
        })
    }

    /// Why a release must wait for others of its train.
    fn train_before(&self, name: &ObjectName, entry: &Entry) -> Option<String> {
        let place = entry.spec.train.as_ref().map_or(0, |(_, place)| *place);
        self.train(name).find_map(|(other, e)| {
            let before = e.spec.train.as_ref().is_some_and(|(_, theirs)| *theirs < place);
            match e.status.phase {
                Phase::RollingBack | Phase::RolledBack => Some(format!("release {other} of the same train went back")),
                Phase::Guarding | Phase::Promoted => None,
                _ => before.then(|| format!("it waits for release {other}, which is before it in the train")),
            }
        })
    }

    /// Ends what a new release replaces, once it could begin itself.
    fn make_way(&mut self, name: &ObjectName, mesh: &MeshSnapshot, fleet: &Fleet) {
        let replaces = |e: &&Entry| e.status.phase == Phase::Pending && e.spec.supersede == Supersede::Replace;
        let Some(entry) = self.entries.get(name).filter(replaces) else { return };
        let Some(other) = self.running(name).cloned() else { return };
        let ready = may_begin(&entry.spec, &entry.status, &self.evidence(&entry.spec, mesh, fleet), now());
        let goes = self.entries.get(&other).is_some_and(|e| e.status.target == Target::Stable);
        if ready && !goes && self.train_before(name, entry).is_none() {
            let _ = self.say(&other, "serin", Command::Abort(format!("release {name} takes its place")));
        }
    }

    /// Adds what was reported to the releases that it is about.
    fn gather(&mut self, news: &News, mesh: &MeshSnapshot) {
        for entry in self.entries.values().filter(|e| !e.status.phase.is_final()) {
            let spec = &entry.spec;
            let totals = self.totals.entry(spec.name.clone()).or_default();
            let compared = spec.baseline.as_ref().unwrap_or(&spec.stable);
            let host = spec.host.as_str();
            for (way, arm) in &news.requests {
                let Some((subset, _)) = outbound(&way.cluster).filter(|(_, at)| *at == host) else { continue };
                // gRPC clients tell no endpoints apart: the cluster says which version it was.
                let labels = match way.endpoint {
                    Some(address) => self.known.get(&address).map(|(labels, _)| labels.clone()),
                    None => labels_of(mesh, spec, subset),
                };
                let Some(labels) = &labels else { continue };
                if selects(&spec.candidate, labels) {
                    if let Some(address) = way.endpoint {
                        totals.instances.entry(address.to_string()).or_default().add(arm);
                    }
                    totals.candidate.add(arm);
                } else if selects(compared, labels) {
                    totals.stable.add(arm);
                }
            }
            for (cluster, arm) in &news.times {
                let Some((subset, _)) = outbound(cluster).filter(|(_, at)| *at == host) else { continue };
                let Some(labels) = labels_of(mesh, spec, subset) else { continue };
                if labels == spec.candidate {
                    totals.candidate.add(arm);
                } else if labels == *compared {
                    totals.stable.add(arm);
                }
            }
        }
    }

    fn evidence(&self, spec: &Release, mesh: &MeshSnapshot, fleet: &Fleet) -> Evidence {
        let totals = self.totals.get(&spec.name).cloned().unwrap_or_default();
        let ready = |labels: &Labels| {
            mesh.instances(&spec.host).iter().filter(|e| e.ready && selects(labels, &e.labels)).count()
        };
        Evidence {
            stable: totals.stable,
            candidate: totals.candidate,
            instances: totals.instances,
            applied: fleet.applied(),
            stable_ready: ready(&spec.stable),
            candidate_ready: ready(&spec.candidate),
            baseline_ready: spec.baseline.as_ref().map_or(0, ready),
            readings: self.readings.get(&spec.name).cloned().unwrap_or_default(),
        }
    }
}

/// What was asked for, in few letters.
fn fingerprint(spec: &Release) -> String {
    format!("{:016x}", xxhash_rust::xxh64::xxh64(format!("{spec:?}").as_bytes(), 0))
}

/// Subset and host of an outbound cluster, from its name.
fn outbound(cluster: &str) -> Option<(&str, &str)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|').skip(1);
    Some((parts.next()?, parts.next()?))
}

/// The labels of a subset: of a rule, or one that the release made.
fn labels_of(mesh: &MeshSnapshot, spec: &Release, subset: &str) -> Option<Labels> {
    match subset {
        "release-stable" => Some(spec.stable.clone()),
        "release-candidate" => Some(spec.candidate.clone()),
        "release-baseline" => spec.baseline.clone(),
        name => {
            let rules = mesh.destination_rules().filter(|r| r.host.covers(&spec.host));
            rules.flat_map(|r| &r.subsets).find(|s| s.name == name).map(|s| s.labels.clone())
        }
    }
}

#[cfg(test)]
#[path = "releases/tests.rs"]
mod tests;

/// The calendar, in milliseconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
