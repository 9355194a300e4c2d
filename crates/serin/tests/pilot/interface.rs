//! What people and browsers may do, and what is answered when it cannot be kept.

use std::time::Duration;

use serde_json::json;
use serin_testkit::client::Client;
use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::wait_until;

use super::SERIN;

fn folder() -> Folder {
    Folder::new(&[("m.yaml", include_str!("state/mesh.yaml"))]).unwrap()
}

fn release(pilot: &Pilot, arguments: &[&str]) -> std::process::Output {
    let address = pilot.admin.to_string();
    let mut command = std::process::Command::new(SERIN);
    command.arg("release").args(arguments).args(["--pilot", &address]).output().unwrap()
}

/// A page of a name that leads here by a trick moves nothing, and every answer says what browsers must not do with it.
#[test]
fn another_name_is_refused_and_promote_leaves_its_reason() {
    let folder = folder();
    let pilot = Pilot::start(SERIN, &folder, &["--admin-name", "pilot.example"]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let own = pilot.admin.to_string();
    let port = pilot.admin.port();
    let act = "/api/v1/releases/default/going/pause";
    for (host, origin, expected) in [
        ("evil.example".to_owned(), Some("http://evil.example".to_owned()), 421),
        (format!("evil.example:{port}"), Some(format!("http://evil.example:{port}")), 421),
        ("127.0.0.1.evil.example".to_owned(), None, 421),
        ("localhost.evil.example".to_owned(), None, 421),
        (own.clone(), Some("http://evil.example".to_owned()), 403),
        (format!("localhost:{port}"), Some(format!("http://localhost:{port}")), 200),
        (own.clone(), Some(format!("http://{own}")), 200),
        (format!("[::1]:{port}"), None, 200),
        (format!("pilot.example:{port}"), None, 200),
    ] {
        let mut headers = vec![("host", host.as_str())];
        headers.extend(origin.as_deref().map(|o| ("origin", o)));
        let response = Client::new(pilot.admin).request("POST", act, &headers, b"{}").unwrap();
        assert_eq!(response.status, expected, "{host} {origin:?}: {}", response.text());
        for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
            assert_eq!(response.header(name), Some(value), "{host}");
        }
        assert!(response.header("content-security-policy").is_some());
    }
    for (body, expected) in [
        (json!({"comment": "x".repeat(501)}).to_string(), 400),
        (json!({"comment": "x".repeat(20_000)}).to_string(), 413),
        (json!({"comment": "é".repeat(500)}).to_string(), 200),
    ] {
        assert_eq!(Client::new(pilot.admin).request("POST", act, &[], body.as_bytes()).unwrap().status, expected);
    }
    let promoted = release(&pilot, &["promote", "going", "-m", "seen the numbers"]);
    assert!(promoted.status.success(), "{promoted:?}");
    let log = pilot.json("/api/v1/audit?last=50").unwrap();
    assert!(log["last"].to_string().contains("promotes it: seen the numbers"), "{log}");
    assert_eq!(log["whole"], true);
}

/// What goes where nobody is, is refused with a reason; `status --wait` waits for what is not there yet.
#[test]
fn commands_say_why_they_refuse() {
    let folder = folder();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let text = include_str!("state/mesh.yaml");
    folder.save("m.yaml", &text.replace("{address: 127.0.0.1, labels: {version: v1}}, ", "")).unwrap();
    wait_until(Duration::from_secs(20), || {
        let one = pilot.json("/api/v1/releases/default/going").unwrap();
        (one["instances"]["stable"] == 0).then_some(())
    })
    .unwrap();
    let refused = release(&pilot, &["abort", "going"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no instance of the stable version (version=v1) is ready") && said.contains("--force"),
        "{said}"
    );
    assert!(release(&pilot, &["abort", "going", "--force"]).status.success());
    folder.save("m.yaml", text).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "rolledBack").unwrap();
    let address = pilot.admin.to_string();
    let mut waits = std::process::Command::new(SERIN);
    let waits = waits.args(["release", "status", "late", "--wait", "--timeout", "30s", "--pilot", &address]);
    let waits = waits.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    let late = text.replace("{name: gone}", "{name: late}").replace("host: gone", "host: gone, supersede: replace");
    folder.save("m.yaml", &late).unwrap();
    pilot.wait_for("late", |s| s["weights"]["applied"] == 50.0).unwrap();
    assert_eq!(pilot.says("late", "promote", &json!({"full": true})).unwrap().0, 200);
    let ended = waits.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let never = release(&pilot, &["status", "never", "--wait", "--timeout", "1s"]);
    assert_eq!(never.status.code(), Some(2));
}

