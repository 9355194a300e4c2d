//! Caddy: its JSON configuration, without the admin interface and without certificates.

use serde_json::{Value, json};

use crate::case::{Job, Setup};

/// The configuration.
pub(crate) fn config(job: Job, setup: Setup) -> Value {
    let versions = if setup.back.is_h2() { json!(["h2c"]) } else { json!(["1.1"]) };
    let proxy = json!({
        "handler": "reverse_proxy",
        "upstreams": [{"dial": job.upstream.to_string()}],
        "transport": {"protocol": "http", "versions": versions, "keep_alive": {"max_idle_conns_per_host": 512}},
    });
    json!({
        "admin": {"disabled": true, "config": {"persist": false}},
        "logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
        "apps": {"http": {"servers": {"bench": {
            "listen": [job.listen.to_string()],
            "protocols": ["h1", "h2c"],
            "automatic_https": {"disable": true},
            "routes": [{"handle": [proxy]}],
        }}}},
    })
}
