//! Kubernetes Service and EndpointSlice.

use std::collections::BTreeMap;

use serin_model::{
    DOMAIN, Endpoint, EndpointSlice, Hostname, Object, ObjectName, Port, Protocol, Resolution, Service, TargetPort,
};

use crate::cursor::{Cursor, Object as Fields};
use crate::istio::labels;

/// Reads a Service's `spec`.
pub(crate) fn service(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let selector = object.get("selector").map(|s| labels(&s));
    let ports = object.get("ports").map(|p| p.list()).unwrap_or_default();
    let ports: Vec<Port> = ports.iter().filter_map(service_port).collect();
    object.skip_rest();
    let host = Hostname::parse(&format!("{}.{}.svc.{DOMAIN}", name.name, name.namespace));
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            spec.invalid(error.to_string(), "");
            return None;
        }
    };
    Some(Object::Services(vec![Service {
        host,
        namespace: name.namespace.clone(),
        ports,
        resolution: Resolution::Static,
        endpoints: Vec::new(),
        selector,
        export_to: None,
    }]))
}

fn service_port(cursor: &Cursor<'_>) -> Option<Port> {
    let object = cursor.object()?;
    object.skip(&["protocol", "nodePort"]);
    let name = object.get("name").and_then(|n| n.text()).unwrap_or_default();
    let app = object.get("appProtocol").and_then(|p| p.text());
    let number = object.required("port")?.port()?;
    let target = match object.get("targetPort") {
        None => TargetPort::Number(number),
        Some(at) => match at.peek_text() {
            Some(name) => TargetPort::Name(name.to_owned()),
            None => TargetPort::Number(at.port()?),
        },
    };
    Some(Port { number, protocol: protocol(app.as_deref(), &name, number), name, target })
}

/// Istio's choice: `appProtocol`, then the port's name up to the dash, then well-known ports, then HTTP.
fn protocol(app: Option<&str>, name: &str, number: u16) -> Protocol {
    let from_app = app.and_then(|a| Protocol::from_name(a.trim_start_matches("kubernetes.io/")));
    from_app.or_else(|| Protocol::from_name(name)).unwrap_or(match number {
        25 | 53 | 3306 | 27017 => Protocol::Tcp,
        _ => Protocol::Http,
    })
}

/// Reads an EndpointSlice; labels of its metadata become labels of its endpoints, since there are no pods to ask.
pub(crate) fn endpoint_slice(document: &Cursor<'_>, root: &Fields<'_>, name: &ObjectName) -> Option<Object> {
    root.skip(&["addressType"]);
    let metadata = document.peek("metadata").and_then(|m| m.peek("labels"));
    let labels = metadata.map(|l| labels(&l)).unwrap_or_default();
    let service = labels.get("kubernetes.io/service-name").cloned();
    let Some(service) = service else {
        document.invalid(
            "the label kubernetes.io/service-name is required",
            "it names the Service these endpoints belong to",
        );
        root.skip_rest();
        return None;
    };
    let mut ports = BTreeMap::new();
    for item in root.get("ports").map(|p| p.list()).unwrap_or_default() {
        let object = item.object()?;
        let port_name = object.get("name").and_then(|n| n.text()).unwrap_or_default();
        object.skip(&["protocol", "appProtocol"]);
        ports.insert(port_name, object.required("port")?.port()?);
    }
    let own: BTreeMap<_, _> = labels.into_iter().filter(|(key, _)| !key.contains("kubernetes.io/")).collect();
    let mut endpoints = Vec::new();
    for item in root.required("endpoints")?.list() {
        endpoints.extend(slice_endpoint(&item, &ports, &own));
    }
    Some(Object::EndpointSlice(EndpointSlice { namespace: name.namespace.clone(), service, endpoints }))
}

fn slice_endpoint(
    cursor: &Cursor<'_>,
    ports: &BTreeMap<String, u16>,
    labels: &BTreeMap<String, String>,
) -> Vec<Endpoint> {
    let Some(object) = cursor.object() else { return Vec::new() };
    let conditions = object.get("conditions").and_then(|c| c.object());
    let condition = |name: &str| conditions.as_ref().and_then(|c| c.get(name)).and_then(|c| c.boolean());
    let ready = condition("ready").unwrap_or(true);
    let terminating = condition("terminating").unwrap_or(false);
    let _ = condition("serving");
    let zone = object.get("zone").and_then(|z| z.text()).unwrap_or_default();
    let addresses = object.required("addresses").map(|a| a.list()).unwrap_or_default();
    object.skip_rest();
    addresses
        .iter()
        .filter_map(|a| a.text())
        .filter(|_| !terminating)
        .map(|address| Endpoint {
            address,
            ports: ports.clone(),
            labels: labels.clone(),
            weight: 1,
            locality: if zone.is_empty() { String::new() } else { format!("/{zone}") },
            ready,
        })
        .collect()
}
