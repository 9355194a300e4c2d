//! Every number there is, under Envoy's names.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serin_resources::type_url;
use serin_telemetry::{Sample, Timing};
use serin_traffic::filter::FilterCounter;

use super::Admin;
use crate::discovery::Store;
use crate::metric;
use crate::snapshot::Snapshot;
use crate::spans;

/// The times of requests, by cluster and by connection manager.
pub(super) fn timings(admin: &Admin) -> Vec<Timing> {
    let store = admin.lock();
    let clusters = &store.current().clusters;
    let timing = |(name, cluster): (&String, &std::sync::Arc<crate::runtime::ClusterRuntime>)| Timing {
        prefix: "cluster",
        tag: ("envoy_cluster_name", name.clone()),
        metric: "upstream_rq_time",
        seen: cluster.state.times.read(),
    };
    let managers = store.sockets.times().map(|(prefix, times)| Timing {
        prefix: "http",
        tag: ("envoy_http_conn_manager_prefix", prefix.clone()),
        metric: "downstream_rq_time",
        seen: times.read(),
    });
    clusters.iter().map(timing).chain(managers).collect()
}

pub(super) fn all(admin: &Admin) -> Vec<Sample> {
    let store = admin.lock();
    let current = store.current();
    let mut samples = Vec::new();
    let mut push = |prefix, tag: Option<(&'static str, &String)>, metric: &str, value, gauge| {
        let tag = tag.map(|(label, value)| (label, value.clone()));
        samples.push(Sample { prefix, tag, metric: metric.to_owned(), value, gauge });
    };
    for ((name, metric), (value, gauge)) in of_clusters(&current) {
        push("cluster", Some(("envoy_cluster_name", &name.to_owned())), &metric, value, gauge);
    }
    for ((kind, prefix), stats) in store.sockets.stats() {
        let label = if kind == "http" { "envoy_http_conn_manager_prefix" } else { "envoy_tcp_prefix" };
        for (metric, value) in stats {
            push(kind, Some((label, prefix)), metric, value, metric::is_gauge(metric));
        }
    }
    for (listener, metric, value, gauge) in of_listeners(&store, &current) {
        push("listener", Some(("envoy_listener_address", &listener)), &metric, value, gauge);
    }
    let mut filters: BTreeMap<(&'static str, &'static str, String, &str), u64> = BTreeMap::new();
    let chains = || current.listeners.values().flat_map(|listener| &listener.chains);
    for (chain, table) in chains() {
        for FilterCounter { group, tag: (tag, prefix), name, value } in
            chain.http_filters.counters().chain(table.filter_counters())
        {
            *filters.entry((group, tag, prefix, name)).or_default() += value;
        }
    }
    for ((group, tag, prefix, metric), value) in &filters {
        push(*group, Some((*tag, prefix)), metric, *value, false);
    }
    let mut gates: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for (chain, _) in chains() {
        for (prefix, counted) in chain.gates.iter().map(crate::snapshot::Gate::counted) {
            // Envoy joins the two with a dot, unless there is one.
            let prefix = prefix.strip_suffix('.').unwrap_or(prefix).to_owned();
            counted.for_each(|(name, count)| *gates.entry((prefix.clone(), name)).or_default() += count);
        }
    }
    for ((prefix, metric), value) in &gates {
        push("network", Some(("envoy_rbac_prefix", prefix)), metric, *value, false);
    }
    for (type_url, prefix) in [
        (type_url::CLUSTER, "cluster_manager.cds"),
        (type_url::LISTENER, "listener_manager.lds"),
        (type_url::ROUTE, "http.rds"),
        (type_url::VIRTUAL_HOST, "http.vhds"),
        (type_url::ENDPOINT, "cluster.eds"),
        (type_url::SECRET, "sds"),
    ] {
        let (accepted, rejected) = store.updates.get(type_url).copied().unwrap_or_default();
        push(prefix, None, "update_success", accepted, false);
        push(prefix, None, "update_rejected", rejected, false);
    }
    for (name, count) in metric::inspector::NAMES.iter().zip(metric::INSPECTED.all()) {
        push("tls_inspector", None, name, count, false);
    }
    for (prefix, counts) in &metric::CODECS {
        for (name, count) in metric::codec::NAMES.iter().zip(counts) {
            push(prefix, None, name, count.load(Relaxed), false);
        }
    }
    push("cluster_manager", None, "active_clusters", current.clusters.len() as u64, true);
    push("listener_manager", None, "total_listeners_active", current.listeners.len() as u64, true);
    push("control_plane", None, "connected_state", u64::from(admin.state.is_connected()), true);
    push("server", None, "live", u64::from(admin.state.phase() == "LIVE"), true);
    push("server", None, "uptime", admin.state.uptime().as_secs(), true);
    push("server", None, "concurrency", admin.workers as u64, true);
    push("server", None, "metric_series_folded", store.tallies.folded(), false);
    push("server", None, "access_log_lines_dropped", store.sockets.dropped_lines(), false);
    push("tracing.opentelemetry", None, "spans_sent", spans::SENT.load(Relaxed), false);
    push("tracing.opentelemetry", None, "spans_dropped", spans::DROPPED.load(Relaxed), false);
    samples
}

