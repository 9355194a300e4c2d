//! A subset and a route to it that come, or go, in one save: no request may fail meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::wait_until;

use super::{SERIN, free_port, rule, service, sidecar};

/// The documents after so many edits: with a subset of its own and a route to it after every other.
fn documents(world: &str, edit: usize) -> String {
    let v1 = "{name: v1, labels: {version: v1}}";
    let to_v1 = "{destination: {host: web, subset: v1}, weight: 50}";
    let (subsets, route) = match edit % 2 {
        0 => (v1.to_owned(), "{destination: {host: web, subset: v1}}".to_owned()),
        _ => (
            format!("{v1}, {{name: s{edit}, labels: {{version: v2}}}}"),
            format!("{to_v1}, {{destination: {{host: web, subset: s{edit}}}, weight: 50}}"),
        ),
    };
    [
        world.to_owned(),
        rule("DestinationRule", "web", &format!("{{host: web, subsets: [{subsets}]}}")),
        rule("VirtualService", "web", &format!("{{hosts: [web], http: [{{route: [{route}]}}]}}")),
    ]
    .concat()
}

/// Edits under load, as many as `EDITS` says, in this variant of xDS: with `DELTA_GRPC` virtual hosts come by VHDS.
fn edits_fail_nothing(variant: &str) {
    let edits: usize = std::env::var("EDITS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let answering = |name| Backend::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{name}")).unwrap();
    let (one, two) = (answering("v1"), answering("v2"));
    let port = free_port();
    let instances = [(one.address(), "version: v1"), (two.address(), "version: v2")];
    let world = service("web", 80, &instances) + &sidecar(port);
    let folder = Folder::new(&[("m.yaml", &documents(&world, 0))]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &["--state", "none"]).unwrap();
    let proxy = pilot.proxy_by(Some(variant), "sidecar", "client-1", &[("app", "client")]).unwrap();
    let address = proxy.listener(&format!("127.0.0.1_{port}")).unwrap();
    pilot.wait_synced(1).unwrap();
    let ask = |client: &mut Client| client.get("/", &[("host", "web")]).map(|r| (r.status, r.text()));
    let mut first = Client::new(address);
    wait_until(Duration::from_secs(20), || ask(&mut first).ok().filter(|(status, _)| *status == 200)).unwrap();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::new(address);
                    let mut failed = Vec::new();
                    while !done.load(Relaxed) {
                        asked.fetch_add(1, Relaxed);
                        match ask(&mut client) {
                            Ok((200, _)) => {}
                            other => failed.push(format!("{other:?}")),
                        }
                    }
                    failed
                })
            })
            .collect();
        for edit in 1..=edits {
            let (new, file) = (folder.documents().join(".new"), folder.documents().join("m.yaml"));
            std::fs::write(&new, documents(&world, edit)).unwrap();
            std::fs::rename(&new, &file).unwrap();
            // What this edit wants has arrived when the new version answers, or answers no more.
            let wanted = edit % 2 == 1;
            let arrived = || {
                let seen = (0..12).any(|_| ask(&mut first).is_ok_and(|(_, text)| text == "v2"));
                (seen == wanted).then_some(())
            };
            wait_until(Duration::from_secs(20), arrived).unwrap();
        }
        done.store(true, Relaxed);
        let failed: Vec<String> = asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        eprintln!("{variant}: {edits} edits, {} requests, {} failed", asked.load(Relaxed), failed.len());
        assert!(failed.is_empty(), "{} of {} requests failed: {:?}", failed.len(), asked.load(Relaxed), failed.first());
    });
}

/// At a gateway the virtual host that leads nowhere and one for every host exclude each other: each takes the other's place.
fn every_host_takes_the_place_of_none(variant: &str) {
    let one = Backend::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv1").unwrap();
    let port = free_port();
    let gateway = format!(
        "{{selector: {{app: gateway}}, servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: [\"*\"]}}]}}"
    );
    let world = service("web", 80, &[(one.address(), "version: v1")]) + &rule("Gateway", "gw", &gateway);
    let routes = rule(
        "VirtualService",
        "web",
        "{hosts: [\"*\"], gateways: [gw], http: [{route: [{destination: {host: web}}]}]}",
    );
    let folder = Folder::new(&[("m.yaml", &world)]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &["--state", "none"]).unwrap();
    let proxy = pilot.proxy_by(Some(variant), "router", "gateway-1", &[("app", "gateway")]).unwrap();
    let mut client = Client::new(proxy.listener(&format!("127.0.0.1_{port}")).unwrap());
    for round in 0..6 {
        let wanted = if round % 2 == 0 { 404 } else { 200 };
        let arrived = || {
            let status = client.get("/", &[("host", "anybody.example")]).ok()?.status;
            (status == wanted).then_some(())
        };
        wait_until(Duration::from_secs(20), arrived)
            .unwrap_or_else(|e| panic!("{variant}, round {round}: {e}: {:?}", pilot.json("/debug/syncz")));
        let (new, file) = (folder.documents().join(".new"), folder.documents().join("m.yaml"));
        let text = if round % 2 == 0 { format!("{world}{routes}") } else { world.clone() };
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    }
}

#[test]
fn every_host_takes_the_place_of_none_in_both_variants() {
    every_host_takes_the_place_of_none("DELTA_GRPC");
    every_host_takes_the_place_of_none("GRPC");
}

#[test]
fn with_virtual_hosts_one_by_one() {
    edits_fail_nothing("DELTA_GRPC");
}

#[test]
fn with_whole_route_configurations() {
    edits_fail_nothing("GRPC");
}
