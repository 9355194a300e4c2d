//! WorkloadEntry.

use serin_model::{Object, ObjectName, Workload};

use super::service_entry::read_endpoint;
use crate::cursor::Cursor;

/// Reads a `spec`.
pub(crate) fn read(spec: &Cursor<'_>, name: &ObjectName) -> Option<Object> {
    let endpoint = read_endpoint(spec)?;
    if endpoint.address.parse::<std::net::IpAddr>().is_err() {
        spec.invalid(
            format!("address '{}' is not an IP address", endpoint.address),
            "names are only looked up for a ServiceEntry with resolution DNS",
        );
        return None;
    }
    Some(Object::Workload(Workload { name: name.clone(), endpoint }))
}
