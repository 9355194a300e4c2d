//! Looks up the names of DNS clusters for as long as the process lives.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serin_resources::cluster::Names;

use super::store::{SharedStore, Store};
use crate::upstream::resolve;

/// Runs for ever. Every cluster is looked up by a task of its own, so that a slow name delays no other.
pub(crate) async fn watch(store: SharedStore) {
    let mut due: HashMap<String, (Names, Instant)> = HashMap::new();
    loop {
        let clusters = locked(&store, |s| s.dns_clusters());
        due.retain(|name, _| clusters.iter().any(|(n, _)| n == name));
        for (name, names) in clusters {
            let now = Instant::now();
            if due.get(&name).is_some_and(|(of, at)| *of == names && *at > now) {
                continue;
            }
            due.insert(name.clone(), (names.clone(), now + names.refresh));
            let store = store.clone();
            tokio::spawn(async move {
                let before = locked(&store, |s| s.last_resolved(&name)).unwrap_or_default();
                let found = resolve(&names, &before).await;
                locked(&store, |s| s.resolved(&name, found));
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn locked<T>(store: &SharedStore, use_: impl FnOnce(&mut Store) -> T) -> T {
    use_(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
}