/// What is counted of clusters, by the name of their statistics, which several may share; true for what can go down.
fn of_clusters(current: &Snapshot) -> BTreeMap<(&str, String), (u64, bool)> {
    let mut all: BTreeMap<(&str, String), (u64, bool)> = BTreeMap::new();
    for cluster in current.clusters.values() {
        let state = &cluster.state;
        let own = state.stats.iter().map(|(name, value)| (name.to_owned(), value, metric::is_gauge(name)));
        let members = [("membership_total", cluster.members.len()), ("membership_healthy", cluster.healthy())];
        let members = members.map(|(name, value)| (name.to_owned(), value as u64, true));
        let agreed = state.agreed.all().into_iter().map(|(name, value)| (name, value, false));
        let codes = state.codes().into_iter().map(|(code, count)| (format!("upstream_rq_{code}"), count, false));
        for (name, value, gauge) in own.chain(members).chain(agreed).chain(codes) {
            all.entry((cluster.config.stat_name(), name)).or_insert((0, gauge)).0 += value;
        }
    }
    all
}

/// What is counted of listeners: the name of its statistics, the metric, the value, and true for what can go down.
fn of_listeners(store: &Store, current: &Snapshot) -> Vec<(String, String, u64, bool)> {
    let mut connections: BTreeMap<(&String, &str, bool), u64> = BTreeMap::new();
    let mut all = Vec::new();
    for (listener, prefix, stats) in store.sockets.of_listeners() {
        let name = |index: usize| metric::http::NAMES.get(index).copied().unwrap_or_default();
        for (index, gauge) in [(metric::http::CX_TOTAL, false), (metric::http::CX_ACTIVE, true)] {
            *connections.entry((listener, name(index), gauge)).or_default() += stats.get(index);
        }
        for index in metric::http::RQ_COMPLETED..=metric::http::RQ_5XX {
            all.push((listener.clone(), format!("http.{prefix}.{}", name(index)), stats.get(index), false));
        }
    }
    let connections = connections.into_iter();
    all.extend(connections.map(|((listener, name, gauge), count)| (listener.clone(), name.to_owned(), count, gauge)));
    for listener in current.listeners.values() {
        let prefix = listener.config.stat_prefix();
        all.push((prefix.clone(), "no_filter_chain_match".to_owned(), listener.unmatched.load(Relaxed), false));
        let handshakes = store.sockets.handshakes(&listener.config.name).map(|counts| counts.all());
        all.extend(handshakes.into_iter().flatten().map(|(name, count)| (prefix.clone(), name, count, false)));
    }
    all
}
