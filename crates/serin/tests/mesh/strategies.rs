//! Releases that are no canaries: one switch after a preview, and copies of requests first.

use std::time::Duration;

use serin_testkit::demo::Demo;
use serin_testkit::load;
use serin_testkit::process::wait_until;

use super::releases::{says, status, wait_phase};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn begin(spec: &str) -> Demo {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    let release = format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: r}}\nspec:\n  host: reviews\n  \
         stable: {{labels: {{version: v2}}}}\n  candidate: {{labels: {{version: v3}}}}\n  guard: 0s\n  \
         analysis: {{warmup: 0s, compareLatency: false, onDeadline: promote}}\n{spec}"
    );
    demo.save("release.yaml", &release).unwrap();
    demo
}

/// Whether all of so many requests are answered by this version.
fn all(demo: &Demo, count: usize, wanted: &str) -> bool {
    let answers = load::burst(demo.entrance().unwrap(), REVIEWS, count, version);
    assert_eq!(load::failures(&answers), Vec::<String>::new());
    answers.iter().all(|a| matches!(&a.outcome, Ok((200, v)) if v == wanted))
}

#[test]
fn blue_and_green_switch_once_and_back() {
    let demo = begin(
        "  strategy: blueGreen\n  preview: [{headers: {end-user: {exact: jason}}}]\n  bake: 0s\n  approval: {}\n",
    );
    wait_phase(&demo, "awaitingApproval");
    let mut client = demo.client().unwrap();
    for _ in 0..20 {
        assert_eq!(version(&client.get(REVIEWS, &[("end-user", "jason")]).unwrap().text()), "v3");
    }
    assert!(all(&demo, 200, "v2"));
    assert_eq!(says(&demo, "approve"), 200);
    wait_phase(&demo, "promoted");
    assert!(all(&demo, 200, "v3"));
    assert_eq!(says(&demo, "undo"), 200);
    wait_phase(&demo, "rolledBack");
    assert!(all(&demo, 200, "v2"));
    demo.end().unwrap();
}

#[test]
fn copies_of_requests_come_first() {
    let demo = begin(
        "  strategy: mirrorFirst\n  mirror: {share: 100%, bake: 1000s}\n  steps: [{weight: 50%, bake: 0s, approval: {}}]\n",
    );
    wait_phase(&demo, "baking");
    assert!(all(&demo, 300, "v2"), "copies answer nobody");
    let copied = || status(&demo)?["judgement"]["steps"][0]["candidate"]["requests"].as_u64().filter(|n| *n >= 290);
    wait_until(PATIENCE, copied).unwrap_or_else(|e| panic!("{e}: {:?}", status(&demo)));
    assert_eq!(says(&demo, "promote"), 200);
    let next = wait_phase(&demo, "awaitingApproval");
    assert_eq!((next["step"].as_u64(), next["weights"]["configured"].as_f64()), (Some(1), Some(50.0)));
    assert!(!all(&demo, 200, "v2"));
    assert_eq!(says(&demo, "abort"), 200);
    wait_phase(&demo, "rolledBack");
    assert!(all(&demo, 200, "v2"));
    demo.end().unwrap();
}
