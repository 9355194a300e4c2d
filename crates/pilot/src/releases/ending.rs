//! Releases whose documents are gone, and what they leave to those that come after.

use std::time::Instant;

use serin_delivery::{DOCUMENT_GONE, EventKind, Status};
use serin_model::ObjectName;

use super::audit::Stamp;
use super::document::appear;
use super::order::in_force;
use super::{ENDED, Entry, Inner, now};

impl Inner {
    /// A release whose document is gone is held for a moment: it may come back.
    pub(super) fn vanish(&mut self, name: &ObjectName) {
        let Some(entry) = self.entries.get_mut(name).filter(|e| e.vanished.is_none()) else { return };
        entry.vanished = Some(Instant::now());
        if entry.status.paused.as_deref() != Some(DOCUMENT_GONE) {
            entry.status.paused_before = entry.status.paused.replace(DOCUMENT_GONE.to_owned());
        }
        let event = entry.status.note(now(), EventKind::Action, DOCUMENT_GONE);
        tracing::warn!("release {name}: {DOCUMENT_GONE}");
        self.audit.write(Stamp { at: now(), who: "the documents" }, name, DOCUMENT_GONE, &serde_json::Value::Null);
        self.happened(name, &[event]);
    }

    /// Forgets releases whose documents have been gone for long enough.
    pub(super) fn bury(&mut self) {
        let late = |e: &Entry| e.vanished.as_ref().is_some_and(|since| since.elapsed() >= self.holds);
        let gone: Vec<ObjectName> = self.entries.iter().filter(|(_, e)| late(e)).map(|(n, _)| n.clone()).collect();
        for name in gone {
            if let Some(entry) = self.entries.remove(&name) {
                self.leave_behind(&name, entry.status);
            }
            self.readings.remove(&name);
            self.tally.forget(&name);
            self.audit.write(
                Stamp { at: now(), who: "the documents" },
                &name,
                "its document is gone",
                &serde_json::Value::Null,
            );
        }
    }

    /// Forgets releases whose documents did not come.
    pub(super) fn forget(&mut self) {
        for (name, status) in std::mem::take(&mut self.remembered) {
            if status.phase.is_final() {
                self.leave_behind(&name, status);
                continue;
            }
            self.audit.write(
                Stamp { at: now(), who: "the documents" },
                &name,
                "its document is gone",
                &serde_json::Value::Null,
            );
        }
    }

    /// Remembers how a release ended whose document is gone: when it comes back, it has ended.
    pub(super) fn leave_behind(&mut self, name: &ObjectName, mut status: Status) {
        appear(&mut status);
        if !status.phase.is_final() {
            return;
        }
        self.ended.insert(name.clone(), status);
        while self.ended.len() > ENDED
            && let Some(oldest) = self.ended.iter().min_by_key(|(_, s)| s.moved).map(|(n, _)| n.clone())
        {
            self.ended.remove(&oldest);
        }
    }

    /// Tells a release that has not begun what the one that has the host's traffic leaves to it.
    pub(super) fn inherit(&mut self, name: &ObjectName) {
        let other = in_force(&self.entries, name).map(|(_, other)| other.status.clone());
        if let Some(entry) = self.entries.get_mut(name).filter(|e| !e.status.began) {
            entry.status.inherit(other.as_ref());
        }
    }
}
