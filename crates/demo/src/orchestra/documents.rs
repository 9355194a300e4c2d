//! What the demo registers: services, instances, and what each proxy listens to; and bootstraps for Envoy.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::options::DataPlane;
use super::plan::{Instance, Plan, ProxyPlan};

/// Namespace of the entrance.
pub(super) const GATEWAY_NAMESPACE: &str = "istio-system";
/// Name of the entrance.
pub(super) const GATEWAY_NAME: &str = "istio-ingressgateway";

/// Writes everything, with every instance registered.
pub(super) fn write_all(plan: &Plan) -> anyhow::Result<()> {
    std::fs::write(plan.registry.join("mesh.yaml"), mesh(plan))?;
    register(plan, |_| true)?;
    if plan.data_plane == DataPlane::Envoy {
        for instance in &plan.instances {
            if let Some(proxy) = &instance.proxy {
                let labels = instance.labels();
                let text = bootstrap(plan, ("sidecar", "default", &instance.name), &labels, proxy.admin);
                std::fs::write(bootstrap_file(plan, &instance.name), text.to_string())?;
            }
        }
        let labels = [("istio", "ingressgateway")];
        let text = bootstrap(plan, ("router", GATEWAY_NAMESPACE, GATEWAY_NAME), &labels, plan.gateway.admin);
        std::fs::write(bootstrap_file(plan, GATEWAY_NAME), text.to_string())?;
    }
    Ok(())
}

/// Where the Envoy bootstrap of a proxy stands.
pub(super) fn bootstrap_file(plan: &Plan, name: &str) -> PathBuf {
    plan.scratch.join(format!("{name}.json"))
}

/// Registers the instances that pass; whoever does not is withdrawn. The file is replaced in one step.
pub(super) fn register(plan: &Plan, passes: impl Fn(&Instance) -> bool) -> anyhow::Result<()> {
    let text: String = plan.instances.iter().filter(|i| passes(i)).map(workload).collect();
    let new = plan.registry.join(".workloads.new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, plan.registry.join("workloads.yaml"))?;
    Ok(())
}

fn workload(instance: &Instance) -> String {
    let address = instance.reached_at();
    let labels: String = instance.labels().iter().map(|(key, value)| format!("    {key}: {value}\n")).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         address: {ip}\n  ports: {{http: {port}}}\n  labels:\n{labels}",
        name = instance.name,
        ip = address.ip(),
        port = address.port()
    )
}

fn mesh(plan: &Plan) -> String {
    let mut out = String::new();
    for service in ["productpage", "details", "reviews", "ratings"] {
        let _ = write!(
            out,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: default, labels: {{app: {service}}}}}\nspec:\n  \
             selector: {{app: {service}}}\n  ports:\n  - {{name: http, port: 9080}}\n"
        );
    }
    if !plan.gateway.ports.is_empty() {
        let _ = write!(
            out,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {GATEWAY_NAME}, namespace: {GATEWAY_NAMESPACE}}}\nspec:\n  \
             selector: {{istio: ingressgateway}}\n  ports:\n"
        );
        for (port, target) in &plan.gateway.ports {
            let _ = writeln!(out, "  - {{name: http-{port}, port: {port}, targetPort: {target}}}");
        }
    }
    for instance in &plan.instances {
        if let Some(proxy) = &instance.proxy {
            out.push_str(&sidecar(instance, proxy));
        }
    }
    out
}

fn sidecar(instance: &Instance, proxy: &ProxyPlan) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         workloadSelector: {{labels: {{instance: {name}}}}}\n  \
         ingress:\n  - port: {{number: {inbound}, protocol: HTTP, name: http}}\n    bind: {inbound_ip}\n    captureMode: NONE\n    \
         defaultEndpoint: {app}\n  \
         egress:\n  - port: {{number: {outbound}, protocol: HTTP_PROXY, name: http}}\n    bind: {outbound_ip}\n    captureMode: NONE\n    \
         hosts: [\"*/*\"]\n",
        name = instance.name,
        inbound = proxy.inbound.port(),
        inbound_ip = proxy.inbound.ip(),
        app = instance.app,
        outbound = proxy.outbound.port(),
        outbound_ip = proxy.outbound.ip(),
    )
}

/// A bootstrap that makes Envoy a client of the pilot. It reconnects quickly, so that a new pilot is noticed.
fn bootstrap(
    plan: &Plan,
    (role, namespace, name): (&str, &str, &str),
    labels: &[(&str, &str)],
    admin: std::net::SocketAddr,
) -> Value {
    let socket =
        |a: std::net::SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let labels: serde_json::Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let ads = json!({"resource_api_version": "V3", "initial_fetch_timeout": "0s", "ads": {}});
    json!({
        "node": {
            "id": format!("{role}~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {"LABELS": labels, "NAMESPACE": namespace},
        },
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
                {"lb_endpoints": [{"endpoint": {"address": socket(plan.pilot_xds)}}]},
            ]},
        }]},
    })
}