/// An action that is not on the disk is not confirmed; a log that lacks entries says so; a state belongs to one pilot.
#[test]
fn what_cannot_be_kept_is_not_confirmed() {
    let folder = folder();
    let state = folder.beside("state.json");
    let arguments = ["--state", state.to_str().unwrap()];
    let pilot = Pilot::start(SERIN, &folder, &arguments).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let second = std::process::Command::new(SERIN)
        .args(["pilot", "--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
        .arg(folder.documents())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another pilot keeps its releases in"), "{said}");
    // The same path cannot be written any more: a folder stands where the new state is put first.
    let beside = folder.beside("state.new");
    let _ = std::fs::remove_file(&beside);
    std::fs::create_dir(&beside).unwrap();
    let (status, answer) = pilot.says("going", "abort", &json!({"comment": "now"})).unwrap();
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("is done, but it is not confirmed"), "{answer}");
    pilot.wait_for("going", |s| s["phase"] == "rolledBack").unwrap();
    std::fs::remove_dir(&beside).unwrap();
    wait_until(Duration::from_secs(20), || {
        std::fs::read_to_string(&state).ok().filter(|t| t.contains("rolledBack")).map(|_| ())
    })
    .unwrap();
    assert_eq!(pilot.json("/api/v1/audit").unwrap()["whole"], true, "another pilot's attempt broke nothing");
}

/// A body that is not as it should be changes nothing: what is misspelt in it may be what matters.
#[test]
fn bodies_are_read_to_the_letter() {
    let folder = folder();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    for (action, body) in [
        ("promote", json!({"coment": "why"})),
        ("promote", json!({"comment": 5})),
        ("promote", json!({"full": "true"})),
        ("abort", json!({"force": "yes"})),
        ("pause", json!([])),
        ("pause", json!("why")),
    ] {
        let (status, answer) = pilot.says("going", action, &body).unwrap();
        assert_eq!(status, 400, "{action} {body}: {answer}");
    }
    assert_eq!(pilot.status("going")["phase"], "baking");
    for (action, comment) in [("pause", "lunch"), ("resume", "back from it"), ("start", "anyhow")] {
        assert_eq!(pilot.says("going", action, &json!({"comment": comment})).unwrap().0, 200, "{action}");
    }
    let log = pilot.json("/api/v1/audit?last=50").unwrap()["last"].to_string();
    for part in ["pauses it: lunch", "resumes it: back from it", "starts it: anyhow"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

/// A document with an error is said wherever an answer depends on it: by the release, by a list of them, by the proxy that explains a
/// request, by `analyze`.
#[test]
fn a_document_with_an_error_is_said_everywhere() {
    let folder = folder();
    folder.save("s.yaml", &super::sidecar(super::free_port())).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
    pilot.wait_synced(1).unwrap();
    let text = include_str!("state/mesh.yaml");
    let known = |name: &str| release(&pilot, &["get", name]);
    let out = |output: &std::process::Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    folder.save("m.yaml", &text.replace("{name: going}\nspec: {", "{name: going}\nspec: {gaurd: 5m, ")).unwrap();
    folder
        .save("n.yaml", "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {name: new}\nspec: {hots: x}\n")
        .unwrap();
    wait_until(Duration::from_secs(20), || out(&known("going")).contains("unknown field 'gaurd'").then_some(()))
        .unwrap();
    let said = out(&known("going"));
    assert!(said.contains("has errors (m.yaml:") && said.contains("the version from before is in force"), "{said}");
    let said = out(&known("new"));
    assert!(said.contains("there is no release default/new: its document has an error, n.yaml:"), "{said}");
    let said = out(&release(&pilot, &["list"]));
    assert!(said.contains("default/new is not in force: its document has an error"), "{said}");
    let live =
        std::process::Command::new(SERIN).args(["analyze", "--pilot", &pilot.admin.to_string()]).output().unwrap();
    assert_eq!(live.status.code(), Some(1));
    let said = out(&live);
    assert!(said.contains("Release default/going: an older version is in force, for"), "{said}");
    if std::env::var_os("SERIN_TEST_ENVOY").is_some() {
        return;
    }
    let host = pilot.json("/api/v1/releases/default/going").unwrap()["plan"]["host"].as_str().unwrap().to_owned();
    let explained = || proxy.page(&format!("/explain?url=http://{host}/")).unwrap().1;
    wait_until(Duration::from_secs(20), || explained().contains("unknown field 'gaurd'").then_some(()))
        .unwrap_or_else(|_| panic!("{}", explained()));
    folder.save("m.yaml", text).unwrap();
    wait_until(Duration::from_secs(20), || explained().contains("\"outdated\": null").then_some(())).unwrap();
}

/// With few descriptors, connections that say nothing lock out neither people nor proxies, and the process is not busy.
#[test]
fn idle_connections_lock_nobody_out() {
    let folder = folder();
    folder.save("s.yaml", &super::sidecar(super::free_port())).unwrap();
    let script = folder.beside("limited");
    std::fs::write(&script, format!("#!/bin/sh\nulimit -n 64\nexec {SERIN} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let pilot = Pilot::start(script.to_str().unwrap(), &folder, &[]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let idle = |to: std::net::SocketAddr, first: &[u8]| -> Vec<std::net::TcpStream> {
        let open = |_| {
            let mut stream = std::net::TcpStream::connect(to).unwrap();
            std::io::Write::write_all(&mut stream, first).unwrap();
            stream
        };
        (0..104).map(open).collect()
    };
    for first in [b"".as_slice(), b"GET / HTTP/1.1\r\nhost: localhost\r\n"] {
        let held = idle(pilot.admin, first);
        let before = pilot.process.cpu().unwrap();
        let answered = wait_until(Duration::from_secs(20), || pilot.json("/api/v1/releases").ok());
        assert!(answered.is_ok(), "nobody is answered beside {} idle connections", held.len());
        let used = pilot.process.cpu().unwrap() - before;
        assert!(used < Duration::from_secs(3), "{used:?} of processor time");
    }
    for first in [b"".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let held = idle(pilot.xds, first);
        let proxy = pilot.proxy("sidecar", "client-1", &[("app", "client")]).unwrap();
        assert!(pilot.wait_synced(1).is_ok(), "no proxy is served beside {} idle connections", held.len());
        drop(proxy);
    }
    assert!(pilot.process.stderr().join("\n").contains("as many connections for proxies as may be"));
}
