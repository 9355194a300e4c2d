//! Gateway.

use serin_model::{Gateway, GatewayListener, Object, ObjectName, Protocol};

use super::{host_filter, labels};
use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let selector = object.get("selector").map(|s| labels(&s)).unwrap_or_default();
    let items = object.required_list("servers")?;
    let listeners: Vec<GatewayListener> = items.iter().filter_map(read_server).collect();
    if listeners.is_empty() && !spec.context.failed() {
        spec.report(
            Code::NoEffectYet,
            Severity::Warning,
            "none of its servers can be served yet: nothing listens for this gateway, and connections are refused",
            "a server with protocol HTTP, HTTP2 or GRPC can be served",
        );
    }
    Some(Object::Gateway(Gateway { name: name.clone(), selector, listeners }))
}

/// Fields of `tls` besides the redirect; they matter where TLS ends, which it does not yet.
const CERTIFICATES: [&str; 17] = [
    "mode",
    "serverCertificate",
    "privateKey",
    "caCertificates",
    "caCrl",
    "credentialName",
    "credentialNames",
    "caCertCredentialName",
    "tlsCertificates",
    "subjectAltNames",
    "verifyCertificateSpki",
    "verifyCertificateHash",
    "minProtocolVersion",
    "maxProtocolVersion",
    "cipherSuites",
    "ecdhCurves",
    "insecureSkipVerify",
];

fn read_server(cursor: &Cursor<'_>) -> Option<GatewayListener> {
    let object = cursor.object()?;
    object.skip(&["name"]);
    object.no_effect_yet(&["defaultEndpoint"]);
    let hosts = object.required_list("hosts")?.iter().filter_map(host_filter).collect();
    let bind = object.get("bind").and_then(|b| b.text());
    let port = object.required("port")?.object()?;
    port.skip(&["name"]);
    port.no_effect_yet(&["targetPort"]);
    let protocol = port.required("protocol")?;
    let text = protocol.text()?;
    let number = port.required("number")?.port()?;
    let served = Protocol::from_name(&text).filter(|p| p.is_http());
    let tls = object.get("tls").and_then(|t| t.object());
    let https_redirect = tls.as_ref().and_then(|t| t.get("httpsRedirect")).and_then(|c| c.boolean()).unwrap_or(false);
    if let Some(tls) = &tls {
        // Where nothing listens it is said once, for the server.
        if let Some(field) = CERTIFICATES.iter().find_map(|name| tls.get(name)).filter(|_| served.is_some()) {
            // Plain text instead would not be what was asked for; Istio refuses the object too.
            field.report(
                Code::NotEnforced,
                Severity::Error,
                format!("a server with protocol {text} speaks no TLS: its tls can only say httpsRedirect"),
                "use protocol HTTPS for a server with certificates",
            );
        }
        tls.skip(&CERTIFICATES);
    }
    match Protocol::from_name(&text) {
        Some(p) if p.is_http() => Some(GatewayListener { port: number, bind, hosts, https_redirect }),
        Some(_) => {
            let message = format!(
                "{text} servers are not supported yet: nothing listens on port {number} for this server, and connections are refused"
            );
            protocol.report(Code::NoEffectYet, Severity::Warning, message, "servers with HTTP, HTTP2 or GRPC are used");
            None
        }
        None if matches!(text.to_ascii_uppercase().as_str(), "UDP" | "SCTP") => {
            let message =
                format!("{text} is no protocol of a Gateway: nothing listens on port {number} for this server");
            protocol.report(Code::NoEffectYet, Severity::Warning, message, "the other servers are used");
            None
        }
        None => {
            protocol.invalid(format!("'{text}' is no protocol"), "use HTTP, HTTP2 or GRPC");
            None
        }
    }
}
