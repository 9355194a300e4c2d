//! The proxy under a control plane: the real pilot in both variants of the protocol, and peers that misbehave.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::backend::Backend;
use serin_testkit::client::{Client, read_response};
use serin_testkit::process::{Process, wait_until};
use serin_testkit::proxy::{Proxy, bootstrap, cluster, socket_address};

use super::{SERIN, ok};

const PATIENCE: Duration = Duration::from_secs(20);

struct Pilot {
    process: Process,
    xds: SocketAddr,
    folder: tempfile::TempDir,
}

fn pilot(documents: &str) -> Pilot {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mesh.yaml"), documents).unwrap();
    let mut command = Command::new(SERIN);
    command.args(["pilot", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(folder.path());
    let process = Process::start(command.env("NO_COLOR", "1")).unwrap();
    let line = process.wait_for("serving proxies on ", PATIENCE).unwrap();
    let xds = line.split("serving proxies on ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    Pilot { process, xds, folder }
}

/// A mesh of one service behind one backend, with a sidecar whose outbound listener takes any free port.
fn mesh(backend: SocketAddr, weight: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: web}}\nspec:\n  hosts: [web.internal]\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints: [{{address: {ip}, ports: {{http: {port}}}, weight: {weight}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: entry}}\nspec:\n  selector: {{role: entry}}\n  servers:\n  \
         - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: [\"*\"]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: entry}}\nspec:\n  selector: {{role: entry}}\n  ports: [{{name: http, port: 80, targetPort: {target}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec:\n  hosts: [\"*\"]\n  gateways: [entry]\n  http:\n  \
         - route: [{{destination: {{host: web.internal}}}}]\n",
        ip = backend.ip(),
        port = backend.port(),
        target = free_port(),
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn client_of(xds: SocketAddr, api_type: &str, node: &str) -> Value {
    let mut pilot = cluster("pilot", &[xds]);
    pilot["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}});
    let ads = json!({"resource_api_version": "V3", "ads": {}});
    json!({
        "node": {"id": node, "cluster": "entry", "metadata": {"LABELS": {"role": "entry"}}},
        "dynamic_resources": {
            "lds_config": ads, "cds_config": ads,
            "ads_config": {"api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "pilot"}}]},
        },
        "static_resources": {"clusters": [pilot]},
    })
}

const NODE: &str = "router~127.0.0.1~entry.default~default.svc.cluster.local";

#[test]
fn both_variants_of_the_protocol_configure_the_proxy() {
    for api_type in ["DELTA_GRPC", "GRPC"] {
        let backend = Backend::answering(ok("first")).unwrap();
        let second = Backend::answering(ok("second")).unwrap();
        let documents = mesh(backend.address(), 1);
        let pilot = pilot(&documents);
        let proxy = Proxy::start(SERIN, &client_of(pilot.xds, api_type, NODE)).unwrap();
        let name = "127.0.0.1_80";
        let mut client = Client::new(proxy.listener(name).unwrap());
        wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "first")).unwrap();
        let port = |a: SocketAddr| format!("http: {}", a.port());
        let moved = documents.replace(&port(backend.address()), &port(second.address()));
        std::fs::write(pilot.folder.path().join("mesh.yaml"), moved).unwrap();
        wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "second")).unwrap();
        assert!(proxy.page("/config_dump").unwrap().1.contains("outbound|80||web.internal"), "{api_type}");
        let mut kept = TcpStream::connect(proxy.listener(name).unwrap()).unwrap();
        kept.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = |kept: &mut TcpStream| {
            kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            read_response(kept, false)
        };
        assert_eq!(ask(&mut kept).unwrap().text(), "second");
        std::fs::remove_file(pilot.folder.path().join("mesh.yaml")).unwrap();
        wait_until(PATIENCE, || (!proxy.page("/listeners").ok()?.1.contains(name)).then_some(())).unwrap();
        ask(&mut kept).unwrap();
        drop(pilot.process);
    }
}

/// F10: a port that another process has is tried again, said, and not ready; the pilot is told when it could be bound.
#[test]
fn a_port_that_was_taken_is_bound_when_it_is_free() {
    let backend = Backend::answering(ok("first")).unwrap();
    let documents = mesh(backend.address(), 1);
    let port: u16 = target_of(&documents).parse().unwrap();
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let pilot = pilot(&documents);
    let folder = tempfile::tempdir().unwrap();
    let (file, place) = (folder.path().join("bootstrap.json"), folder.path().join("admin"));
    std::fs::write(&file, client_of(pilot.xds, "DELTA_GRPC", NODE).to_string()).unwrap();
    let mut command = Command::new(SERIN);
    command.args(["proxy", "--admin", "127.0.0.1:0", "--admin-address-path"]).arg(&place).arg("--bootstrap").arg(&file);
    let process = Process::start(&mut command).unwrap();
    let admin: SocketAddr =
        wait_until(PATIENCE, || std::fs::read_to_string(&place).ok().and_then(|text| text.parse().ok())).unwrap();
    process.wait_for("it is tried again every second", PATIENCE).unwrap();
    let ready = || Client::new(admin).get("/ready", &[]).unwrap();
    let taken = wait_until(PATIENCE, || Some(ready()).filter(|r| r.text().contains("cannot be bound"))).unwrap();
    assert_eq!(taken.status, 503);
    drop(other);
    wait_until(PATIENCE, || (ready().status == 200).then_some(())).unwrap();
    let mut client = Client::new(SocketAddr::from(([127, 0, 0, 1], port)));
    wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "first")).unwrap();
    // What follows is confirmed as if nothing had been.
    let second = Backend::answering(ok("second")).unwrap();
    let of = |a: SocketAddr| format!("http: {}", a.port());
    let moved = documents.replace(&of(backend.address()), &of(second.address()));
    std::fs::write(pilot.folder.path().join("mesh.yaml"), moved).unwrap();
    wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "second")).unwrap();
}

