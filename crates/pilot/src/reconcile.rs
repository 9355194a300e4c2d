//! Brings what proxies get into line with documents and releases.
//!
//! Two tasks do so, one when documents change ([`Reconciler::watch`]), one for releases ([`Reconciler::deliver`]). Both hold the store
//! while they publish: an older state of the one never follows a newer one of the other.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serin_ingest::{Severity, render_text, summary};
use serin_model::Kind;

use crate::copies::Copies;
use crate::fleet::Fleet;
use crate::loads::Loads;
use crate::releases::{self, EffectRunner, Releases};
use crate::source::Sources;
use crate::store::{Built, Store};

/// The store, the fleet and the releases of a pilot, kept in line with each other.
pub(crate) struct Reconciler {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) releases: Arc<Releases>,
    pub(crate) loads: Arc<Loads>,
}

impl Reconciler {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the documents that an earlier pilot had in force; returns their names.
    pub(crate) fn restore(&self, copies: &mut Copies) -> BTreeSet<String> {
        let mut store = self.store();
        if let Some(before) = store.restore(copies.read()) {
            self.releases.sync(&before.snapshot, false);
            self.fleet.publish(before.snapshot.with_overlays(self.releases.overlays()));
        }
        store.names().cloned().collect()
    }

    /// Takes changes of documents in, for ever.
    pub(crate) async fn watch(self: Arc<Self>, mut sources: Sources, mut copies: Option<Copies>) {
        loop {
            let until = self.store().next_decision(Instant::now());
            sources.changed(until).await;
            // Reading and translating must not hold up other tasks.
            tokio::task::block_in_place(|| self.refresh(&mut sources, copies.as_mut()));
        }
    }

    /// Reads what changed, says what is wrong with it, pushes what is right.
    pub(crate) fn refresh(&self, sources: &mut Sources, copies: Option<&mut Copies>) {
        let mut store = self.store();
        let Some(built) = store.update(sources.read(), Instant::now()) else { return };
        let Built { snapshot, news, objects, edited } = built;
        let color = std::io::stderr().is_terminal();
        for diagnostic in &news {
            eprintln!("{}", render_text(diagnostic, store.text(&diagnostic.file), color));
        }
        tracing::info!(target: "serin_applied", "{objects} objects in force; {}", summary(store.diagnostics()));
        // Documents that are away for now are not gone.
        let whole = objects > 0 && store.diagnostics().iter().all(|d| d.severity != Severity::Error);
        self.releases.sync(&snapshot, whole);
        let faults = store.faults().filter(|(key, _)| key.kind == Kind::Release);
        self.releases.outdate(store.outdated(), faults.map(|(key, why)| (key.name.clone(), why)).collect());
        self.fleet.publish(snapshot.with_overlays(self.releases.overlays()));
        if let Some(copies) = copies {
            copies.keep(&store, edited.as_ref());
        }
    }

    /// Moves releases on, for ever.
    pub(crate) async fn deliver(self: Arc<Self>) {
        let effects = EffectRunner::new();
        let mut published = self.releases.overlays();
        let mut publish = |store: &Store| {
            let overlays = self.releases.overlays();
            if overlays != published {
                published = overlays.clone();
                self.fleet.publish(store.mesh().with_overlays(overlays));
            }
        };
        loop {
            // What people said takes effect at once.
            let _ = tokio::time::timeout(releases::LOOK, self.releases.spoken()).await;
            let due = tokio::task::block_in_place(|| {
                let store = self.store();
                publish(&store);
                let due = self.releases.look(&self.fleet.mesh(), &self.fleet, &self.loads);
                publish(&store);
                due
            });
            due.into_iter().for_each(|due| effects.act(due, &self.releases));
        }
    }
}
