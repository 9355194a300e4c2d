//! Looks up the names of DNS clusters for as long as the process lives.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::store::SharedStore;
use crate::upstream::resolve;

/// Runs for ever.
pub(crate) async fn watch(store: SharedStore) {
    let mut due: HashMap<String, Instant> = HashMap::new();
    loop {
        let clusters = store.lock().unwrap_or_else(PoisonError::into_inner).dns_clusters();
        due.retain(|name, _| clusters.iter().any(|(n, _, _)| n == name));
        for (name, assignment, every) in clusters {
            let now = Instant::now();
            if due.get(&name).is_some_and(|at| *at > now) {
                continue;
            }
            due.insert(name.clone(), now + every);
            let resolved = resolve(&assignment).await;
            store.lock().unwrap_or_else(PoisonError::into_inner).resolved(&name, resolved);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
