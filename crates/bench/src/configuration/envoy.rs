//! The one file that Serin and Envoy both run: routes with a timeout and a retry policy, clusters with outlier detection,
//! as a mesh would have.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::case::{By, Job, Setup, Wire};

/// The bootstrap.
pub(crate) fn bootstrap(job: Job, setup: Setup) -> Value {
    let filter = if setup.front == Wire::Tcp { tcp() } else { http(setup) };
    let clusters: Vec<Value> = (0..setup.clusters).map(|number| cluster(number, job.upstream, setup)).collect();
    json!({
        "admin": {"address": address(SocketAddr::new(job.listen.ip(), 0))},
        "static_resources": {
            "listeners": [{"name": "bench", "address": address(job.listen), "filter_chains": [{"filters": [filter]}]}],
            "clusters": clusters,
        },
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn tcp() -> Value {
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench", "cluster": "backend-0"}})
}

fn http(setup: Setup) -> Value {
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let routes: Vec<Value> = (0..setup.routes).map(|number| route(number, setup)).collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"name": "bench", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    });
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

fn route(number: usize, setup: Setup) -> Value {
    let path = setup.path(number);
    let matched = match setup.by {
        By::Nothing => json!({"prefix": "/"}),
        By::Exact => json!({"path": path}),
        By::Prefix => json!({"prefix": path}),
        By::Header => json!({"prefix": "/", "headers": [
            {"name": "x-tenant", "string_match": {"exact": format!("tenant-{number}")}}]}),
    };
    json!({"match": matched, "route": {"cluster": format!("backend-{}", number % setup.clusters), "timeout": "15s",
        "retry_policy": {"retry_on": "gateway-error,connect-failure,reset", "num_retries": 2}}})
}

fn cluster(number: usize, upstream: SocketAddr, setup: Setup) -> Value {
    let name = format!("backend-{number}");
    let endpoint = json!({"endpoint": {"address": address(upstream)}});
    let mut cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "outlier_detection": {},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}});
    if setup.back.is_h2() {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}});
    }
    cluster
}
