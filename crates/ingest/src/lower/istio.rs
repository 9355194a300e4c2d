//! The kinds of `networking.istio.io`, one file each, and what they share.

pub(crate) mod destination_rule;
pub(crate) mod fault;
pub(crate) mod gateway;
pub(crate) mod http_match;
pub(crate) mod mesh_config;
mod retries;
pub(crate) mod route_headers;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod virtual_service;
pub(crate) mod workload_entry;

use serin_model::{Attachment, HostFilter, Hostname, Labels, ObjectName};

use crate::cursor::Cursor;
use crate::diagnostic::{Code, Severity};

/// A map of strings.
pub(crate) fn labels(cursor: &Cursor<'_>) -> Labels {
    cursor.entries().into_iter().filter_map(|(key, value)| Some((key, value.text()?))).collect()
}

/// `{labels: {…}}`.
pub(crate) fn workload_selector(cursor: &Cursor<'_>) -> Option<Labels> {
    let object = cursor.object()?;
    Some(object.get("labels").map(|l| labels(&l)).unwrap_or_default())
}

/// A host name as written in the object's namespace.
pub(crate) fn host(cursor: &Cursor<'_>) -> Option<Hostname> {
    let text = cursor.text()?;
    match Hostname::resolve(&text, &cursor.context.namespace()) {
        Ok(host) => Some(host),
        Err(error) => {
            cursor.invalid(error.to_string(), "");
            None
        }
    }
}

/// `exportTo`: `None` is everybody.
pub(crate) fn export_to(cursor: Option<Cursor<'_>>) -> Option<Vec<String>> {
    let cursor = cursor?;
    let mut namespaces = Vec::new();
    for item in cursor.list() {
        match item.text()?.as_str() {
            "*" => return None,
            "." => namespaces.push(cursor.context.namespace()),
            "~" => {}
            other => namespaces.push(other.to_owned()),
        }
    }
    Some(namespaces)
}

/// `mesh`, `name`, `namespace/name` or `./name`.
pub(crate) fn gateway_ref(cursor: &Cursor<'_>) -> Option<Attachment> {
    let text = cursor.text()?;
    if text == "mesh" {
        return Some(Attachment::Mesh);
    }
    let own = cursor.context.namespace();
    let (namespace, name) = match text.split_once('/') {
        Some((".", name)) => (own, name),
        Some((namespace, name)) => (namespace.to_owned(), name),
        None => (own, text.as_str()),
    };
    Some(Attachment::Gateway(ObjectName { namespace, name: name.to_owned() }))
}

/// `namespace/host`, where the namespace may be `*`, `.` or left out.
pub(crate) fn host_filter(cursor: &Cursor<'_>) -> Option<HostFilter> {
    let text = cursor.text()?;
    let own = cursor.context.namespace();
    let (namespace, name) = match text.split_once('/') {
        Some(("*", name)) => (None, name),
        Some((".", name)) => (Some(own.clone()), name),
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, text.as_str()),
    };
    let scope = namespace.clone().unwrap_or(own);
    let parsed = if namespace.is_none() && !name.contains('.') && name != "*" {
        Hostname::parse(name)
    } else {
        Hostname::resolve(name, &scope)
    };
    match parsed {
        Ok(host) => Some(HostFilter { namespace, host }),
        Err(error) => {
            cursor.invalid(error.to_string(), "write NAMESPACE/HOST, where either may be '*'");
            None
        }
    }
}

/// Says that connections to a port are not carried.
pub(crate) fn no_route(cursor: &Cursor<'_>, number: u16, host: &Hostname) {
    cursor.report(
        Code::NoEffectYet,
        Severity::Warning,
        format!("port {number} of {host} does not speak HTTP: connections to it are not carried yet, and no rule applies to them"),
        "clients reach its instances without the proxy; a port that speaks HTTP is named http, http2 or grpc, or says appProtocol",
    );
}