/// Whatever becomes of the files, what was good goes on until something better is there.
#[test]
fn what_is_broken_keeps_what_was_good() {
    let backend = Backend::answering(ok("first")).unwrap();
    let second = Backend::answering(ok("second")).unwrap();
    let documents = mesh(backend.address(), 1);
    let pilot = pilot(&documents);
    let (folder, aside) = (pilot.folder.path().join("mesh.yaml"), pilot.folder.path().join("other.yaml"));
    let proxy = Proxy::start(SERIN, &client_of(pilot.xds, "DELTA_GRPC", NODE)).unwrap();
    let mut client = Client::new(proxy.listener("127.0.0.1_80").unwrap());
    wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "first")).unwrap();
    let nameless = documents.replace("metadata: {name: web}", "metadata: {}");
    let broken = documents.replace("resolution: STATIC", "resolution: 17");
    for (path, text, said) in [
        (&folder, documents.clone() + "---\nkind: [unclosed\n", "mesh.yaml"),
        (&folder, nameless, "name"),
        (&folder, broken.clone(), "resolution"),
        (&aside, broken, "other.yaml"),
    ] {
        std::fs::write(path, text).unwrap();
        if path == &aside {
            std::fs::remove_file(&folder).unwrap();
        }
        pilot.process.wait_for(said, PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(client.get("/", &[]).unwrap().text(), "first", "after {said}");
    }
    let gone = pilot.folder.path().with_extension("gone");
    std::fs::rename(pilot.folder.path(), &gone).unwrap();
    pilot.process.wait_for("No such file or directory", PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.get("/", &[]).unwrap().text(), "first", "after the folder was moved away");
    std::fs::rename(&gone, pilot.folder.path()).unwrap();
    let port = |a: SocketAddr| format!("http: {}", a.port());
    std::fs::write(&folder, documents.replace(&port(backend.address()), &port(second.address()))).unwrap();
    wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.text() == "second"))
        .expect("a sound version comes before an earlier one of what is broken elsewhere");
}

