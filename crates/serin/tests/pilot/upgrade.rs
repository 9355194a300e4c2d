//! A pilot that is upgraded, or begun anew, goes on where it was.

use serin_testkit::pilot::{Folder, Pilot};

use super::SERIN;

/// The state that an earlier version wrote: a release under way, one promoted, one aborted, one that waits to be started.
#[test]
fn a_state_file_of_an_earlier_version_is_read_rightly() {
    let folder = Folder::new(&[("m.yaml", include_str!("state/mesh.yaml"))]).unwrap();
    let state = folder.beside("state.json");
    std::fs::write(&state, include_str!("state/before-fingerprints.json")).unwrap();
    let phases = |pilot: &Pilot| {
        ["going", "gone", "back", "early"].map(|name| {
            let status = pilot.wait_for(name, |s| s["phase"].is_string()).unwrap();
            status["phase"].as_str().unwrap().to_owned()
        })
    };
    let expected = ["baking", "promoted", "rolledBack", "pending"];
    for round in 0..2 {
        let pilot = Pilot::start(SERIN, &folder, &["--state", state.to_str().unwrap()]).unwrap();
        assert_eq!(phases(&pilot), expected, "round {round}");
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert_eq!(phases(&pilot), expected, "round {round}, later");
        let going = pilot.status("going");
        assert_eq!((going["weights"]["configured"].as_f64(), going["salt"].as_str()), (Some(5.0), Some("")), "{going}");
    }
    // Other fields than the versions leave one that went back where it is; another order of fields changes nothing at all.
    let text = include_str!("state/mesh.yaml");
    let text = text.replace("steps: [{weight: 50%}], guard: 0s", "guard: 0s, steps: [{weight: 50%}]");
    folder.save("m.yaml", &text).unwrap();
    let pilot = Pilot::start(SERIN, &folder, &["--state", state.to_str().unwrap()]).unwrap();
    assert_eq!(phases(&pilot), expected);
    let guard = "{name: back}\nspec: {guard: 5m, host: back";
    folder.save("m.yaml", &text.replace("{name: back}\nspec: {host: back", guard)).unwrap();
    let told = pilot.wait_for("back", |s| s["history"].to_string().contains("stays rolled back")).unwrap();
    assert_eq!(told["phase"], "rolledBack");
    assert_eq!(pilot.says("back", "retry", &serde_json::json!({"comment": "again"})).unwrap().0, 200);
    pilot.wait_for("back", |s| s["phase"] != "rolledBack").unwrap();
}

/// Without a word about the state it is kept beside the folder, so that a restart releases nothing again.
#[test]
fn a_promoted_release_is_not_begun_again_by_a_restart() {
    let folder = Folder::new(&[("m.yaml", include_str!("state/mesh.yaml"))]).unwrap();
    let started = |arguments: &[&str]| Pilot::start(SERIN, &folder, arguments).unwrap();
    let pilot = started(&[]);
    pilot.wait_for("gone", |s| s["weights"]["applied"] == 50.0).unwrap();
    assert_eq!(pilot.says("gone", "promote", &serde_json::json!({"full": true})).unwrap().0, 200);
    pilot.wait_for("gone", |s| s["phase"] == "promoted").unwrap();
    drop(pilot);
    let pilot = started(&[]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(pilot.status("gone")["phase"], "promoted");
    assert!(folder.beside(".mesh.serin").join("releases.json").is_file());
    drop(pilot);
    let pilot = started(&["--state", "none"]);
    assert!(pilot.process.stderr().join("\n").contains("a restart begins every release anew"));
    pilot.wait_for("gone", |s| s["weights"]["applied"] == 50.0).unwrap();
}
