//! Gateway.

use serin_model::{
    ClientCheck, Gateway, GatewayListener, ListenerTls, Object, ObjectName, Protocol, ServerTls, TlsVersion,
};

use super::{host_filter, labels};
use crate::cursor::{Cursor, Object as Fields};
use crate::diagnostic::{Code, Severity};

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let object = spec.object()?;
    let selector = object.get("selector").map(|s| labels(&s)).unwrap_or_default();
    let items = object.required_list("servers")?;
    let mut listeners: Vec<GatewayListener> = Vec::new();
    for item in &items {
        let Some(listener) = read_server(item) else { continue };
        if let Some(why) = listeners.iter().find_map(|before| conflict(before, &listener)) {
            item.report(Code::NoEffectYet, Severity::Warning, why, "use another port or other hosts");
        }
        if !listener.name.is_empty() && listeners.iter().any(|before| before.name == listener.name) {
            let message =
                format!("an earlier server has a port of the name '{}' too: Istio rejects the Gateway", listener.name);
            item.report(Code::Duplicate, Severity::Warning, message, "give each port a name of its own");
        }
        listeners.push(listener);
    }
    let serves = |listener: &GatewayListener| listener.tls != Some(ListenerTls::NotCarriedOut);
    if !listeners.iter().any(serves) && !spec.context.failed() {
        spec.report(
            Code::NoEffectYet,
            Severity::Warning,
            "none of its servers can be served yet: nothing listens for this gateway, and connections are refused",
            "a server with protocol HTTP, HTTP2, GRPC or HTTPS can be served",
        );
    }
    Some(Object::Gateway(Gateway { name: name.clone(), selector, listeners }))
}

/// Why a server does not do all that it says beside an earlier one of the same port; the translator finds the same between Gateways.
fn conflict(earlier: &GatewayListener, server: &GatewayListener) -> Option<String> {
    if earlier.port != server.port {
        return None;
    }
    if earlier.tls.is_some() != server.tls.is_some() {
        let what = if earlier.tls.is_some() { "speaks TLS" } else { "speaks no TLS" };
        return Some(format!("nothing is served here: an earlier server of port {} {what}", server.port));
    }
    let mut shared = server.hosts.iter().filter(|_| server.tls.is_some());
    let shared = shared.find(|host| earlier.hosts.iter().any(|other| other.host == host.host))?;
    Some(format!("'{}' is not served here: an earlier server of port {} has the host", shared.host, server.port))
}

/// Fields of `tls` besides the redirect; they matter where TLS ends.
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
    let name = port.get("name").and_then(|name| name.text()).unwrap_or_default();
    port.no_effect_yet(&["targetPort"]);
    let protocol = port.required("protocol")?;
    let text = protocol.text()?;
    let number = port.required("number")?.port()?;
    let served = Protocol::from_name(&text).filter(|p| p.is_http());
    let settings = object.get("tls");
    let tls = settings.as_ref().and_then(|t| t.object());
    let redirect = tls.as_ref().and_then(|t| t.get("httpsRedirect"));
    let https_redirect = redirect.as_ref().and_then(Cursor::boolean).unwrap_or(false);
    let listener = |tls| GatewayListener { port: number, name, bind, hosts, https_redirect, tls };
    if text.eq_ignore_ascii_case("HTTPS") {
        let Some((at, tls)) = settings.as_ref().zip(tls.as_ref()) else {
            cursor.invalid("a server with protocol HTTPS needs tls", "say its mode and its certificate");
            return None;
        };
        if let Some(redirect) = redirect.filter(|_| https_redirect) {
            redirect.invalid("httpsRedirect is for servers with protocol HTTP", "take it away");
            return None;
        }
        return read_tls(at, tls, number).map(|tls| listener(Some(tls)));
    }
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
        Some(p) if p.is_http() => Some(listener(None)),
        Some(Protocol::Tcp) if text.eq_ignore_ascii_case("TLS") => {
            let message =
                format!("{text} servers are not supported yet: connections to port {number} for its hosts are refused");
            protocol.report(
                Code::NoEffectYet,
                Severity::Warning,
                message,
                "servers with HTTP, HTTP2, GRPC or HTTPS are used",
            );
            Some(listener(Some(ListenerTls::NotCarriedOut)))
        }
        Some(_) => {
            let message = format!(
                "{text} servers are not supported yet: nothing listens on port {number} for this server, and connections are refused"
            );
            protocol.report(
                Code::NoEffectYet,
                Severity::Warning,
                message,
                "servers with HTTP, HTTP2, GRPC or HTTPS are used",
            );
            None
        }
        None if matches!(text.to_ascii_uppercase().as_str(), "UDP" | "SCTP") => {
            let message =
                format!("{text} is no protocol of a Gateway: nothing listens on port {number} for this server");
            protocol.report(Code::NoEffectYet, Severity::Warning, message, "the other servers are used");
            None
        }
        None => {
            protocol.invalid(format!("'{text}' is no protocol"), "use HTTP, HTTP2, GRPC or HTTPS");
            None
        }
    }
}