/// When nobody judges endpoints any more, those that are ejected come back at once. (Envoy's gauge stays up.)
#[test]
fn ejections_end_with_outlier_detection() {
    let (good, bad) =
        (Backend::answering(ok("good")).unwrap(), Backend::answering(ok("bad").replace("200", "500")).unwrap());
    let more = format!("endpoints: [{{address: {}, ports: {{http: {}}}}}, ", bad.address().ip(), bad.address().port());
    let documents = mesh(good.address(), 1).replace("endpoints: [", &more);
    let judged = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web.internal\n  \
                  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2, interval: 600s, baseEjectionTime: 600s}}\n";
    let pilot = pilot(&format!("{documents}{}", judged.replace("600s}", "600s, maxEjectionPercent: 100}")));
    let proxy = Proxy::serin(SERIN, &client_of(pilot.xds, "DELTA_GRPC", NODE)).unwrap();
    let mut client = Client::new(proxy.listener("127.0.0.1_80").unwrap());
    let ejected = "cluster.outbound|80||web.internal.outlier_detection.ejections_active";
    let out = |client: &mut Client, n| {
        let _ = client.get("/", &[]);
        (proxy.stat(ejected) == n).then_some(())
    };
    wait_until(PATIENCE, || out(&mut client, 1)).unwrap();
    assert!((0..10).all(|_| client.get("/", &[]).unwrap().status == 200));
    std::fs::write(pilot.folder.path().join("mesh.yaml"), documents).unwrap();
    wait_until(PATIENCE, || out(&mut client, 0)).unwrap();
    wait_until(PATIENCE, || client.get("/", &[]).ok().filter(|r| r.status == 500)).unwrap();
}

