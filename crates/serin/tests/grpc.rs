//! gRPC clients without a proxy, of the gRPC project itself, under Serin's pilot: they obey a release, and are its evidence.
//!
//! Runs when `SERIN_TEST_GRPC` names a folder with the Python package `grpcio` (`cargo xtask interop`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use serin_testkit::client::Client;
use serin_testkit::process::{Process, wait_until};

const SERIN: &str = env!("CARGO_BIN_EXE_serin");
const PATIENCE: Duration = Duration::from_secs(60);

fn peer(package: &OsString, arguments: &[&str], bootstrap: Option<&Path>) -> Process {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", package).env("GRPC_ENABLE_FORK_SUPPORT", "false");
    if let Some(bootstrap) = bootstrap {
        command.env("GRPC_XDS_BOOTSTRAP", bootstrap);
    }
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc/peer.py")).args(arguments);
    Process::start(&mut command).unwrap()
}

/// Three versions of reviews, the last of which fails half of the time, and a rule that sends everything to one.
struct World {
    folder: tempfile::TempDir,
    pilot: Process,
    admin: SocketAddr,
    xds: SocketAddr,
    _servers: Vec<Process>,
}

impl World {
    fn start(package: &OsString) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut servers: Vec<Process> = [("v1", "0"), ("v2", "0"), ("v3", "0.5")]
            .map(|(name, failing)| peer(package, &["server", name, failing], None))
            .into();
        let mut endpoints = String::new();
        for (number, server) in servers.iter_mut().enumerate() {
            let port = server.first_line(PATIENCE).unwrap();
            endpoints +=
                &format!("  - {{address: 127.0.0.1, ports: {{grpc: {port}}}, labels: {{version: v{}}}}}\n", number + 1);
        }
        let services = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: reviews}}\nspec:\n  \
             hosts: [reviews.default.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 9080, name: grpc, protocol: GRPC}}]\n  endpoints:\n{endpoints}---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  host: reviews\n  \
             subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n"
        );
        std::fs::write(folder.path().join("services.yaml"), services).unwrap();
        std::fs::write(folder.path().join("rule.yaml"), rule("v1")).unwrap();
        let mut command = Command::new(SERIN);
        command.args(["pilot", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(folder.path());
        let pilot = Process::start(command.env("NO_COLOR", "1")).unwrap();
        let line = pilot.wait_for("serving proxies on ", PATIENCE).unwrap();
        let mut addresses = line.split([' ', ',']).filter_map(|w| w.trim_start_matches("http://").parse().ok());
        let (xds, admin) = (addresses.next().unwrap(), addresses.next().unwrap());
        Self { folder, pilot, admin, xds, _servers: servers }
    }

    fn client(&self, package: &OsString) -> Process {
        let xds = self.xds.to_string();
        let made =
            Command::new(SERIN).args(["bootstrap", "grpc", "--xds", &xds, "--workload", "page"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let file = self.folder.path().join("bootstrap.json");
        std::fs::write(&file, made.stdout).unwrap();
        peer(package, &["client", "xds:///reviews:9080"], Some(&file))
    }

    fn save(&self, name: &str, text: &str) {
        let new = self.folder.path().join(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    fn status(&self) -> Option<Value> {
        let answer = Client::new(self.admin).get("/api/v1/releases/default/r", &[]).ok()?;
        let value: Value = serde_json::from_slice(&answer.body).ok()?;
        value["status"].is_object().then(|| value["status"].clone())
    }

    fn wait(&self, phase: &str) -> Value {
        let there = || self.status().filter(|s| s["phase"] == phase);
        wait_until(PATIENCE, there)
            .unwrap_or_else(|e| panic!("{phase}: {e}: {:?}\n{}", self.status(), self.pilot.stderr().join("\n")))
    }
}

fn rule(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  \
         http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]\n"
    )
}

fn release(stable: &str, candidate: &str, steps: &str) -> String {
    format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: r}}\nspec:\n  host: reviews\n  \
         stable: {{labels: {{version: {stable}}}}}\n  candidate: {{labels: {{version: {candidate}}}}}\n  \
         steps: [{steps}]\n  analysis: {{warmup: 1s, compareLatency: false, limits: {{errorRate: 5%}}}}\n  guard: 0s\n"
    )
}

/// Who answered, in so many batches of a hundred calls that begin from now on.
fn answers(client: &Process, batches: usize) -> BTreeMap<String, u64> {
    let from = client.stdout().len() + 1;
    wait_until(PATIENCE, || (client.stdout().len() >= from + batches).then_some(()))
        .unwrap_or_else(|e| panic!("{e}\n{}", client.stderr().join("\n")));
    let mut sum = BTreeMap::new();
    for line in client.stdout().iter().skip(from).take(batches) {
        let counts: BTreeMap<String, u64> = serde_json::from_str(line).unwrap();
        counts.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
    }
    sum
}

/// Waits until only this version answers.
fn only(client: &Process, version: &str) {
    wait_until(PATIENCE, || {
        let found = answers(client, 1);
        (found.len() == 1 && found.contains_key(version)).then_some(())
    })
    .unwrap_or_else(|e| panic!("{version}: {e}: {:?}\n{}", answers(client, 1), client.stderr().join("\n")));
}

#[test]
fn a_client_without_a_proxy_obeys_a_release_and_is_its_evidence() {
    let Some(package) = std::env::var_os("SERIN_TEST_GRPC") else {
        eprintln!("left out: SERIN_TEST_GRPC names no folder with grpcio");
        return;
    };
    let world = World::start(&package);
    let client = world.client(&package);
    only(&client, "v1");

    world.save("release.yaml", &release("v1", "v2", "{weight: 10%, bake: {min: 2s, max: 60s}, approval: {}}"));
    world.wait("awaitingApproval");
    let found = answers(&client, 30);
    let share = found["v2"] as f64 / 3_000.0;
    eprintln!("{found:?} at 10 %");
    assert!(found.len() == 2 && (share - 0.1).abs() <= 5.0 * (0.1 * 0.9 / 3_000.0_f64).sqrt(), "{found:?}");
    let seen = world.status().unwrap();
    assert!(seen["judgement"]["steps"][0]["candidate"]["requests"].as_u64().unwrap() > 100, "{seen}");
    let approved = Client::new(world.admin).request("POST", "/api/v1/releases/default/r/approve", &[], b"{}").unwrap();
    assert_eq!(approved.status, 200);
    world.wait("promoted");
    only(&client, "v2");

    // The next version, by an edit of the document.
    world.save("rule.yaml", &rule("v2"));
    world.save("release.yaml", &release("v2", "v3", "{weight: 20%, bake: {min: 20s, max: 60s}}"));
    let end = world.wait("rolledBack");
    assert!(end["reason"].as_str().unwrap().contains("worse"), "{end}");
    only(&client, "v2");
}
