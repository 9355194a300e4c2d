//! Rules that public reports were about, through a real pilot and a real proxy: what each request comes to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serin_testkit::backend::Backend;
use serin_testkit::client::{Client, Response};
use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::wait_until;
use serin_testkit::proxy::Proxy;

use super::{SERIN, free_port, rule, service, sidecar};

/// Backends by name, each answering with it.
struct World {
    backends: BTreeMap<&'static str, Backend>,
    port: u16,
}

impl World {
    fn new(names: &[&'static str]) -> Self {
        let backend = |name: &&'static str| {
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            (*name, Backend::answering(text).unwrap())
        };
        Self { backends: names.iter().map(backend).collect(), port: free_port() }
    }

    fn at(&self, name: &str) -> SocketAddr {
        self.backends[name].address()
    }

    fn run(&self, documents: &str, arguments: &[&str]) -> Running {
        self.run_beside(documents, &[], arguments)
    }

    /// With other files beside the documents.
    fn run_beside(&self, documents: &str, others: &[(&str, &str)], arguments: &[&str]) -> Running {
        let documents = format!("{documents}{}", sidecar(self.port));
        let files: Vec<(&str, &str)> = others.iter().copied().chain([("m.yaml", documents.as_str())]).collect();
        let folder = Folder::new(&files).unwrap();
        let pilot = Pilot::start(SERIN, &folder, arguments).unwrap();
        let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
        let address = proxy.listener(&format!("127.0.0.1_{}", self.port)).unwrap();
        pilot.wait_synced(1).unwrap();
        Running { client: Client::new(address), proxy, pilot, folder }
    }
}

struct Running {
    client: Client,
    proxy: Proxy,
    pilot: Pilot,
    folder: Folder,
}

impl Running {
    fn ask(&mut self, host: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut all = vec![("host", host)];
        all.extend(headers);
        self.client.get(path, &all).unwrap()
    }

    fn outcome(&mut self, host: &str, path: &str) -> (u16, String) {
        let response = self.ask(host, path, &[]);
        (response.status, response.text())
    }
}

fn is_envoy() -> bool {
    std::env::var_os("SERIN_TEST_ENVOY").is_some()
}

/// A policy that cannot be carried out closes what it guards, and nothing else; an override says so and lets requests through.
#[test]
fn a_policy_that_is_not_carried_out_refuses() {
    let world = World::new(&["secret", "open", "v1", "v2", "bills"]);
    let documents = [
        service("secret", 80, &[(world.at("secret"), "app: secret")]),
        service("open", 80, &[(world.at("open"), "app: open")]),
        service("half", 80, &[(world.at("v1"), "version: v1"), (world.at("v2"), "version: v2")]),
        service("typo", 80, &[(world.at("open"), "app: open")]),
        service("bills", 80, &[(world.at("bills"), "app: bills")]),
        rule("DestinationRule", "secret", "{host: secret, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}"),
        rule("DestinationRule", "typo", "{host: typo, trafficPolicy: {tls: {mode: SIMPEL}}}"),
        rule("DestinationRule", "half", "{host: half, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]}"),
        rule("VirtualService", "half", "{hosts: [half], http: [{match: [{uri: {prefix: /two}}], route: [{destination: {host: half, subset: v2}}]}, {route: [{destination: {host: half, subset: v1}}]}]}"),
        rule("AuthorizationPolicy", "bills", "{selector: {matchLabels: {app: bills}}, action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}")
            .replace("networking.istio.io", "security.istio.io"),
    ]
    .concat();
    let mut running = world.run(&documents, &[]);
    assert_eq!(running.outcome("open", "/"), (200, "open".to_owned()));
    assert_eq!(running.outcome("half", "/"), (200, "v1".to_owned()));
    for (host, path, policy) in [
        ("secret", "/", "DestinationRule default/secret"),
        ("typo", "/", "DestinationRule default/typo"),
        ("half", "/two", "DestinationRule default/half"),
        ("bills", "/", "AuthorizationPolicy default/bills"),
    ] {
        let (status, text) = running.outcome(host, path);
        assert_eq!(status, 503, "{host}{path}: {text}");
        if !is_envoy() {
            assert!(text.contains(policy), "{host}{path}: {text}");
        }
    }
    for name in ["secret", "v2", "bills"] {
        assert_eq!(world.backends[name].answered(), 0, "{name} was asked");
    }
    let secret = "cluster.outbound|80||secret.default.svc.cluster.local";
    assert!(running.proxy.stat(&format!("{secret}.upstream_cx_none_healthy")) >= 1);
    if !is_envoy() {
        assert_eq!(running.proxy.stat(&format!("{secret}.upstream_rq_refused_by_policy")), 1);
    }
    let said = running.pilot.json("/debug/diagnosticz").unwrap().to_string();
    assert_eq!(said.matches("are refused").count(), 4, "{said}");
    drop(running);
    let mut running = world.run(&documents, &["--allow-unenforced-policies"]);
    assert!(running.pilot.process.stderr().join("\n").contains("without TLS, authentication and authorization"));
    for (host, path, answer) in [("secret", "/", "secret"), ("half", "/two", "v2"), ("bills", "/", "bills")] {
        assert_eq!(running.outcome(host, path), (200, answer.to_owned()));
    }
}