/// Routes and endpoints change ten times a second under load: nothing fails and nothing goes elsewhere than it should.
/// `REQUESTS=1000000 cargo test --release -p serin --test bootstrap churn` is the long form.
#[test]
fn churn_of_configuration_fails_nothing() {
    let requests: usize = std::env::var("REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let (one, two) = (Backend::answering(ok("one")).unwrap(), Backend::answering(ok("two")).unwrap());
    let documents = |round: usize| {
        let second = format!(
            "{{address: {}, ports: {{http: {}}}, weight: {}}}, ",
            one.address().ip(),
            one.address().port(),
            round % 7 + 1
        );
        let more = if round.is_multiple_of(2) { second } else { String::new() };
        let path = format!("/x{round}");
        let mesh = mesh(one.address(), 1 + round as u32 % 3).replace("endpoints: [", &format!("endpoints: [{more}"));
        let ports: Vec<&str> = PORT.get().map_or_else(Vec::new, |p: &String| vec![p.as_str()]);
        let mesh = match ports.as_slice() {
            [port] => replace_target(&mesh, port),
            _ => {
                let _ = PORT.set(target_of(&mesh));
                mesh
            }
        };
        mesh.replace(
            "  http:\n  - route:",
            &format!("  http:\n  - match: [{{uri: {{prefix: {path}}}}}]\n    directResponse: {{status: 404}}\n  - match: [{{uri: {{prefix: /two}}}}]\n    route: [{{destination: {{host: two.internal}}}}]\n  - route:"),
        ) + &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: two}}\nspec:\n  hosts: [two.internal]\n  \
             resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  \
             endpoints: [{{address: {}, ports: {{http: {}}}}}]\n",
            two.address().ip(),
            two.address().port()
        )
    };
    let pilot = pilot(&documents(0));
    let file = pilot.folder.path().join("mesh.yaml");
    let proxy = Proxy::serin(SERIN, &client_of(pilot.xds, "DELTA_GRPC", NODE)).unwrap();
    let address = proxy.listener("127.0.0.1_80").unwrap();
    let mut first = Client::new(address);
    wait_until(PATIENCE, || first.get("/two", &[]).ok().filter(|r| r.text() == "two")).unwrap();
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let round = rounds.fetch_add(1, Relaxed) + 1;
                let new = pilot.folder.path().join("mesh.yaml.new");
                std::fs::write(&new, documents(round)).unwrap();
                std::fs::rename(&new, &file).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    for n in 0..requests / 4 {
                        let (path, wanted) = if n % 2 == 0 { ("/", "one") } else { ("/two", "two") };
                        let answer = client.get(path, &[]).unwrap();
                        assert_eq!((answer.status, answer.text().as_str()), (200, wanted), "request {n}");
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = asking.into_iter().map(|t| t.join()).collect();
        done.store(true, Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    let accepted = proxy.stat("http.vhds.update_success");
    println!(
        "{requests} requests, {} changes written, {accepted} updates of virtual hosts accepted",
        rounds.load(Relaxed)
    );
    assert!(accepted > 3);
}

static PORT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// The port that the gateway's Service forwards to: it must stay the same.
fn target_of(mesh: &str) -> String {
    mesh.split("targetPort: ").nth(1).and_then(|rest| rest.split('}').next()).unwrap().to_owned()
}

fn replace_target(mesh: &str, port: &str) -> String {
    mesh.replace(&format!("targetPort: {}", target_of(mesh)), &format!("targetPort: {port}"))
}

#[test]
fn a_malformed_node_id_is_told_to_both_sides() {
    let pilot = pilot("");
    let mut command = Command::new(SERIN);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.json");
    let mut config = client_of(pilot.xds, "DELTA_GRPC", "nonsense");
    config["admin"] = json!({"address": socket_address("127.0.0.1:0".parse().unwrap())});
    std::fs::write(&file, config.to_string()).unwrap();
    let proxy = Process::start(command.args(["proxy", "--bootstrap"]).arg(&file)).unwrap();
    let said = proxy.wait_for("nonsense", PATIENCE).unwrap();
    assert!(said.contains("expected sidecar~IP~NAME.NAMESPACE"), "{said}");
    pilot.process.wait_for("nonsense", PATIENCE).unwrap();
}

/// A control plane that sends garbage, one that resets, and one that never answers: what is static goes on serving.
#[test]
fn a_control_plane_that_misbehaves_does_no_harm() {
    let backend = Backend::answering(ok("static")).unwrap();
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let garbage = Backend::scripted(|stream, _| {
        let _ = stream.write_all(&[0xffu8; 4096]);
    });
    let reset = Backend::scripted(|_, _| {});
    let silent =
        Backend::scripted(|stream, seen| while serin_testkit::backend::read(stream, &mut Vec::new(), seen) > 0 {});
    for peer in [garbage, reset, silent] {
        let peer = peer.unwrap();
        let mut config = client_of(peer.address(), "DELTA_GRPC", NODE);
        let own = bootstrap(&routes, &[cluster("a", &[backend.address()])]);
        config["static_resources"]["listeners"] = own["static_resources"]["listeners"].clone();
        let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
        clusters.push(cluster("a", &[backend.address()]));
        let folder = tempfile::tempdir().unwrap();
        let (file, admin) = (folder.path().join("bootstrap.json"), folder.path().join("admin"));
        config["admin"] = json!({"address": socket_address("127.0.0.1:0".parse().unwrap())});
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(SERIN);
        command.args(["proxy", "--bootstrap"]).arg(&file).arg("--admin-address-path").arg(&admin);
        let process = Process::start(&mut command).unwrap();
        let admin = wait_until(PATIENCE, || std::fs::read_to_string(&admin).ok()?.parse().ok()).unwrap();
        let listeners =
            || Client::new(admin).get("/listeners", &[]).ok().map(|r| r.text()).filter(|t| t.contains("main::"));
        let text = wait_until(PATIENCE, listeners).unwrap();
        let address = text.lines().find_map(|l| l.strip_prefix("main::")).unwrap().parse().unwrap();
        for _ in 0..3 {
            assert_eq!(Client::new(address).get("/", &[]).unwrap().text(), "static");
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(Client::new(admin).get("/ready", &[]).unwrap().status, 503, "not ready before it was configured");
        drop(process);
    }
}
