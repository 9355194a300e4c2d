//! Documents in, resources and diagnostics out: every folder of `golden/` is a case.
//!
//! `in.yaml` names the proxies to translate for in comments (`# proxy: NODE-ID KEY=VALUE,...`), and the step that releases are at. The outputs are
//! protobuf JSON. `UPDATE=1 cargo test -p serin-translator` rewrites them. With `SERIN_TEST_ENVOY` every output is also
//! put to real Envoy's `--mode validate`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use serin_delivery::{Status, Target, overlay};
use serin_ingest::{check, parse};
use serin_model::{Hostname, Labels, MeshSnapshot, Overlay, ProxyIdentity};
use serin_resources::{Audit, Cluster, Listener, LoadAssignment, RouteConfiguration};
use serin_translator::{ResourceSet, translate};

#[test]
fn every_case_yields_what_it_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8, "only {} cases", cases.len());
    let pool = DescriptorPool::decode(&include_bytes!("../../proxy/descriptors.bin")[..]).unwrap();
    let mut differences = Vec::new();
    for case in &cases {
        run(case, &pool, &mut differences);
    }
    assert!(differences.is_empty(), "run with UPDATE=1 when these are meant:\n{}", differences.join("\n"));
}

fn run(case: &Path, pool: &DescriptorPool, differences: &mut Vec<String>) {
    let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
    let parsed = parse("in.yaml", &text);
    let checked = check(parsed.documents.iter());
    let found: Vec<String> = parsed.diagnostics.iter().chain(&checked.diagnostics).map(ToString::to_string).collect();
    compare(&case.join("diagnostics.txt"), &format!("{}\n", found.join("\n")), differences);
    let sound = parsed.documents.iter().filter(|d| !checked.dangling.contains(&d.key));
    let mesh = MeshSnapshot::build(sound.map(|d| (d.key.clone(), (d.object.clone(), d.provenance.clone()))).collect());
    let overlays = overlays(&mesh, &text);
    let mesh = mesh.with_overlays(overlays);
    for (name, identity) in proxies(&text) {
        let set = translate(&mesh, &identity);
        assert_decodes(&set);
        let json = to_json(&set, pool);
        for (kind, list) in &json {
            let shown = format!("{}\n", serde_json::to_string_pretty(list).unwrap());
            compare(&case.join(format!("out.{name}.{kind}.json")), &shown, differences);
        }
        if let Some(envoy) = std::env::var_os("SERIN_TEST_ENVOY") {
            validate(Path::new(&envoy), case, &json);
        }
    }
}

/// What releases make of routes at the step that the case is about (`# release at step: N`, from 1), and of rules that name what
/// was stable before (`# stable before: VERSION`).
fn overlays(mesh: &MeshSnapshot, text: &str) -> BTreeMap<Hostname, Overlay> {
    let Some(step) = text.lines().find_map(|l| l.strip_prefix("# release at step: ")) else { return BTreeMap::new() };
    let target = Target::Step(step.parse::<usize>().unwrap() - 1);
    let former = text.lines().filter_map(|l| l.strip_prefix("# stable before: "));
    let former = former.map(|v| Labels::from([("version".to_owned(), v.to_owned())])).collect();
    let status = Status { target, former, ..Status::default() };
    mesh.releases().filter_map(|r| Some((r.host.clone(), overlay(r, &status)?))).collect()
}

fn compare(file: &Path, actual: &str, differences: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected != actual {
        let line = expected.lines().zip(actual.lines()).position(|(a, b)| a != b).unwrap_or(0);
        differences.push(format!("{}:{}: {}", file.display(), line + 1, actual.lines().nth(line).unwrap_or_default()));
    }
}

/// The proxies named in comments.
fn proxies(text: &str) -> Vec<(String, ProxyIdentity)> {
    let lines = text.lines().filter_map(|l| l.strip_prefix("# proxy: "));
    lines
        .map(|line| {
            let (node, labels) = line.split_once(' ').unwrap_or((line, ""));
            let pairs = labels.split(',').filter_map(|p| p.split_once('='));
            let labels: Labels = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let identity = ProxyIdentity::parse(node, labels).unwrap();
            (identity.name.name.clone(), identity)
        })
        .collect()
}

