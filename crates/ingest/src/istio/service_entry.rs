//! ServiceEntry.

use std::collections::BTreeMap;

use serin_model::{Endpoint, Object, ObjectName, Port, Protocol, Resolution, Service, TargetPort};

use super::{export_to, host, labels, workload_selector};
use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`; every host becomes a service.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    object.skip(&["location", "addresses", "subjectAltNames"]);
    let resolution = match object.get("resolution").map(|r| (r.text(), r)) {
        None => Resolution::Static,
        Some((Some(text), at)) => match text.as_str() {
            "STATIC" => Resolution::Static,
            "DNS" | "DNS_ROUND_ROBIN" => Resolution::Dns,
            "NONE" | "DYNAMIC_DNS" => {
                at.report(
                    Code::NotSupported,
                    Severity::Error,
                    format!("resolution {text} is not supported yet"),
                    "use STATIC or DNS",
                );
                return None;
            }
            other => {
                at.invalid(format!("'{other}' is no resolution"), "use STATIC or DNS");
                return None;
            }
        },
        Some((None, _)) => return None,
    };
    let ports = read_ports(&object.required("ports")?);
    let selector = object.get("workloadSelector").and_then(|s| workload_selector(&s));
    let mut endpoints: Vec<Endpoint> = Vec::new();
    if let Some(list) = object.get("endpoints") {
        if selector.is_some() {
            list.invalid("endpoints and workloadSelector exclude each other", "");
        }
        endpoints = list.list().iter().filter_map(read_endpoint).collect();
    }
    let export_to = export_to(object.get("exportTo"));
    let mut services = Vec::new();
    for item in object.required("hosts")?.list() {
        let Some(host) = host(&item) else { continue };
        let mut endpoints = endpoints.clone();
        if endpoints.is_empty() && resolution == Resolution::Dns {
            endpoints.push(named_endpoint(host.as_str()));
        }
        services.push(Service {
            host,
            namespace: name.namespace.clone(),
            ports: ports.clone(),
            resolution,
            endpoints,
            selector: selector.clone(),
            export_to: export_to.clone(),
        });
    }
    Some(Object::Services(services))
}

fn named_endpoint(host: &str) -> Endpoint {
    Endpoint {
        address: host.to_owned(),
        ports: BTreeMap::new(),
        labels: BTreeMap::new(),
        weight: 1,
        locality: String::new(),
        ready: true,
    }
}

fn read_ports(cursor: &Cursor<'_>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for item in cursor.list() {
        let Some(port) = read_port(&item) else { continue };
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
    object.skip(&["network", "serviceAccount"]);
    let mut ports = BTreeMap::new();
    for (name, value) in object.get("ports").map(|p| p.entries()).unwrap_or_default() {
        ports.insert(name, value.port()?);
    }
    let labels = object.get("labels").map(|l| labels(&l)).unwrap_or_default();
    let locality = object.get("locality").and_then(|c| c.text()).unwrap_or_default();
    let weight = object.get("weight").and_then(|c| c.bounded(0, i32::MAX as u32)).unwrap_or(1).max(1);
    let address = object.required("address")?.text()?;
    Some(Endpoint { address, ports, labels, weight, locality, ready: true })
}
