//! Independent draws, and evidence that belongs to whom it names.

use std::time::Duration;

use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::pilot::{Folder, Pilot};
use serin_xds::client::Connections;
use serin_xds::load::{Load, Measure, Named, Part};

use super::{SERIN, free_port, service, sidecar};

fn answering(text: &str) -> Backend {
    Backend::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())).unwrap()
}

fn release(host: &str, stickiness: &str) -> String {
    format!(
        "---\napiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: {host}}}\nspec: {{host: {host}, \
         stable: {{labels: {{version: v1}}}}, candidate: {{labels: {{version: v2}}}}, stickiness: {stickiness}, \
         analysis: {{warmup: 1s}}, steps: [{{weight: 20%, bake: 1h}}]}}\n"
    )
}

/// Two releases that are sticky by the same key choose their users independently: 4 % have both candidates, within three standard
/// errors; and everybody keeps the version they have.
#[test]
fn two_sticky_releases_choose_their_users_independently() {
    let users: usize = std::env::var("USERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let (v1, v2) = (answering("v1"), answering("v2"));
    let instances = [(v1.address(), "version: v1"), (v2.address(), "version: v2")];
    let port = free_port();
    let by = [("header", "{header: x-user}"), ("cookie", "{cookie: {name: user}}"), ("query", "{query: user}")];
    let mut documents = sidecar(port);
    for (kind, key) in by {
        for n in 1..=2 {
            let host = format!("{kind}-{n}");
            documents += &service(&host, 80, &instances);
            documents += &release(&host, key);
        }
    }
    let folder = Folder::new(&[("m.yaml", &documents)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    for (kind, _) in by {
        for n in 1..=2 {
            pilot.wait_for(&format!("{kind}-{n}"), |s| s["phase"] == "baking").unwrap();
        }
    }
    pilot.wait_synced(1).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut client = Client::new(proxy.listener(&format!("127.0.0.1_{port}")).unwrap());
    let mut has_new = |kind: &str, n: usize, user: usize| {
        let (host, value) = (format!("{kind}-{n}"), format!("user-{user}"));
        let cookie = format!("user={value}");
        let (path, header) = match kind {
            "header" => ("/".to_owned(), Some(("x-user", value.as_str()))),
            "cookie" => ("/".to_owned(), Some(("cookie", cookie.as_str()))),
            _ => (format!("/?user={value}"), None),
        };
        let mut headers = vec![("host", host.as_str())];
        headers.extend(header);
        let response = client.get(&path, &headers).unwrap();
        assert_eq!(response.status, 200);
        response.text() == "v2"
    };
    for (kind, _) in by {
        let mut counts = [0usize; 3];
        for user in 0..users {
            let both = [has_new(kind, 1, user), has_new(kind, 2, user)];
            counts[0] += usize::from(both[0]);
            counts[1] += usize::from(both[1]);
            counts[2] += usize::from(both[0] && both[1]);
            if user % 50 == 0 {
                assert_eq!(has_new(kind, 1, user), both[0], "{kind}: user {user} does not stick");
            }
        }
        for (what, count, expected) in
            [("first", counts[0], 0.2), ("second", counts[1], 0.2), ("both", counts[2], 0.04)]
        {
            let share = count as f64 / users as f64;
            let error = (expected * (1.0 - expected) / users as f64).sqrt();
            eprintln!("{kind}, {what}: {share:.4}, expected {expected} ± {error:.4}");
            // 3 standard errors would be missed once in 370 draws, and there are nine.
            assert!((share - expected).abs() <= 4.0 * error, "{kind}, {what}: {share}, expected {expected} ± {error}");
        }
    }
    let mut by_chance = 0;
    for _ in 0..200 {
        let response = client.get("/", &[("host", "query-1")]).unwrap();
        by_chance += usize::from(response.text() == "v2");
    }
    assert!((10..90).contains(&by_chance), "without the parameter chance decides: {by_chance} of 200");
}

/// Reports loads as it likes.
struct Liar;

impl Measure for Liar {
    fn begin(&mut self) {}

    fn loads(&mut self, _: Option<&[String]>) -> Vec<Load> {
        let named = vec![Named { name: "first_attempts".to_owned(), count: 500, total: 500.0 }];
        let part =
            Part { address: Some("127.0.0.2:9".parse().unwrap()), issued: 500, failed: 500, named, ..Part::default() };
        vec![Load {
            cluster: "outbound|80||shop.default.svc.cluster.local".to_owned(),
            parts: vec![part],
            ..Load::default()
        }]
    }
}

/// A report that names the node of another rolls nothing back, and is counted.
#[test]
fn a_report_in_the_name_of_another_does_not_count() {
    let instances = [("127.0.0.1:9".parse().unwrap(), "version: v1"), ("127.0.0.2:9".parse().unwrap(), "version: v2")];
    let documents = service("shop", 80, &instances) + &release("shop", "{header: x-user}") + &sidecar(free_port());
    let folder = Folder::new(&[("m.yaml", &documents)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    pilot.wait_for("shop", |s| s["phase"] == "baking").unwrap();
    let node = pilot.json("/debug/syncz").unwrap()[0]["node"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let message = prost_node(&node);
    runtime.block_on(async {
        let lies = serin_xds::load::run(vec![pilot.xds.to_string()], message, Connections::default(), Liar);
        let _ = tokio::time::timeout(Duration::from_secs(4), lies).await;
    });
    let status = pilot.status("shop");
    assert_eq!(status["phase"], "baking", "{status}");
    let metrics = pilot.get("/metrics").unwrap().text();
    let refused = metrics.lines().find_map(|l| l.strip_prefix("serin_pilot_load_reports_refused_total "));
    assert!(refused.is_some_and(|n| n.parse::<u64>().unwrap() > 0), "{metrics}");
    drop(proxy);
}

/// An encoded `envoy.config.core.v3.Node` with this id and the name by which Serin's proxies call themselves.
fn prost_node(id: &str) -> Vec<u8> {
    let field =
        |number: u8, text: &str| [&[number << 3 | 2, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    [field(1, id), field(6, "serin")].concat()
}

/// Failures of a candidate that are those of another release's candidate, which it calls, are said: a bad version behind takes no good
/// one in front back in silence.
#[test]
fn failures_that_come_from_another_candidate_are_said() {
    let (good, bad) = (answering("good"), Backend::answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").unwrap());
    let ports = [free_port(), free_port()];
    let listener = |app: &str, port: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {app}}}\nspec: {{workloadSelector: {{labels: \
             {{app: {app}}}}}, egress: [{{port: {{number: {port}, protocol: HTTP_PROXY, name: out}}, bind: 127.0.0.1, captureMode: \
             NONE, hosts: [\"*/*\"]}}]}}\n"
        )
    };
    let both = [(good.address(), "version: v1"), (bad.address(), "version: v2")];
    let patient = |host: &str| {
        let limits = "analysis: {warmup: 1s, limits: {errorRate: 99%}}";
        release(host, "{header: x-user}").replace("analysis: {warmup: 1s}", limits)
    };
    let documents = [
        service("front", 80, &both),
        service("cart", 80, &both),
        patient("front"),
        patient("cart"),
        listener("client", ports[0]),
        listener("front", ports[1]),
    ];
    let folder = Folder::new(&[("m.yaml", &documents.concat())]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    let client = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    let front = pilot.proxy("sidecar", "front-2", &[("app", "front"), ("version", "v2")]).unwrap();
    for name in ["front", "cart"] {
        pilot.wait_for(name, |s| s["phase"] == "baking").unwrap();
    }
    pilot.wait_synced(2).unwrap();
    let at = |proxy: &serin_testkit::proxy::Proxy, port: u16| {
        Client::new(proxy.listener(&format!("127.0.0.1_{port}")).unwrap())
    };
    let (mut asks_front, mut asks_cart) = (at(&client, ports[0]), at(&front, ports[1]));
    for user in 0..200 {
        let user = format!("user-{user}");
        let _ = asks_front.get("/", &[("host", "front"), ("x-user", &user)]).unwrap();
        let _ = asks_cart.get("/", &[("host", "cart"), ("x-user", &user)]).unwrap();
    }
    let said = pilot.wait_for("front", |s| {
        s["notes"].to_string().contains("instances went to the candidate of release default/cart")
    });
    said.unwrap_or_else(|_| panic!("{}", pilot.status("front")));
    let cart = pilot.status("cart")["notes"].to_string();
    assert!(!cart.contains("default/front"), "what calls nobody names nobody: {cart}");
}
