//! Bootstraps for clients that are not ours: what real Envoy and gRPC read to find the control plane.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

/// Who the client is, and whom it asks.
#[derive(Debug, Clone)]
pub struct Client<'a> {
    /// `sidecar`, `router` or `grpc`.
    pub role: &'a str,
    /// Name of the workload.
    pub workload: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its address, as it appears in the node id.
    pub ip: std::net::IpAddr,
    /// Its labels.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The control plane.
    pub xds: SocketAddr,
}

impl Client<'_> {
    fn node(&self) -> Value {
        let Self { role, workload, namespace, ip, .. } = self;
        let labels: Map<String, Value> = self.labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        json!({
            "id": format!("{role}~{ip}~{workload}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{workload}.{namespace}"),
            "metadata": {"LABELS": labels, "NAMESPACE": namespace},
        })
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// For gRPC (its file is named by `GRPC_XDS_BOOTSTRAP`); channels are then made to `xds:///SERVICE:PORT`.
#[must_use]
pub fn grpc(client: &Client<'_>) -> Value {
    json!({
        "xds_servers": [{
            "server_uri": client.xds.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": client.node(),
    })
}

/// For Envoy. It reconnects quickly, so that a new control plane is noticed.
#[must_use]
pub fn envoy(client: &Client<'_>, admin: SocketAddr) -> Value {
    let ads = json!({"resource_api_version": "V3", "initial_fetch_timeout": "0s", "ads": {}});
    json!({
        "node": client.node(),
        "admin": {"address": socket(admin)},
        // Load reports of Envoy tell no times: its metrics do.
        "stats_flush_interval": "1s",
        "stats_sinks": [{"name": "envoy.stat_sinks.metrics_service", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "pilot"}},
        }}],
        "cluster_manager": {"load_stats_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "pilot"}}],
        }},
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {
                    "cluster_name": "pilot",
                    "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}},
                }}],
            },
        },
        "static_resources": {"clusters": [{
            "name": "pilot",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "10s", "timeout": "5s"},
                }},
            }},
            "load_assignment": {"cluster_name": "pilot", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(client.xds)}}]},
            ]},
        }]},
    })
}
