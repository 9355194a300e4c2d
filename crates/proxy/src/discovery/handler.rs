//! The store as a discovery client sees it.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use serin_resources::{name_of, type_url};
use serin_xds::Error;
use serin_xds::client::{Handler, Update, Wanted};

use super::store::{SharedStore, Store};
use crate::state::State;

/// Applies updates to the store.
pub(crate) struct StoreHandler {
    pub(crate) store: SharedStore,
    pub(crate) state: State,
    /// Whether the control plane's absence was said already.
    pub(crate) missed: bool,
}

/// How long a cluster waits for its endpoints and a listener for its routes (Envoy's default `initial_fetch_timeout`).
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

impl StoreHandler {
    fn report(&self, store: &Store) {
        let taken = store.unbound();
        self.state.ports_taken(!taken.is_empty());
        if taken.is_empty() && store.is_warm() && store.received.contains(type_url::LISTENER) {
            self.state.initialised();
        }
    }
}

impl Handler for StoreHandler {
    fn wanted(&self) -> Vec<(&'static str, Wanted)> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        vec![
            (type_url::CLUSTER, Wanted::All),
            (type_url::ENDPOINT, Wanted::Names(store.wanted_endpoints())),
            (type_url::LISTENER, Wanted::All),
            (type_url::ROUTE, Wanted::Names(store.wanted_routes())),
            (type_url::VIRTUAL_HOST, Wanted::Names(store.wanted_virtual_hosts())),
            (type_url::SECRET, Wanted::Names(store.wanted_secrets())),
        ]
    }

    fn apply(&mut self, update: &Update) -> Result<(), Error> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errors = Vec::new();
        let mut present = BTreeSet::new();
        store.rejected.retain(|(of, name), _| *of != update.type_url || !name.is_empty());
        for (name, version, body) in &update.changed {
            let name = if name.is_empty() { &name_of(body) } else { name };
            match store.put(&update.type_url, name, version, body) {
                Ok(name) => {
                    store.rejected.remove(&(update.type_url.clone(), name.clone()));
                    present.insert(name);
                }
                Err(error) => {
                    let error = error.to_string();
                    store.rejected.insert((update.type_url.clone(), name.clone()), error.clone());
                    errors.push(if name.is_empty() { error } else { format!("{name}: {error}") });
                }
            }
        }
        let mut removed = update.removed.clone();
        if update.full && errors.is_empty() {
            removed.extend(store.names(&update.type_url).into_iter().filter(|n| !present.contains(n)));
        }
        for name in &removed {
            store.remove(&update.type_url, name);
        }
        store.publish();
        errors.extend(store.take_conflicts());
        store.received.insert(update.type_url.clone());
        let counts = store.updates.entry(update.type_url.clone()).or_default();
        if errors.is_empty() {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        self.report(&store);
        drop(store);
        if errors.is_empty() {
            return Ok(());
        }
        let text = errors.join("; ");
        tracing::warn!(type_url = update.type_url, "rejected: {text}");
        Err(Error::Rejected(text))
    }

    fn connected(&mut self, up: bool, text: &str) {
        self.state.connected(up);
        if up {
            self.missed = false;
            tracing::info!("connected to {text}");
        } else if std::mem::replace(&mut self.missed, true) {
            tracing::debug!("still no control plane: {text}");
        } else {
            tracing::warn!("no control plane: {text}; going on with what was received");
        }
    }

    fn tick(&mut self) -> bool {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = store.bind_again();
        if bound {
            self.report(&store);
            // It is said by beginning anew, which is no failure of anybody.
            self.missed = true;
        }
        if store.give_up_waiting(FETCH_TIMEOUT) {
            store.publish();
            self.report(&store);
        }
        bound
    }
}
