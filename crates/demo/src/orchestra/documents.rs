//! The documents of the demo: services, instances, and what each proxy listens to; and bootstraps for Envoy.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serin_xds::bootstrap::{self, Client};

use super::options::DataPlane;
use super::plan::{Instance, Plan, ProxyPlan};

/// Namespace of the gateway.
pub(super) const GATEWAY_NAMESPACE: &str = "istio-system";
/// Name of the gateway.
pub(super) const GATEWAY_NAME: &str = "istio-ingressgateway";

/// Writes everything, with every instance registered.
pub(super) fn write_all(plan: &Plan) -> anyhow::Result<()> {
    std::fs::write(plan.registry.join("mesh.yaml"), mesh(plan))?;
    register(plan, |_| true)?;
    if plan.data_plane == DataPlane::Envoy {
        let (ip, xds) = (Ipv4Addr::LOCALHOST.into(), plan.pilot_xds);
        for instance in &plan.instances {
            if let Some(proxy) = &instance.proxy {
                let labels = instance.labels().to_vec();
                let client =
                    Client { role: "sidecar", workload: &instance.name, namespace: "default", ip, labels, xds };
                let text = bootstrap::envoy(&client, proxy.admin);
                std::fs::write(bootstrap_file(plan, &instance.name), text.to_string())?;
            }
        }
        let labels = vec![("istio", "ingressgateway")];
        let (workload, namespace) = (GATEWAY_NAME, GATEWAY_NAMESPACE);
        let client = Client { role: "router", workload, namespace, ip, labels, xds };
        let text = bootstrap::envoy(&client, plan.gateway.admin);
        std::fs::write(bootstrap_file(plan, GATEWAY_NAME), text.to_string())?;
    }
    Ok(())
}

/// The path of a proxy's Envoy bootstrap.
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
