//! Which release goes when: one of a host at a time, and trains.

use std::collections::BTreeMap;

use serin_delivery::{Phase, Status};
use serin_model::{Labels, ObjectName, Supersede};

use super::Entry;

/// All releases.
type Entries = BTreeMap<ObjectName, Entry>;

/// Why a release does not begin, because of another.
pub(super) enum Wait {
    /// It will not, as its document says.
    Refused(String),
    /// Not yet.
    For(String),
}

/// Another release of the same host that is under way.
pub(super) fn running<'a>(entries: &'a Entries, name: &ObjectName) -> Option<&'a ObjectName> {
    let runs = |s: &Status| s.phase != Phase::Pending && !s.phase.is_final();
    others(entries, name).find(|(_, e)| runs(&e.status)).map(|(n, _)| n)
}

fn others<'a>(entries: &'a Entries, name: &ObjectName) -> impl Iterator<Item = (&'a ObjectName, &'a Entry)> {
    let host = entries.get(name).map(|e| &e.spec.host);
    entries.iter().filter(move |(n, e)| *n != name && Some(&e.spec.host) == host)
}

/// Whether there are other releases of the same host.
pub(super) fn is_contested(entries: &Entries, name: &ObjectName) -> bool {
    others(entries, name).next().is_some()
}

/// The release of the same host that has the traffic, when that is another.
pub(super) fn in_force<'a>(entries: &'a Entries, name: &ObjectName) -> Option<(&'a ObjectName, &'a Entry)> {
    let own = entries.get(name).filter(|e| e.status.holds().is_some()).map_or(0, |e| e.status.moved);
    let others = others(entries, name).filter(|(_, e)| e.status.holds().is_some() && e.status.moved > own);
    others.max_by_key(|(_, e)| e.status.moved)
}

/// Why a release that has not begun cannot, because of another.
pub(super) fn waits_for(entries: &Entries, name: &ObjectName) -> Option<Wait> {
    let entry = entries.get(name).filter(|e| e.status.phase == Phase::Pending)?;
    let other = running(entries, name);
    match (other, entry.spec.supersede) {
        (Some(other), Supersede::Refuse) => {
            return Some(Wait::Refused(format!("refused: release {other} of the same host is under way")));
        }
        (Some(other), Supersede::Queue | Supersede::Replace) => {
            return Some(Wait::For(format!("it waits for release {other} of the same host")));
        }
        (None, _) => {}
    }
    if let Some(why) = train_before(entries, name, entry) {
        return Some(Wait::For(why));
    }
    let (other, in_force) = in_force(entries, name)?;
    let holder = in_force.status.holds().filter(|holder| **holder != entry.spec.stable)?;
    Some(Wait::For(format!("{} has the traffic, by release {other}: name it as stable", words(holder))))
}

fn words(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The release that a new one ends, once nothing else is in the new one's way.
pub(super) fn replaces(entries: &Entries, name: &ObjectName) -> Option<ObjectName> {
    let wants = |e: &&Entry| e.status.phase == Phase::Pending && e.spec.supersede == Supersede::Replace;
    let entry = entries.get(name).filter(wants)?;
    let other = running(entries, name)?;
    // It leaves the traffic with its stable version, from which the new one must begin.
    let ends = |e: &Entry| e.status.phase != Phase::RollingBack && e.spec.stable == entry.spec.stable;
    (entries.get(other).is_some_and(ends) && train_before(entries, name, entry).is_none()).then(|| other.clone())
}

/// The others of a release's train.
fn train<'a>(entries: &'a Entries, name: &ObjectName) -> impl Iterator<Item = (&'a ObjectName, &'a Entry)> {
    let train = entries.get(name).and_then(|e| e.spec.train.as_ref()).map(|(train, _)| train);
    let same = move |e: &Entry| train.is_some() && e.spec.train.as_ref().map(|(t, _)| t) == train;
    entries.iter().filter(move |(n, e)| *n != name && n.namespace == name.namespace && same(e))
}

fn went_back(status: &Status) -> bool {
    matches!(status.phase, Phase::RollingBack | Phase::RolledBack)
}

/// Why a release must wait for others of its train.
fn train_before(entries: &Entries, name: &ObjectName, entry: &Entry) -> Option<String> {
    let place = entry.spec.train.as_ref().map_or(0, |(_, place)| *place);
    train(entries, name).find_map(|(other, e)| {
        let before = e.spec.train.as_ref().is_some_and(|(_, theirs)| *theirs < place);
        match e.status.phase {
            _ if went_back(&e.status) => Some(format!("release {other} of the same train went back")),
            Phase::Guarding | Phase::Promoted => None,
            _ => before.then(|| format!("it waits for release {other}, which is before it in the train")),
        }
    })
}

/// Releases that go back because one of their train did, and which one: those that have begun and have not arrived.
pub(super) fn joint_rollback(entries: &Entries) -> Vec<(ObjectName, ObjectName)> {
    let takes_part = |e: &Entry| e.status.began && !e.status.arrived;
    let back = entries.iter().filter(|(_, e)| takes_part(e) && went_back(&e.status));
    back.flat_map(|(name, _)| {
        let others = train(entries, name).filter(|(_, e)| takes_part(e) && !went_back(&e.status));
        others.map(|(other, _)| (other.clone(), name.clone()))
    })
    .collect()
}

/// Releases whose whole train has all the traffic: it has arrived, and what comes later is another journey.
pub(super) fn arrived(entries: &Entries) -> Vec<ObjectName> {
    let there = |e: &Entry| e.status.phase == Phase::Promoted;
    let all = |name: &ObjectName| train(entries, name).all(|(_, e)| there(e));
    let fresh = entries.iter().filter(|(_, e)| e.spec.train.is_some() && there(e) && !e.status.arrived);
    fresh.filter(|(name, _)| all(name)).map(|(name, _)| name.clone()).collect()
}
