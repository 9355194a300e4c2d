//! Kubernetes Service and EndpointSlice.

use std::collections::BTreeMap;

use serin_model::{
    DOMAIN, Endpoint, EndpointSlice, Hostname, Object, ObjectName, Port, Protocol, Resolution, Service, TargetPort,
};

use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};
use crate::lower::istio::{labels, no_route};

/// Reads a Service's `spec`.
pub(crate) fn service(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let host = match Hostname::parse(&format!("{}.{}.svc.{DOMAIN}", name.name, name.namespace)) {
        Ok(host) => host,
        Err(error) => {
            spec.invalid(error.to_string(), "");
            return None;
        }
    };
    let ports = service_ports(&object, &host);
    let alias = alias(&object, &ports, &host);
    without_effect(&object);
    let selector = object.get("selector").map(|s| labels(&s)).filter(|_| alias.is_none());
    let unready = object.get("publishNotReadyAddresses").and_then(|p| p.boolean()).unwrap_or_default();
    Some(Object::Services(vec![Service {
        host,
        namespace: name.namespace.clone(),
        ports,
        resolution: if alias.is_some() { Resolution::Dns } else { Resolution::Static },
        endpoints: alias.into_iter().collect(),
        selector,
        export_to: None,
        publishes_unready: unready,
        external: false,
        certificate_names: Vec::new(),
    }]))
}

/// The name that a Service of type ExternalName stands for.
fn alias(object: &Fields<'_>, ports: &[Port], host: &Hostname) -> Option<Endpoint> {
    let kind = object.get("type")?;
    match kind.text()?.as_str() {
        "ClusterIP" | "NodePort" | "LoadBalancer" => return None,
        "ExternalName" => {}
        other => {
            kind.invalid(
                format!("'{other}' is no type of a Service"),
                "use ClusterIP, NodePort, LoadBalancer or ExternalName",
            );
            return None;
        }
    }
    let external = object.required("externalName")?;
    let text = external.text()?;
    if let Err(error) = Hostname::parse(&text) {
        external.invalid(error.to_string(), "");
    }
    if ports.is_empty() {
        let message = format!("it has no port, so requests to {host} are not routed and are answered 502");
        kind.report(Code::NoEffectYet, Severity::Warning, message, "name its ports");
    }
    Some(Endpoint::named(text))
}

/// Fields that Kubernetes itself carries out, or nobody does; their neutral values are not worth a word.
fn without_effect(object: &Fields<'_>) {
    let warn = |field: &str, neutral: &[&str], what: &str| {
        let Some(at) = object.get(field).filter(|at| at.peek_text().is_none_or(|t| !neutral.contains(&t))) else {
            return;
        };
        at.report(Code::NoEffectYet, Severity::Warning, format!("'{field}' has no effect: {what}"), "");
    };
    warn(
        "sessionAffinity",
        &["None"],
        "requests are balanced one by one; a DestinationRule with consistentHash.useSourceIp keeps clients with an instance",
    );
    warn("internalTrafficPolicy", &["Cluster"], "requests may go to instances on other nodes");
    warn("trafficDistribution", &[], "instances near the client are not preferred");
    let others = [
        "allocateLoadBalancerNodePorts",
        "clusterIP",
        "clusterIPs",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "sessionAffinityConfig",
    ];
    let set: Vec<&str> = others.into_iter().filter(|field| object.get(field).is_some()).collect();
    if !set.is_empty() {
        object.note(format!("{} concern Kubernetes alone: requests are routed by host name here", set.join(", ")));
    }
    if object.get("type").is_none() {
        let _ = object.get("externalName").map(|at| at.invalid("only for type ExternalName", ""));
    }
}

/// The ports that requests are routed to.
fn service_ports(object: &Fields<'_>, host: &Hostname) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for item in object.list("ports") {
        let Some(Some(port)) = service_port(&item, host) else { continue };
        if ports.iter().any(|p| p.number == port.number) {
            let message = format!("port {} is there already, with the same protocol", port.number);
            item.report(Code::Duplicate, Severity::Error, message, "each port of a protocol has a number of its own");
            continue;
        }
        ports.push(port);
    }
    ports
}

