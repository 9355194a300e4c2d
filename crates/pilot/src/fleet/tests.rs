//! Maps made part by part must be equal to those made at once, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serin_delivery::{Status, Target, overlay};
use serin_ingest::parse;
use serin_model::{Hostname, MeshSnapshot, Object, ObjectKey, Objects, Overlay, Provenance, ProxyIdentity};
use serin_xds::ResourceMap;

use super::class::{Class, ClassKey};
use super::sound::Encoded;

type Version = (Arc<Object>, Provenance);

/// The texts of all golden cases of the translator, by name.
fn cases() -> BTreeMap<String, String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../translator/tests/golden");
    let cases = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let read = |case: std::path::PathBuf| {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        (case.file_name().unwrap().to_string_lossy().into_owned(), text)
    };
    cases.map(read).collect()
}

/// The documents of all cases: for each key the versions that some case has.
fn documents() -> Vec<(ObjectKey, Vec<Version>)> {
    let mut found: BTreeMap<ObjectKey, Vec<Version>> = BTreeMap::new();
    for (file, text) in cases() {
        for document in parse(&file, &text).documents {
            let version = (document.object.clone(), document.provenance.clone());
            found.entry(document.key.clone()).or_default().push(version);
        }
    }
    found.into_iter().collect()
}

/// The proxies of all cases.
fn identities() -> Vec<ProxyIdentity> {
    let lines: BTreeSet<String> = cases().values().flat_map(|text| text.lines().map(str::to_owned)).collect();
    let nodes = lines.iter().filter_map(|line| line.strip_prefix("# proxy: "));
    let identity = |line: &str| {
        let (node, labels) = line.split_once(' ').unwrap_or((line, ""));
        let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        ProxyIdentity::parse(node, labels).unwrap()
    };
    nodes.map(identity).collect()
}

/// The overlays of releases, at some step of each.
fn overlays(mesh: &MeshSnapshot, random: &mut fastrand::Rng) -> BTreeMap<Hostname, Overlay> {
    let mut overlays = BTreeMap::new();
    for release in mesh.releases() {
        let target = Target::Step(random.usize(..release.steps.len().max(1)));
        let overlay = overlay(release, &Status { target, ..Status::default() });
        overlays.extend(overlay.filter(|_| random.bool()).map(|overlay| (release.host.clone(), overlay)));
    }
    overlays
}

/// The differences between two maps, by type and name.
fn differences(one: &ResourceMap, other: &ResourceMap) -> Vec<String> {
    let list = |map: &ResourceMap| -> BTreeMap<String, String> {
        let all = map.types.iter().flat_map(|(of, map)| map.iter().map(move |(name, r)| (format!("{of} {name}"), r)));
        all.map(|(name, resource)| (name, resource.version.clone())).collect()
    };
    let (one, other) = (list(one), list(other));
    one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

#[test]
fn parts_add_up_to_the_whole_after_any_edits() {
    let pool = documents();
    assert!(pool.len() > 60, "{} documents", pool.len());
    let encoded = Encoded::default();
    for round in 0..4 {
        let mut random = fastrand::Rng::with_seed(round);
        let mut objects = Objects::new();
        let mut mesh = MeshSnapshot::default();
        let key = |identity: &ProxyIdentity, mesh: &MeshSnapshot| ClassKey::of(identity, round % 2 == 0, mesh);
        let mut classes: Vec<(ProxyIdentity, Class)> = identities()
            .into_iter()
            .map(|identity| {
                let class = Class::new(key(&identity, &mesh), &mesh, &encoded);
                (identity, class)
            })
            .collect();
        for step in 0..30 {
            // Mostly one document at a time; at first many come.
            let count = if step == 0 { pool.len() / 2 } else { 1 + random.usize(..2) };
            let changes: Vec<(ObjectKey, Option<Version>)> = (0..count)
                .map(|_| {
                    let (key, versions) = random.choice(&pool).unwrap();
                    (key.clone(), random.choice(versions).filter(|_| step == 0 || random.u8(..3) > 0).cloned())
                })
                .collect();
            for (key, version) in &changes {
                match version {
                    Some(version) => objects.insert(key.clone(), version.clone()),
                    None => objects.remove(key),
                };
            }
            let mut after = mesh.clone();
            after.update(changes.clone());
            let overlays = overlays(&after, &mut random);
            let after = after.with_overlays(overlays.clone());
            let whole = MeshSnapshot::build(objects.clone()).with_overlays(overlays);
            let changed = after.changes_since(&mesh);
            for (identity, class) in &mut classes {
                if key(identity, &after) != key(identity, &mesh) {
                    *class = Class::new(key(identity, &after), &after, &encoded);
                }
                class.update(&mesh, &after, &changed, &encoded);
                let fresh = Class::new(key(identity, &whole), &whole, &Encoded::default());
                let differences = differences(class.map(), fresh.map());
                let edits: Vec<String> = changes.iter().map(|(key, to)| format!("{key} {}", to.is_some())).collect();
                assert!(
                    differences.is_empty() && class.map().version == fresh.map().version,
                    "round {round}, step {step}, {:?} {}, after {edits:?} ({changed:?}): {differences:?}",
                    identity.role,
                    identity.name
                );
            }
            mesh = after;
        }
    }
}