/// What is encoded must mean the same when it is decoded, with nothing ignored.
fn assert_decodes(set: &ResourceSet) {
    let mut audit = Audit::default();
    for cluster in &set.clusters {
        // Where loads go is said to gRPC alone; proxies are told in their bootstraps.
        let reports_loads = cluster.reports_loads;
        let decoded = Cluster { reports_loads, ..Cluster::decode(&cluster.encode(), &mut audit).unwrap() };
        assert_eq!(&decoded, cluster);
    }
    for listener in &set.listeners {
        assert_eq!(&Listener::decode(&listener.encode(), &mut audit).unwrap().address, &listener.address);
    }
    for routes in &set.routes {
        assert_eq!(&RouteConfiguration::decode(&routes.encode(), &mut audit).unwrap(), routes);
    }
    for assignment in &set.endpoints {
        assert_eq!(&LoadAssignment::decode(&assignment.encode(), &mut audit).unwrap(), assignment);
    }
    audit.ignored.retain(|field| !field.ends_with("lrs_server") || set.api_listeners.is_empty());
    assert_eq!(audit.ignored, Vec::<String>::new());
}

fn to_json(set: &ResourceSet, pool: &DescriptorPool) -> BTreeMap<&'static str, Vec<Value>> {
    let decode = |name: &str, bytes: Vec<u8>| -> Value {
        let message = DynamicMessage::decode(pool.get_message_by_name(name).unwrap(), bytes.as_slice()).unwrap();
        let options = SerializeOptions::new().use_proto_field_name(true);
        message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
    };
    let for_grpc = set.api_listeners.iter().map(serin_resources::ApiListener::encode);
    let listeners = set.listeners.iter().map(Listener::encode).chain(for_grpc);
    BTreeMap::from([
        ("clusters", set.clusters.iter().map(|c| decode("envoy.config.cluster.v3.Cluster", c.encode())).collect()),
        ("listeners", listeners.map(|l| decode("envoy.config.listener.v3.Listener", l)).collect()),
        ("routes", set.routes.iter().map(|r| decode("envoy.config.route.v3.RouteConfiguration", r.encode())).collect()),
        (
            "endpoints",
            set.endpoints
                .iter()
                .map(|e| decode("envoy.config.endpoint.v3.ClusterLoadAssignment", e.encode()))
                .collect(),
        ),
    ])
}

/// One bootstrap with everything inline, so that Envoy looks at all of it.
fn validate(envoy: &Path, case: &Path, json: &BTreeMap<&'static str, Vec<Value>>) {
    let mut clusters = json["clusters"].clone();
    for cluster in clusters.iter_mut().filter(|c| c["type"] == "EDS") {
        let name = cluster["name"].clone();
        let endpoints = json["endpoints"].iter().find(|e| e["cluster_name"] == name).cloned();
        let map = cluster.as_object_mut().unwrap();
        map.remove("eds_cluster_config");
        map.insert("type".to_owned(), "STATIC".into());
        map.insert("load_assignment".to_owned(), endpoints.unwrap_or(json!({"cluster_name": name})));
    }
    let mut listeners = json["listeners"].clone();
    listeners.retain(|l| l["api_listener"].is_null());
    for listener in &mut listeners {
        let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
        let Some(name) = manager["rds"]["route_config_name"].as_str().map(str::to_owned) else { continue };
        let routes = json["routes"].iter().find(|r| r["name"] == name.as_str()).cloned().unwrap();
        let map = manager.as_object_mut().unwrap();
        map.remove("rds");
        map.insert("route_config".to_owned(), routes);
    }
    let bootstrap = json!({"static_resources": {"clusters": clusters, "listeners": listeners}});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let output = Command::new(envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: Envoy says: {text}", case.display());
}
