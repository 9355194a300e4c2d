//! Gateway.

use serin_model::{Gateway, GatewayServer, Object, ObjectName, Protocol};

use super::{host_filter, labels};
use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let selector = object.get("selector").map(|s| labels(&s)).unwrap_or_default();
    let servers = object.required("servers")?.list().iter().filter_map(read_server).collect();
    Some(Object::Gateway(Gateway { name: name.clone(), selector, servers }))
}

fn read_server(cursor: &Cursor<'_>) -> Option<GatewayServer> {
    let object = cursor.object()?;
    object.skip(&["name"]);
    let hosts = object.required("hosts")?.list().iter().filter_map(host_filter).collect();
    let bind = object.get("bind").and_then(|b| b.text());
    let tls = object.get("tls").and_then(|t| t.object());
    let https_redirect = tls.as_ref().and_then(|t| t.get("httpsRedirect")).and_then(|c| c.boolean()).unwrap_or(false);
    if let Some(tls) = &tls {
        tls.skip_rest();
    }
    let port = object.required("port")?.object()?;
    port.skip(&["name", "targetPort"]);
    let protocol = port.required("protocol")?;
    let text = protocol.text()?;
    let number = port.required("number")?.port()?;
    match Protocol::from_name(&text) {
        Some(p) if p.is_http() => Some(GatewayServer { port: number, bind, hosts, https_redirect }),
        Some(_) => {
            let message = format!("{text} servers are not supported yet: nothing listens on port {number}");
            protocol.report(Code::NoEffectYet, Severity::Warning, message, "other servers of the gateway are used");
            None
        }
        None => {
            protocol.invalid(format!("'{text}' is no protocol"), "use HTTP, HTTP2 or GRPC");
            None
        }
    }
}
