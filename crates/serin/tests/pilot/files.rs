//! Files are not atomic, and folders hold odd things.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serin_testkit::pilot::{Folder, Pilot};
use serin_testkit::process::wait_until;

use super::{SERIN, rule, service};

const PATIENCE: Duration = Duration::from_secs(20);

fn three() -> String {
    ["a", "b", "c"].map(|name| service(name, 80, &[("127.0.0.1:9".parse().unwrap(), "version: v1")])).concat()
}

fn count(pilot: &Pilot) -> usize {
    pilot.objects().iter().filter(|o| o.starts_with("ServiceEntry")).count()
}

/// Of a file that is being written, nothing is lost; one that stays as it is, is believed.
#[test]
fn an_empty_or_half_written_file_is_not_all_objects_deleted() {
    let folder = Folder::new(&[("m.yaml", &three())]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &["--file-grace", "3s"]).unwrap();
    assert_eq!(count(&pilot), 3);
    let never_fewer = |during: Duration| {
        let began = Instant::now();
        while began.elapsed() < during {
            assert_eq!(count(&pilot), 3, "after {:?}", began.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // (sleep 1; cat r.yaml) > mesh/r.yaml
    let mut file = std::fs::File::create(folder.documents().join("m.yaml")).unwrap();
    never_fewer(Duration::from_millis(1000));
    let text = three();
    let (first, rest) = text.split_at(text.find("{name: b}").unwrap() - 40);
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    never_fewer(Duration::from_millis(1000));
    pilot.process.wait_for("may be half-written", PATIENCE).unwrap();
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    never_fewer(Duration::from_millis(3500));
    // What is put in place of it in one step is whole, and believed at once.
    let whole = service("a", 80, &[("127.0.0.1:9".parse().unwrap(), "version: v1")]);
    std::fs::write(folder.beside("new"), &whole).unwrap();
    std::fs::rename(folder.beside("new"), folder.documents().join("m.yaml")).unwrap();
    let saved = Instant::now();
    wait_until(PATIENCE, || (count(&pilot) == 1).then_some(())).unwrap();
    assert!(saved.elapsed() < Duration::from_millis(2900), "{:?}", saved.elapsed());
    // One that stays empty is meant so, and that nothing is left is said.
    folder.save("m.yaml", "").unwrap();
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(count(&pilot), 1);
    wait_until(PATIENCE, || (count(&pilot) == 0).then_some(())).unwrap();
    pilot.process.wait_for("no service, rule or release is in force", PATIENCE).unwrap();
}

/// A Release whose document is gone holds its traffic, and says so.
#[test]
fn a_release_whose_document_vanishes_holds_its_traffic() {
    let folder = Folder::new(&[("m.yaml", include_str!("state/mesh.yaml"))]).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &["--file-grace", "0s"]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let text = include_str!("state/mesh.yaml");
    let without = &text[..text.find("---\napiVersion: serin.dev").unwrap()];
    folder.save("m.yaml", without).unwrap();
    let held = pilot.wait_for("going", |s| s["paused"].is_string()).unwrap();
    assert!(held["paused"].as_str().unwrap().contains("its document is gone"), "{held}");
    assert_eq!((held["weights"]["configured"].as_f64(), held["phase"].as_str()), (Some(5.0), Some("baking")));
    folder.save("m.yaml", text).unwrap();
    let back = pilot.wait_for("going", |s| s["paused"].is_null()).unwrap();
    assert_eq!(back["phase"], "baking");
}

/// A restart is no other than going on: what is broken or away then is what it was before.
#[test]
fn a_restart_goes_on_with_what_was_in_force() {
    let text = include_str!("state/mesh.yaml");
    let folder = Folder::new(&[("m.yaml", text)]).unwrap();
    let start = || Pilot::start(SERIN, &folder, &["--file-grace", "1s"]).unwrap();
    let pilot = start();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    let (objects, weights) = (pilot.objects(), pilot.status("going")["weights"]["configured"].clone());
    drop(pilot);
    folder.save("m.yaml", &format!("{text}\n  - [")).unwrap();
    let pilot = start();
    assert_eq!((pilot.objects(), &pilot.status("going")["weights"]["configured"]), (objects.clone(), &weights));
    // E4: that an older version is in force is said where somebody looks, with its age.
    let item = pilot.json("/api/v1/releases").unwrap()["items"][0].clone();
    assert!(item["outdated"].as_u64().is_some_and(|since| since > 1_700_000_000_000), "{item}");
    let shown = std::process::Command::new(SERIN)
        .args(["release", "get", "going", "--pilot", &pilot.admin.to_string()])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("the version from before is in force"), "{shown:?}");
    let objects_now = pilot.json("/debug/configz").unwrap().to_string();
    assert!(
        objects_now.contains("\"outdatedSeconds\":0") || objects_now.contains("\"outdatedSeconds\":1"),
        "{objects_now}"
    );
    drop(pilot);
    std::fs::remove_file(folder.documents().join("m.yaml")).unwrap();
    let pilot = start();
    let held = pilot.wait_for("going", |s| s["paused"].is_string()).unwrap();
    assert_eq!(held["weights"]["configured"], weights);
    drop(pilot);
    folder.save("m.yaml", text).unwrap();
    let pilot = start();
    let back = pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    assert!(back["paused"].is_null(), "{back}");
    assert_eq!(pilot.objects(), objects);
    // An editor that puts the file aside before it writes the new one takes nothing away.
    std::fs::rename(folder.documents().join("m.yaml"), folder.documents().join("m.yaml~")).unwrap();
    for _ in 0..12 {
        assert_eq!(pilot.objects(), objects);
        std::thread::sleep(Duration::from_millis(50));
    }
    folder.save("m.yaml", text).unwrap();
    // What moves to another file is there once, without a word of its being defined twice.
    std::fs::rename(folder.documents().join("m.yaml"), folder.documents().join("other.yaml")).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(pilot.objects(), objects);
    assert!(!pilot.process.stderr().join("\n").contains("defined twice"));
}

/// Pipes, devices, loops of links: none holds the pilot or `analyze` up.
#[test]
fn odd_things_in_the_folder_hold_nobody_up() {
    let folder = Folder::new(&[("m.yaml", &three())]).unwrap();
    let at = |name: &str| folder.documents().join(name);
    let made = std::process::Command::new("mkfifo").arg(at("pipe.yaml")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/dev/zero", at("zero.yaml")).unwrap();
    for name in ["one", "two", "three", "four"] {
        std::os::unix::fs::symlink(".", at(name)).unwrap();
    }
    let pilot = Pilot::start(SERIN, &folder, &[]).unwrap();
    assert_eq!(count(&pilot), 3);
    let said = pilot.json("/debug/diagnosticz").unwrap().to_string();
    assert_eq!(said.matches("it is no regular file").count(), 2, "{said}");
    let began = Instant::now();
    let analyzed = std::process::Command::new(SERIN).arg("analyze").arg(folder.documents()).output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(analyzed.status.code(), Some(2), "{analyzed:?}");
    assert!(String::from_utf8_lossy(&analyzed.stderr).contains("no regular file"));
    folder.save("more.yaml", &rule("DestinationRule", "a", "{host: a}")).unwrap();
    wait_until(PATIENCE, || pilot.objects().contains(&"DestinationRule a".to_owned()).then_some(())).unwrap();
}

/// The order in which folders are named does not decide which state goes on.
#[test]
fn state_is_found_beside_any_of_the_folders() {
    let folder = Folder::new(&[("m.yaml", include_str!("state/mesh.yaml"))]).unwrap();
    let (first, second) = (folder.documents(), folder.beside("more"));
    std::fs::create_dir(&second).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let pilot = Pilot::on(SERIN, &first, &["--config", &path(&second)]).unwrap();
    pilot.wait_for("going", |s| s["phase"] == "baking").unwrap();
    assert_eq!(pilot.says("going", "abort", &serde_json::json!({})).unwrap().0, 200);
    pilot.wait_for("going", |s| s["phase"] == "rolledBack").unwrap();
    drop(pilot);
    let pilot = Pilot::on(SERIN, &second, &["--config", &path(&first)]).unwrap();
    assert_eq!(pilot.wait_for("going", |s| s.is_object()).unwrap()["phase"], "rolledBack");
    assert!(!folder.beside(".more.serin").join("releases.json").exists());
}
