//! Active health checks: a task for every endpoint of a cluster that wants them, on the main thread.

mod probe;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;
use serin_resources::health_check::HealthCheck;
use serin_traffic::health::{Check, HealthHistory};
use tokio::task::AbortHandle;

use crate::discovery::SharedStore;
use crate::metric::cluster as counter;
use crate::runtime::{ClusterState, Host};
use crate::tls::ClientSlot;

/// The interval at which the endpoints are looked through for new ones.
const LOOK: Duration = Duration::from_millis(50);

/// One endpoint to be checked, in one way.
struct Patient {
    cluster: String,
    state: Arc<ClusterState>,
    host: Arc<Host>,
    address: SocketAddr,
    config: HealthCheck,
    /// Its TLS.
    tls: Option<Arc<ClientSlot>>,
}

/// Checks as long as the proxy runs.
pub(crate) async fn watch(store: SharedStore) {
    let mut seen = 0;
    let mut running: HashMap<u64, (HealthCheck, AbortHandle)> = HashMap::new();
    loop {
        let (generation, patients) = {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            let patients = (store.generation() != seen).then(|| patients(&store));
            (store.generation(), patients)
        };
        if let Some(patients) = patients {
            seen = generation;
            running.retain(|key, (config, task)| {
                let kept = patients.get(key).is_some_and(|p| p.config == *config);
                if !kept {
                    task.abort();
                }
                kept
            });
            for (key, patient) in patients {
                running.entry(key).or_insert_with(|| {
                    let config = patient.config.clone();
                    (config, tokio::task::spawn_local(attend(store.clone(), patient)).abort_handle())
                });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn patients(store: &crate::discovery::Store) -> HashMap<u64, Patient> {
    let mut all = HashMap::new();
    for cluster in store.clusters_in_use() {
        let Some(config) = &cluster.config.health_check else { continue };
        for member in &cluster.members {
            let port = config.port.or(member.endpoint.health_check_port).unwrap_or(member.host.address.port());
            let patient = Patient {
                cluster: cluster.config.name.clone(),
                state: cluster.state.clone(),
                host: member.host.clone(),
                address: SocketAddr::new(member.host.address.ip(), port),
                config: config.clone(),
                tls: member.tls.clone(),
            };
            all.insert(member.host.id, patient);
        }
    }
    all
}

/// Checks one endpoint again and again.
async fn attend(store: SharedStore, patient: Patient) {
    let Patient { cluster, state, host, address, config, tls } = &patient;
    tokio::time::sleep(config.initial_jitter.mul_f64(fastrand::f64())).await;
    let mut known = HealthHistory::default();
    loop {
        state.stats.add(0, counter::HC_ATTEMPT, 1);
        let check =
            tokio::time::timeout(config.timeout, probe::run(&config.probe, cluster, *address, tls.as_deref())).await;
        let check = check.unwrap_or(Check::Unreachable);
        let counted = match check {
            Check::Passed { .. } => counter::HC_SUCCESS,
            Check::Failed | Check::Unreachable => counter::HC_FAILURE,
        };
        state.stats.add(0, counted, 1);
        if check == Check::Unreachable {
            state.stats.add(0, counter::HC_NETWORK_FAILURE, 1);
        }
        let first = !known.checked;
        let (next, changed) = known.after(config, check);
        known = next;
        if changed || (config.log_failures && counted == counter::HC_FAILURE) {
            log(&patient, check, known, first);
        }
        if host.health.checked(known.healthy, known.degraded) || first {
            if changed {
                tracing::info!(cluster, %address, healthy = known.healthy, "health check");
            }
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            store.refresh_cluster(cluster);
        }
        let has_traffic = state.stats.get(counter::CX_TOTAL) > 0;
        tokio::time::sleep(known.wait(config, changed, has_traffic, fastrand::u64(..))).await;
    }
}

/// Writes an event, as Envoy does.
fn log(patient: &Patient, check: Check, known: HealthHistory, first: bool) {
    let Some(path) = &patient.config.event_log else { return };
    let kind = match patient.config.probe {
        serin_resources::health_check::Probe::Http(_) => "HTTP",
        serin_resources::health_check::Probe::Tcp { .. } => "TCP",
        serin_resources::health_check::Probe::Grpc { .. } => "GRPC",
    };
    let failure = if check == Check::Unreachable { "NETWORK" } else { "ACTIVE" };
    let address = patient.address;
    let mut event = json!({
        "health_checker_type": kind,
        "host": {"socket_address": {
            "protocol": "TCP", "address": address.ip().to_string(), "port_value": address.port(),
            "resolver_name": "", "ipv4_compat": false,
        }},
        "cluster_name": patient.cluster,
        "timestamp": jiff::Timestamp::now().to_string(),
    });
    match (known.healthy, check) {
        (true, Check::Passed { .. }) => event["add_healthy_event"] = json!({"first_check": first}),
        (false, _) if known.checked && !first => {
            event["eject_unhealthy_event"] = json!({"failure_type": failure});
        }
        _ => event["health_check_failure_event"] = json!({"failure_type": failure, "first_check": first}),
    }
    let written = OpenOptions::new().create(true).append(true).open(path).and_then(|mut f| writeln!(f, "{event}"));
    if let Err(error) = written {
        tracing::warn!(path, %error, "cannot write the health check event log");
    }
}
