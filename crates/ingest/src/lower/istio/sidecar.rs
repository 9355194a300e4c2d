//! Sidecar: what one workload's proxy listens to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serin_model::{EgressListener, IngressListener, Object, ObjectName, Protocol, Sidecar};

use super::{host_filter, workload_selector};
use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    object.no_effect_yet(&["inboundConnectionPool"]);
    if let Some(policy) = object.get("outboundTrafficPolicy") {
        outbound_policy(&policy);
    }
    let selector = object.get("workloadSelector").and_then(|s| workload_selector(&s)).unwrap_or_default();
    let ingress: Vec<_> = object.list("ingress").iter().filter_map(read_ingress).collect();
    let egress = object.get("egress").map(|e| e.list().iter().filter_map(read_egress).collect());
    Some(Object::Sidecar(Sidecar { name: name.clone(), selector, ingress, egress }))
}

/// Hosts that no service has are not reached, whatever is said.
fn outbound_policy(cursor: &Cursor<'_>) {
    let Some(object) = cursor.object() else { return };
    object.no_effect_yet(&["egressProxy"]);
    let Some(mode) = object.get("mode") else { return };
    match mode.text().as_deref() {
        Some("REGISTRY_ONLY") | None => {}
        Some("ALLOW_ANY") => mode.report(
            Code::NoEffectYet,
            Severity::Warning,
            "ALLOW_ANY has no effect yet: requests to hosts that no service has are answered 502",
            "declare the host with a ServiceEntry",
        ),
        Some(other) => mode.invalid(format!("'{other}' is no mode"), "use REGISTRY_ONLY or ALLOW_ANY"),
    }
}

/// A listener for another protocol than HTTP is left out, so that nothing is reached by it.
fn left_out(cursor: &Cursor<'_>, port: u16) {
    cursor.report(
        Code::NoEffectYet,
        Severity::Warning,
        format!("only HTTP listeners are supported yet: nothing listens on port {port} for this one"),
        "the rest of the object is used",
    );
}

fn read_ingress(cursor: &Cursor<'_>) -> Option<IngressListener> {
    let object = cursor.object()?;
    object.no_effect_yet(&["connectionPool"]);
    let refused = object.get("tls").map(|tls| {
        tls.report(
            Code::NotEnforced,
            Severity::Warning,
            "TLS of this listener is not carried out yet: requests to it are refused (503) until it is",
            "take the field away, or start the pilot with --allow-unenforced-policies to take plain text",
        );
        format!("TLS on {} of a Sidecar is not carried out yet", cursor.path())
    });
    capture_mode(&object);
    let bind = bind_address(&object);
    let (port, protocol) = read_port(&object.required("port")?)?;
    let application = match object.get("defaultEndpoint") {
        None => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        Some(at) => {
            let text = at.text()?;
            let parsed = text.parse::<SocketAddr>().ok();
            if parsed.is_none() {
                at.invalid(format!("'{text}' is not IP:PORT"), "such as 127.0.0.1:8080");
            }
            parsed?
        }
    };
    if !protocol.is_http() {
        left_out(cursor, port);
        return None;
    }
    Some(IngressListener { port, bind, protocol, application, refused })
}

fn read_egress(cursor: &Cursor<'_>) -> Option<EgressListener> {
    let object = cursor.object()?;
    capture_mode(&object);
    let hosts = object.required_list("hosts")?.iter().filter_map(host_filter).collect();
    let bind = bind_address(&object);
    let Some(port) = object.get("port") else {
        if let Some(at) = object.get("bind") {
            at.report(Code::NoEffectYet, Severity::Warning, "'bind' has no effect without a port", "add port");
        }
        return Some(EgressListener { listen: None, any_port: true, hosts });
    };
    let any_port =
        port.peek("protocol").and_then(|p| p.peek_text()).is_some_and(|p| p.eq_ignore_ascii_case("http_proxy"));
    let (number, protocol) = read_port(&port)?;
    if !protocol.is_http() {
        left_out(cursor, number);
        return None;
    }
    let ip = bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Some(EgressListener { listen: Some(SocketAddr::new(ip, number)), any_port, hosts })
}

fn bind_address(object: &Fields<'_>) -> Option<IpAddr> {
    let at = object.get("bind")?;
    let text = at.text()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        at.invalid(format!("'{text}' is not an IP address"), "");
    }
    parsed
}

/// Nothing is captured by address rewriting yet; listeners that rely on it are said to be bound instead.
fn capture_mode(object: &Fields<'_>) {
    let Some(at) = object.get("captureMode") else { return };
    match at.text().as_deref() {
        Some("NONE") | None => {}
        Some("DEFAULT" | "IPTABLES") => at.report(
            Code::NoEffectYet,
            Severity::Warning,
            "traffic is not captured yet: the proxy listens on the port instead",
            "use captureMode: NONE",
        ),
        Some(other) => at.invalid(format!("'{other}' is no capture mode"), "use NONE"),
    }
}

fn read_port(cursor: &Cursor<'_>) -> Option<(u16, Protocol)> {
    let object = cursor.object()?;
    object.skip(&["name"]);
    object.no_effect_yet(&["targetPort"]);
    let protocol = object.required("protocol")?;
    let text = protocol.text()?;
    let found = Protocol::from_name(&text);
    if found.is_none() {
        protocol.invalid(format!("'{text}' is no protocol"), "use HTTP, HTTP2, GRPC or HTTP_PROXY");
    }
    Some((object.required("number")?.port()?, found?))
}
