//! Names of resources, as Istio forms them.

use serin_model::{GatewayListener, Hostname, ObjectName};

/// The cluster towards a service port, or a subset of it.
pub(crate) fn outbound(port: u16, subset: &str, host: &Hostname) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The beginning of the names of clusters to which requests go that are refused, because of what stands behind it.
pub const REFUSED: &str = "refused|";

/// The cluster to which requests go that are refused because of that.
pub(crate) fn refused(because: &str) -> String {
    format!("{REFUSED}{because}")
}

/// Because of what requests to that cluster are refused.
pub(crate) fn because(cluster: &str) -> Option<&str> {
    cluster.strip_prefix(REFUSED)
}

/// The cluster towards the application beside the proxy.
pub(crate) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The route configuration of a gateway's port.
pub(crate) fn gateway_routes(port: u16) -> String {
    format!("http.{port}")
}

/// The route configuration of a gateway's server where TLS ends.
pub(crate) fn secure_routes(server: &GatewayListener, gateway: &ObjectName) -> String {
    format!("https.{}.{}.{}.{}", server.port, server.name, gateway.name, gateway.namespace)
}

/// The names under which callers in `namespace` may know a host, without port.
pub(crate) fn aliases(host: &Hostname, namespace: &str) -> Vec<String> {
    let mut names = vec![host.to_string()];
    if let Some((name, own)) = host.service_parts() {
        if own == namespace {
            names.push(name.to_owned());
        }
        names.push(format!("{name}.{own}"));
        names.push(format!("{name}.{own}.svc"));
    }
    names
}
