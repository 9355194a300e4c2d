//! Traefik: a router and a service from a file.

use std::path::Path;

use serde_json::json;

use crate::case::{Job, Setup, Wire};

/// The command's arguments; the file with router and service is written to `scratch`.
pub(crate) fn arguments(job: Job, setup: Setup, scratch: &Path) -> std::io::Result<Vec<String>> {
    let scheme = if setup.back.is_h2() { "h2c" } else { "http" };
    let dynamic = if setup.front == Wire::Tcp {
        json!({"tcp": {
            "routers": {"all": {"rule": "HostSNI(`*`)", "service": "backend", "entryPoints": ["web"]}},
            "services": {"backend": {"loadBalancer": {"servers": [{"address": job.upstream.to_string()}]}}}}})
    } else {
        json!({"http": {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "backend", "entryPoints": ["web"]}},
            "serversTransports": {"kept": {"maxIdleConnsPerHost": 512}},
            "services": {"backend": {"loadBalancer": {"serversTransport": "kept",
                "servers": [{"url": format!("{scheme}://{}", job.upstream)}]}}}}})
    };
    let file = scratch.join("traefik-routes.yaml");
    // YAML is a superset of JSON.
    std::fs::write(&file, dynamic.to_string())?;
    Ok(vec![
        format!("--entryPoints.web.address={}", job.listen),
        format!("--providers.file.filename={}", file.display()),
        "--providers.file.watch=false".to_owned(),
        "--global.checkNewVersion=false".to_owned(),
        "--global.sendAnonymousUsage=false".to_owned(),
        "--log.level=FATAL".to_owned(),
        "--accessLog=false".to_owned(),
    ])
}