/// Files that cannot be read at a first start close what their lines name, and what stands in their readable parts; a rule with an error
/// closes the port that it speaks of.
#[test]
fn a_file_that_cannot_be_read_opens_nothing() {
    let world = World::new(&["a", "b", "c", "d"]);
    let documents = ["a", "b", "c", "d"].map(|name| service(name, 80, &[(world.at(name), &format!("app: {name}"))]));
    let broken_rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n  trafficPolicy:\n    tls: {mode: ISTIO_MUTUAL\n";
    let two_parts = format!(
        "{}---\nkind: VirtualService\nspec: [\n",
        rule("DestinationRule", "b", "{host: b, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}")
    );
    let other_port = rule(
        "DestinationRule",
        "c",
        "{hots: c, trafficPolicy: {portLevelSettings: [{port: {number: 81}, tls: {mode: ISTIO_MUTUAL}}]}}",
    );
    let files = [("a.yaml", broken_rule), ("b.yaml", two_parts.as_str()), ("c.yaml", other_port.as_str())];
    let mut running = world.run_beside(&documents.concat(), &files, &[]);
    for (host, status) in [("a", 503), ("b", 503), ("c", 200), ("d", 200)] {
        assert_eq!(running.outcome(host, "/").0, status, "{host}");
    }
    let said = running.pilot.json("/debug/diagnosticz").unwrap().to_string();
    for part in [
        "holds a DestinationRule: requests to a.default.svc.cluster.local are refused",
        "requests to b.default.svc.cluster.local are refused",
        "requests to port 81 of the host are refused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Once there was a sound version, that one is in force.
    running.folder.save("a.yaml", &rule("DestinationRule", "a", "{host: a}")).unwrap();
    wait_until(Duration::from_secs(10), || (running.outcome("a", "/").0 == 200).then_some(())).unwrap();
    running.folder.save("a.yaml", broken_rule).unwrap();
    wait_until(Duration::from_secs(10), || {
        running.pilot.json("/debug/diagnosticz").unwrap().to_string().contains("stay as they were").then_some(())
    })
    .unwrap();
    assert_eq!(running.outcome("a", "/").0, 200);
    drop(running);
    // Of a policy that cannot be read nobody knows whom it selects.
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [\n";
    let mut running = world.run_beside(&documents.concat(), &[("p.yaml", policy)], &[]);
    assert_eq!(running.outcome("d", "/").0, 503);
    drop(running);
    // Two files with the same mistake close both hosts, and so does one that is no UTF-8.
    let for_host = |host: &str| broken_rule.replace("host: a", &format!("host: {host}"));
    let files = [("a.yaml", for_host("a")), ("b.yaml", for_host("b")), ("c.yaml", String::new())];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let folder = Folder::new(&files).unwrap();
    let mut bytes = rule("DestinationRule", "c", "{host: c, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}").into_bytes();
    bytes.extend(b"# caf\xe9\n");
    std::fs::write(folder.documents().join("c.yaml"), bytes).unwrap();
    folder.save("m.yaml", &format!("{}{}", documents.concat(), sidecar(world.port))).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    let mut client = Client::new(proxy.listener(&format!("127.0.0.1_{}", world.port)).unwrap());
    pilot.wait_synced(1).unwrap();
    for (host, status) in [("a", 503), ("b", 503), ("c", 503), ("d", 200)] {
        assert_eq!(client.get("/", &[("host", host)]).unwrap().status, status, "{host}");
    }
}

/// Half to a version that is balanced, half to one where a hash chooses: users stick within that one.
#[test]
fn a_hash_belongs_to_the_destination_that_asks_for_it() {
    let world = World::new(&["a1", "a2", "b1", "b2", "b3", "b4"]);
    let v1 = ["a1", "a2"].map(|n| (world.at(n), "version: v1"));
    let v2 = ["b1", "b2", "b3", "b4"].map(|n| (world.at(n), "version: v2"));
    let documents = [
        service("shop", 80, &[v1.as_slice(), &v2].concat()),
        rule("DestinationRule", "shop", "{host: shop, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}]}"),
        rule("VirtualService", "shop", "{hosts: [shop], http: [{route: [{destination: {host: shop, subset: v1}, weight: 50}, {destination: {host: shop, subset: v2}, weight: 50}]}]}"),
    ]
    .concat();
    let mut running = world.run(&documents, &[]);
    let mut spread = BTreeMap::new();
    for user in 0..30 {
        let name = format!("user-{user}");
        let seen: Vec<String> = (0..24).map(|_| running.ask("shop", "/", &[("x-user", &name)]).text()).collect();
        let mut hashed: Vec<&String> = seen.iter().filter(|s| s.starts_with('b')).collect();
        assert!(!hashed.is_empty() && hashed.len() < seen.len(), "{name}: {seen:?}");
        hashed.dedup();
        assert_eq!(hashed.len(), 1, "{name} does not stick: {seen:?}");
        *spread.entry(hashed[0].clone()).or_insert(0) += 1;
    }
    assert!(spread.len() > 1, "all users stick to {spread:?}");
}

/// Versions by the release's key, instances by the rule's.
#[test]
fn a_sticky_release_and_a_hash_of_a_rule_go_together() {
    let world = World::new(&["a1", "a2", "a3", "b1", "b2", "b3"]);
    let v1 = ["a1", "a2", "a3"].map(|n| (world.at(n), "version: v1"));
    let v2 = ["b1", "b2", "b3"].map(|n| (world.at(n), "version: v2"));
    let documents = [
        service("shop", 80, &[v1.as_slice(), &v2].concat()),
        rule(
            "DestinationRule",
            "shop",
            "{host: shop, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-cart}}}}",
        ),
        release("shop", "stickiness: {header: x-user}, steps: [{weight: 50%, bake: 1h}]"),
    ]
    .concat();
    let mut running = world.run(&documents, &[]);
    running.pilot.wait_for("shop", |s| s["phase"] == "baking").unwrap();
    running.pilot.wait_synced(1).unwrap();
    let mut of_user: BTreeMap<u32, char> = BTreeMap::new();
    let mut of_cart: BTreeMap<(char, u32), String> = BTreeMap::new();
    for turn in 0..600u32 {
        let (user, cart) = (turn % 20, turn % 7);
        let headers = [("x-user", format!("u{user}")), ("x-cart", format!("c{cart}"))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let seen = running.ask("shop", "/", &headers).text();
        let version = seen.chars().next().unwrap();
        assert_eq!(*of_user.entry(user).or_insert(version), version, "user {user} changed the version");
        let known = of_cart.entry((version, cart)).or_insert_with(|| seen.clone());
        assert_eq!(*known, seen, "cart {cart} changed its instance of version {version}");
    }
    let versions: std::collections::BTreeSet<char> = of_user.values().copied().collect();
    assert_eq!(versions.len(), 2, "{of_user:?}");
}

fn release(host: &str, more: &str) -> String {
    format!(
        "---\napiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {host}}}\nspec: {{host: {host}, \
         stable: {{labels: {{version: v1}}}}, candidate: {{labels: {{version: v2}}}}, analysis: {{warmup: 1s}}, {more}}}\n"
    )
}

/// A destination with a subset of roles keeps the role in both versions: before, during and after, and after an abort; without a
/// candidate of that role it stays with the stable version.
#[test]
fn a_release_keeps_what_subsets_ask_for_besides_the_version() {
    let world = World::new(&["admin-v1", "admin-v2", "public-v1", "public-v2", "batch-v1"]);
    let instances = [
        (world.at("admin-v1"), "version: v1, role: admin, tier: x"),
        (world.at("admin-v2"), "version: v2, role: admin, tier: x"),
        (world.at("public-v1"), "version: v1, role: public, tier: x"),
        (world.at("public-v2"), "version: v2, role: public, tier: x"),
        (world.at("batch-v1"), "version: v1, role: batch, tier: x"),
    ];
    let documents = [
        service("shop", 80, &instances),
        rule("DestinationRule", "shop", "{host: shop, subsets: [{name: admin, labels: {version: v1, role: admin, tier: x}}, {name: public, labels: {version: v1, role: public}}, {name: batch, labels: {version: v1, role: batch}}]}"),
        rule("VirtualService", "shop", "{hosts: [shop], http: [{match: [{uri: {prefix: /admin}}], route: [{destination: {host: shop, subset: admin}}]}, {match: [{uri: {prefix: /batch}}], route: [{destination: {host: shop, subset: batch}}]}, {route: [{destination: {host: shop, subset: public}}]}]}"),
        release("shop", "start: manual, guard: 1h, steps: [{weight: 50%, bake: 1h}]"),
    ]
    .concat();
    let mut running = world.run(&documents, &[]);
    assert_eq!(roles(&mut running), ["v1", "v1", "v1"]);
    let says = |running: &mut Running, action: &str, phase: &str| {
        let (status, answer) = running.pilot.says("shop", action, &serde_json::json!({"full": true})).unwrap();
        assert_eq!(status, 200, "{answer}");
        let reached = running.pilot.wait_for("shop", |s| s["phase"] == phase).unwrap();
        running.pilot.wait_synced(1).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        reached
    };
    let during = says(&mut running, "start", "baking");
    assert!(during["notes"].to_string().contains("requests to subset batch stay with the stable version"), "{during}");
    assert_eq!(roles(&mut running), ["v1,v2", "v1,v2", "v1"]);
    says(&mut running, "promote", "guarding");
    assert_eq!(roles(&mut running), ["v2", "v2", "v1"]);
    says(&mut running, "undo", "rolledBack");
    assert_eq!(roles(&mut running), ["v1", "v1", "v1"]);
}

/// The versions that answer for each role; an instance of another role must not.
fn roles(running: &mut Running) -> [String; 3] {
    ["/admin", "/public", "/batch"].map(|path| {
        let role = path.trim_start_matches('/');
        let mut versions = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let (status, text) = running.outcome("shop", path);
            assert!(status == 200 && text.starts_with(role), "{path} reached {text} ({status})");
            versions.insert(text[role.len() + 1..].to_owned());
        }
        versions.into_iter().collect::<Vec<_>>().join(",")
    })
}

/// Rewrites after regular expressions, redirects of listeners, destinations by port, mirrors by name.
#[test]
fn what_public_reports_found_is_as_in_istio() {
    let world = World::new(&["one", "two", "copy"]);
    let documents = [
        service("shop", 80, &[(world.at("one"), "version: v1")]),
        service("copy", 80, &[(world.at("copy"), "version: v1")]),
        service("other", 81, &[(world.at("two"), "version: v1")]),
        rule("VirtualService", "shop", "{hosts: [shop], http: [\
            {match: [{uri: {regex: \"/old/[0-9]+\"}}], rewrite: {uri: \"/new\\\\1\"}, route: [{destination: {host: shop}}]},\
            {match: [{uri: {prefix: /mirrored}}], route: [{destination: {host: shop}}], mirror: {host: copy}},\
            {match: [{port: 99}], directResponse: {status: 418}},\
            {match: [{uri: {prefix: /there}}], redirect: {uri: /here, authority: other.example, derivePort: FROM_REQUEST_PORT}},\
            {route: [{destination: {host: shop}}]}]}"),
    ]
    .concat();
    let mut running = world.run(&documents, &[]);
    assert_eq!(running.outcome("shop", "/old/12?q=/old/1"), (200, "one".to_owned()));
    let seen = String::from_utf8(world.backends["one"].take()).unwrap();
    assert!(seen.starts_with("GET /new\\1?q=/old/1 HTTP/1.1"), "{seen}");
    assert_eq!(running.outcome("shop", "/"), (200, "one".to_owned()));
    assert_eq!(running.ask("shop", "/there", &[]).header("location"), Some("http://other.example/here"));
    running.outcome("shop", "/mirrored");
    let copied = wait_until(Duration::from_secs(10), || {
        let seen = String::from_utf8_lossy(&world.backends["copy"].take()).into_owned();
        (!seen.is_empty()).then_some(seen)
    })
    .unwrap();
    assert!(copied.to_ascii_lowercase().contains("host: shop\r\n"), "{copied}");
    assert_eq!(running.outcome("other:81", "/"), (200, "two".to_owned()));
}