/// Fields of `tls` that are not carried out: a server with one of them does not listen.
const NOT_YET: [&str; 9] = [
    "credentialName",
    "credentialNames",
    "caCertCredentialName",
    "tlsCertificates",
    "verifyCertificateSpki",
    "verifyCertificateHash",
    "cipherSuites",
    "ecdhCurves",
    "insecureSkipVerify",
];

/// Reads the `tls` of a server where it ends (Istio: `validateServer`, `validateTLSOptions`).
fn read_tls(cursor: &Cursor<'_>, tls: &Fields<'_>, port: u16) -> Option<ListenerTls> {
    let text = |name: &str| tls.get(name).and_then(|field| field.line()).filter(|text| !text.is_empty());
    let [certificate, key, authorities, revoked] =
        ["serverCertificate", "privateKey", "caCertificates", "caCrl"].map(text);
    let names: Vec<String> = tls.list("subjectAltNames").iter().filter_map(|name| name.line()).collect();
    let version = |name: &str| tls.get(name).map_or(Some(None), |at| read_version(&at, name == "minProtocolVersion"));
    let versions = [version("minProtocolVersion"), version("maxProtocolVersion")];
    let mode = tls.get("mode").and_then(|mode| mode.text()).unwrap_or_else(|| "PASSTHROUGH".to_owned());
    let refuses = |at: &Cursor<'_>, what: &str| {
        let message = format!(
            "{what} is not carried out yet: connections to port {port} for the hosts of this server are refused"
        );
        at.report(Code::NoEffectYet, Severity::Warning, message, "name the files of a certificate and its key");
    };
    let not_yet: Vec<(&str, Cursor<'_>)> =
        NOT_YET.iter().filter_map(|name| tls.get(name).map(|at| (*name, at))).collect();
    tls.skip(&NOT_YET);
    for (name, at) in &not_yet {
        refuses(at, name);
    }
    match mode.as_str() {
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL" if !not_yet.is_empty() => return Some(ListenerTls::NotCarriedOut),
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL" => {}
        "PASSTHROUGH" | "AUTO_PASSTHROUGH" | "ISTIO_MUTUAL" => {
            refuses(cursor, &format!("TLS in mode {mode}"));
            return Some(ListenerTls::NotCarriedOut);
        }
        other => {
            cursor.invalid(format!("'{other}' is no TLS mode"), "use SIMPLE, MUTUAL or OPTIONAL_MUTUAL");
            return None;
        }
    }
    let Some((certificate, key)) = certificate.zip(key) else {
        cursor.invalid(format!("mode {mode} needs serverCertificate and privateKey"), "name the files of both");
        return None;
    };
    let clients = match (mode.as_str(), authorities) {
        ("SIMPLE", authorities) => {
            if authorities.is_some() || revoked.is_some() || !names.is_empty() {
                cursor.report(
                    Code::NoEffectYet,
                    Severity::Warning,
                    "mode SIMPLE asks clients for no certificate, whatever caCertificates, caCrl and subjectAltNames say, as in Istio",
                    "use MUTUAL or OPTIONAL_MUTUAL to ask for one",
                );
            }
            None
        }
        (_, None) => {
            cursor.invalid(format!("mode {mode} needs caCertificates"), "name the file of trusted authorities");
            return None;
        }
        (mode, Some(authorities)) => Some(ClientCheck { required: mode == "MUTUAL", authorities, revoked, names }),
    };
    let [oldest, newest] = versions;
    let versions = [oldest?, newest?];
    if let [_, Some(newest)] = versions
        && versions[0].is_some_and(|oldest| oldest > newest)
    {
        cursor.invalid("minProtocolVersion is above maxProtocolVersion", "");
        return None;
    }
    Some(ListenerTls::On(Box::new(ServerTls { certificate, key, clients, versions })))
}

/// Reads the oldest or the newest version; the inner `None` leaves it to the proxy. Versions before 1.2 are never spoken.
fn read_version(cursor: &Cursor<'_>, is_oldest: bool) -> Option<Option<TlsVersion>> {
    match cursor.text()?.as_str() {
        "TLS_AUTO" => Some(None),
        "TLSV1_2" => Some(Some(TlsVersion::V12)),
        "TLSV1_3" => Some(Some(TlsVersion::V13)),
        old @ ("TLSV1_0" | "TLSV1_1") if is_oldest => {
            let message = format!("{old} is not spoken: clients need TLS 1.2");
            cursor.report(Code::NoEffectYet, Severity::Warning, message, "use TLSV1_2 or TLSV1_3");
            Some(None)
        }
        old @ ("TLSV1_0" | "TLSV1_1") => {
            cursor.invalid(format!("{old} is not spoken: TLS 1.2 is the oldest version"), "use TLSV1_2 or TLSV1_3");
            None
        }
        other => {
            cursor.invalid(format!("'{other}' is no version of TLS"), "use TLS_AUTO, TLSV1_2 or TLSV1_3");
            None
        }
    }
}
