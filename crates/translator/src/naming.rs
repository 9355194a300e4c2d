//! Names of resources, as Istio forms them.

use serin_model::Hostname;

/// The cluster towards a service port, or a subset of it.
pub(crate) fn outbound(port: u16, subset: &str, host: &Hostname) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The cluster towards the application beside the proxy.
pub(crate) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The route configuration of a gateway's port.
pub(crate) fn gateway_routes(port: u16) -> String {
    format!("http.{port}")
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
