//! The crates that each crate may use. The list is the architecture: an edge that is not in it does not pass.

use std::collections::BTreeMap;
use std::path::Path;

/// A crate, what it may use, and which outside crates are forbidden to it.
const EDGES: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("http1", &[]),
    ("http2", &["http1"]),
    ("telemetry", &[]),
    ("xds", &["http1", "http2", "transport"]),
    ("resources", &["http1"]),
    ("ingest", &["model"]),
    ("translator", &["model", "resources"]),
    ("traffic", &["resources", "http1"]),
    ("delivery", &["model"]),
    ("transport", &["http2"]),
    ("proxy", &["resources", "traffic", "transport", "xds", "http1", "http2", "telemetry"]),
    ("folders", &[]),
    ("pilot", &["folders", "model", "ingest", "translator", "resources", "delivery", "transport", "xds"]),
    ("console", &["folders", "model", "ingest", "delivery", "xds"]),
    ("demo", &["model", "ingest", "transport", "xds"]),
    ("serin", &["proxy", "pilot", "console", "demo"]),
    ("testkit", &["xds"]),
    ("bench", &[]),
];

/// Crates that decide without clock, randomness, files or sockets, and what that forbids them.
pub(super) const PURE: [&str; 8] =
    ["model", "http1", "http2", "ingest", "translator", "traffic", "resources", "delivery"];
const IMPURE_CRATES: [&str; 6] = ["tokio", "hyper", "axum", "tonic", "notify", "socket2"];

/// Looks at every manifest.
pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut manifests = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("crates"))?.flatten() {
        let manifest = entry.path().join("Cargo.toml");
        if manifest.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            manifests.insert(name, std::fs::read_to_string(manifest)?);
        }
    }
    Ok(manifests.iter().flat_map(|(name, text)| check_manifest(name, text)).collect())
}

/// The violations of one manifest. Dev-dependencies may reach the test kit and anything below.
fn check_manifest(name: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(n, _)| *n == name) else {
        return vec![format!("crates/{name}: not in the list of crates in xtask/src/tidy/layers.rs")];
    };
    let mut violations = Vec::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        if section != "[dependencies]" {
            continue;
        }
        let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if let Some(used) = dependency.strip_prefix("serin-")
            && !allowed.contains(&used)
        {
            violations.push(format!("crates/{name}: may not use '{used}' (allowed: {})", allowed.join(", ")));
        }
        if PURE.contains(&name) && IMPURE_CRATES.contains(&dependency) {
            violations.push(format!("crates/{name}: decides without I/O and may not use '{dependency}'"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_edge_is_found() {
        let manifest = "[package]\nname = \"serin-traffic\"\n[dependencies]\nserin-http1.workspace = true\nserin-xds.workspace = true\n";
        assert_eq!(
            check_manifest("traffic", manifest),
            ["crates/traffic: may not use 'xds' (allowed: resources, http1)"]
        );
    }

    #[test]
    fn a_runtime_in_a_pure_crate_is_found() {
        let manifest =
            "[dependencies]\ntokio = { workspace = true }\n[dev-dependencies]\nserin-testkit.workspace = true\n";
        assert_eq!(
            check_manifest("translator", manifest),
            ["crates/translator: decides without I/O and may not use 'tokio'"]
        );
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(check_manifest("helper", "").len(), 1);
    }
}
