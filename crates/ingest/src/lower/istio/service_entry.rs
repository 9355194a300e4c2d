//! ServiceEntry.

use std::collections::BTreeMap;

use serin_model::{Endpoint, Object, ObjectName, Port, Protocol, Resolution, Service, TargetPort};

use super::{export_to, host, labels, no_route, workload_selector};
use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`; every host becomes a service.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    object.no_effect_yet(&["addresses"]);
    let names: Vec<String> = object.list("subjectAltNames").iter().filter_map(|name| name.line()).collect();
    let external = location(&object);
    let selector = object.get("workloadSelector").and_then(|s| workload_selector(&s));
    let list = object.get("endpoints").filter(|list| !list.list().is_empty());
    if let Some(list) = list.as_ref().filter(|_| selector.is_some()) {
        list.invalid("endpoints and workloadSelector exclude each other", "");
    }
    let resolution = resolution(&object, list.as_ref(), spec);
    let listed: Vec<Endpoint> = list.map(|l| l.list().iter().filter_map(read_endpoint).collect()).unwrap_or_default();
    let export_to = export_to(object.get("exportTo"));
    let ports = read_ports(&object.required_list("ports")?);
    let mut services = Vec::new();
    for item in object.required_list("hosts")? {
        let Some(host) = host(&item) else { continue };
        if host.as_str() == "*" {
            item.invalid("a ServiceEntry cannot be for every host", "name a domain, such as '*.example.com'");
            continue;
        }
        for port in ports.iter().filter(|p| !p.protocol.is_http()) {
            no_route(&item, port.number, &host);
        }
        let mut endpoints = listed.clone();
        match resolution? {
            Found::Dns if endpoints.is_empty() => endpoints.push(Endpoint::named(host.as_str())),
            Found::Dns => {}
            Found::Static => check_addresses(&endpoints, spec),
            // Requests to it find nobody.
            Found::Nowhere => endpoints.clear(),
        }
        services.push(Service {
            host,
            namespace: name.namespace.clone(),
            ports: ports.clone(),
            resolution: if resolution? == Found::Dns { Resolution::Dns } else { Resolution::Static },
            endpoints,
            selector: selector.clone().filter(|_| resolution.is_some_and(|r| r != Found::Nowhere)),
            export_to: export_to.clone(),
            publishes_unready: false,
            external,
            certificate_names: names.clone(),
        });
    }
    Some(Object::Services(services))
}

/// How instances are found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Static,
    Dns,
    /// By the address that a client connected to, which is not known.
    Nowhere,
}

fn resolution(object: &Fields<'_>, endpoints: Option<&Cursor<'_>>, spec: &Cursor<'_>) -> Option<Found> {
    let at = object.get("resolution");
    let text = at.as_ref().map_or(Some("NONE".to_owned()), |at| at.text())?;
    match text.as_str() {
        "STATIC" => Some(Found::Static),
        "DNS" | "DNS_ROUND_ROBIN" => Some(Found::Dns),
        "NONE" | "DYNAMIC_DNS" => {
            let said = if at.is_some() { "" } else { ", which is Istio's default," };
            if let Some(endpoints) = endpoints {
                endpoints.invalid(
                    format!("resolution {text}{said} takes no endpoints"),
                    "add resolution: STATIC for addresses, or DNS for names",
                );
                return None;
            }
            at.as_ref().unwrap_or(spec).report(
                Code::NoEffectYet,
                Severity::Warning,
                format!("resolution {text}{said} is not supported yet: requests to its hosts find no instance and are answered 503"),
                "use STATIC or DNS",
            );
            Some(Found::Nowhere)
        }
        other => {
            at.as_ref().unwrap_or(spec).invalid(format!("'{other}' is no resolution"), "use STATIC or DNS");
            None
        }
    }
}

fn check_addresses(endpoints: &[Endpoint], spec: &Cursor<'_>) {
    for endpoint in endpoints.iter().filter(|e| e.address.parse::<std::net::IpAddr>().is_err()) {
        let message = format!("endpoint address '{}' is not an IP address", endpoint.address);
        spec.invalid(message, "names are looked up with resolution DNS");
    }
}

/// Whether it says that its hosts are outside the mesh, where policies of workloads do not reach.
fn location(object: &Fields<'_>) -> bool {
    let Some(at) = object.get("location") else { return false };
    let text = at.text();
    match text.as_deref() {
        Some("MESH_EXTERNAL") | None => {}
        Some("MESH_INTERNAL") => at.report(
            Code::NoEffectYet,
            Severity::Info,
            "'location' has no effect yet: it says where mutual TLS is spoken",
            "",
        ),
        Some(other) => at.invalid(format!("'{other}' is no location"), "use MESH_EXTERNAL or MESH_INTERNAL"),
    }
    text.as_deref() == Some("MESH_EXTERNAL")
}

fn read_ports(items: &[Cursor<'_>]) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for item in items {
        let Some(port) = read_port(item) else { continue };
        if ports.iter().any(|p| p.number == port.number || p.name == port.name) {
            item.report(Code::Duplicate, Severity::Error, "a port with this number or name is there already", "");
        }
        ports.push(port);
    }
    ports
}

fn read_port(cursor: &Cursor<'_>) -> Option<Port> {
    let object = cursor.object()?;
    let target = object.get("targetPort").and_then(|c| c.port());
    let name = object.required("name")?.text()?;
    let protocol = match object.get("protocol") {
        None => Protocol::from_name(&name).unwrap_or(Protocol::Tcp),
        Some(at) => {
            let text = at.text()?;
            let found = Protocol::from_name(&text);
            if found.is_none() {
                at.invalid(format!("'{text}' is no protocol"), "use HTTP, HTTP2, GRPC or TCP");
            }
            found?
        }
    };
    let number = object.required("number")?.port()?;
    Some(Port { number, name, protocol, target: TargetPort::Number(target.unwrap_or(number)) })
}

/// Reads a WorkloadEntry's content, which is also an element of `endpoints`.
pub(crate) fn read_endpoint(cursor: &Cursor<'_>) -> Option<Endpoint> {
    let object = cursor.object()?;
    for field in ["network", "serviceAccount"].into_iter().filter(|field| object.get(field).is_some()) {
        object.note(format!("'{field}' has no effect yet"));
    }
    let mut ports = BTreeMap::new();
    for (name, value) in object.get("ports").map(|p| p.entries()).unwrap_or_default() {
        ports.insert(name, value.port()?);
    }
    let labels = object.get("labels").map(|l| labels(&l)).unwrap_or_default();
    let locality = object.get("locality").and_then(|c| c.text()).unwrap_or_default();
    let weight = object.get("weight").and_then(|c| c.bounded(0, i32::MAX as u32)).unwrap_or(1).max(1);
    let address = object.required("address")?.text()?;
    Some(Endpoint { ports, labels, weight, locality, ..Endpoint::named(address) })
}