/// A port; the inner `None` is one that carries no streams of bytes.
fn service_port(cursor: &Cursor<'_>, host: &Hostname) -> Option<Option<Port>> {
    let object = cursor.object()?;
    if object.get("nodePort").is_some() {
        object.note("nodePort concerns Kubernetes alone: requests are routed by host name here");
    }
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
    if !is_tcp(&object)? {
        let protocol = object.get("protocol");
        let message = format!("port {number} of {host} is no TCP port: the mesh does not touch what is sent to it");
        protocol.as_ref().unwrap_or(cursor).report(Code::NoEffectYet, Severity::Info, message, "");
        return Some(None);
    }
    let protocol = protocol(app.as_deref(), &name, number);
    if let Some(app) = app.as_deref().filter(|app| named(app).is_none()) {
        object.note(format!(
            "appProtocol '{app}' is not known here, so the port's name and number decide: it speaks {protocol:?}"
        ));
    }
    if !protocol.is_http() {
        no_route(cursor, number, host);
    }
    Some(Some(Port { number, protocol, name, target }))
}

/// Whether a port carries TCP; `None` when its protocol is none.
fn is_tcp(object: &Fields<'_>) -> Option<bool> {
    let Some(at) = object.get("protocol") else { return Some(true) };
    match at.text()?.as_str() {
        "TCP" => Some(true),
        "UDP" | "SCTP" => Some(false),
        other => {
            at.invalid(format!("'{other}' is no protocol"), "use TCP, UDP or SCTP");
            None
        }
    }
}

/// Istio's choice: `appProtocol`, then the port's name up to the dash, then well-known ports, then HTTP.
fn protocol(app: Option<&str>, name: &str, number: u16) -> Protocol {
    let from_app = app.and_then(named);
    from_app.or_else(|| Protocol::from_name(name)).unwrap_or(match number {
        25 | 53 | 3306 | 27017 => Protocol::Tcp,
        _ => Protocol::Http,
    })
}

fn named(app: &str) -> Option<Protocol> {
    match app {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Tcp),
        other => Protocol::from_name(other),
    }
}

/// Reads an EndpointSlice; labels of its metadata become labels of its endpoints, since there are no pods to ask.
pub(crate) fn endpoint_slice(document: &Cursor<'_>, root: &Fields<'_>, name: &ObjectName) -> Option<Object> {
    if let Some(kind) = root.get("addressType")
        && let Some(text) = kind.text()
        && !["IPv4", "IPv6"].contains(&text.as_str())
    {
        kind.invalid(format!("endpoints of type '{text}' are not read"), "use IPv4 or IPv6");
    }
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
    for item in root.list("ports") {
        let object = item.object()?;
        let port_name = object.get("name").and_then(|n| n.text()).unwrap_or_default();
        object.skip(&["appProtocol"]);
        let number = object.get("port");
        if number.is_none() {
            object.note("a port without a number stands for all, which are not routed");
            continue;
        }
        let number = number?.port()?;
        if is_tcp(&object)? {
            ports.insert(port_name, number);
        }
    }
    let own: BTreeMap<_, _> = labels.into_iter().filter(|(key, _)| !key.contains("kubernetes.io/")).collect();
    let mut endpoints = Vec::new();
    for item in root.required_list("endpoints")? {
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
    // Nothing said is ready (the reference page of EndpointConditions).
    let ready = condition("ready").unwrap_or(true);
    let terminating = condition("terminating").unwrap_or(false);
    // Those that end and serve still are for services without others, which is not asked here.
    let _ = condition("serving");
    let zone = object.get("zone").and_then(|z| z.text()).unwrap_or_default();
    let addresses = object.required_list("addresses").unwrap_or_default();
    let others = ["hints", "hostname", "nodeName", "targetRef", "deprecatedTopology"];
    let set: Vec<&str> = others.into_iter().filter(|field| object.get(field).is_some()).collect();
    if !set.is_empty() {
        object.note(format!("{} say nothing of how requests are routed here", set.join(", ")));
    }
    let mut endpoints = Vec::new();
    for at in addresses {
        let Some(address) = at.text() else { continue };
        if address.parse::<std::net::IpAddr>().is_err() {
            at.invalid(
                format!("'{address}' is not an IP address"),
                "names are looked up for a ServiceEntry with resolution DNS",
            );
        } else if !terminating {
            endpoints.push(Endpoint {
                ports: ports.clone(),
                labels: labels.clone(),
                locality: if zone.is_empty() { String::new() } else { format!("/{zone}") },
                ready,
                // Pods have labels that slices do not tell.
                is_partly_known: true,
                ..Endpoint::named(address)
            });
        }
    }
    endpoints
}
