//! One saved file moves part of the traffic, and not one request fails.

use std::time::{Duration, Instant};

use serin_testkit::load::{self, Answer, Load};
use serin_testkit::process::wait_until;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn share(answers: &[Answer], wanted: &str) -> f64 {
    let hits = answers.iter().filter(|a| matches!(&a.outcome, Ok((200, v)) if v == wanted)).count();
    hits as f64 / answers.len() as f64
}

/// Five standard errors: wrong about once in two million runs.
fn assert_share(answers: &[Answer], wanted: &str, expected: f64) {
    assert_eq!(load::failures(answers), Vec::<String>::new());
    let error = (expected * (1.0 - expected) / answers.len() as f64).sqrt();
    let share = share(answers, wanted);
    eprintln!("share of {wanted}: {share:.4}, expected {expected} ± {error:.4}");
    assert!(
        (share - expected).abs() <= 5.0 * error + 1e-9,
        "share of {wanted} is {share}, expected {expected} ± 5 × {error}"
    );
}

fn wait_for(load: &Load, since: Instant, wanted: &str) -> Duration {
    let found =
        || load.answers().into_iter().find(|a| a.at >= since && matches!(&a.outcome, Ok((_, v)) if v == wanted));
    let answer = wait_until(PATIENCE, found).unwrap();
    answer.at.duration_since(since)
}

#[test]
fn a_saved_weight_moves_that_share_and_nothing_fails() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v1", 100)], "")).unwrap();
    demo.wait_synced(PATIENCE).unwrap();
    let entrance = demo.entrance().unwrap();
    let background = Load::start(entrance, REVIEWS, 200, version);
    wait_until(PATIENCE, || (background.count() > 200).then_some(())).unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v1", 90), ("v3", 10)], "")).unwrap();
    let saved = Instant::now();
    let first = wait_for(&background, saved, "v3");
    eprintln!("first v3 answer {} ms after the save", first.as_millis());
    assert_share(&load::burst(entrance, REVIEWS, 10_000, version), "v3", 0.1);

    demo.save("reviews.yaml", &reviews(false, &[("v1", 999), ("v3", 1)], "")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    demo.wait_synced(PATIENCE).unwrap();
    assert_share(&load::burst(entrance, REVIEWS, 6_000, version), "v3", 0.001);

    demo.save("reviews.yaml", &reviews(false, &[("v1", 0), ("v3", 100)], "")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    demo.wait_synced(PATIENCE).unwrap();
    assert_share(&load::burst(entrance, REVIEWS, 500, version), "v3", 1.0);
    assert_eq!(load::failures(&background.stop()), Vec::<String>::new());
    demo.end().unwrap();
}

#[test]
fn a_broken_file_is_said_and_changes_nothing() {
    let demo = demo().start().unwrap();
    let background = Load::start(demo.entrance().unwrap(), REVIEWS, 100, version);
    for (text, said) in [
        ("apiVersion: networking.istio.io/v1\nkind: VirtualService\n spec: [", "reviews.yaml:3:"),
        (&reviews(false, &[("v1", 90), ("v9", 10)], ""), "v9"),
        (&reviews(false, &[("v1", 0), ("v2", 0)], ""), "all zero"),
        (&reviews(false, &[("v3", 1)], "    timeuot: 3s\n"), "did you mean 'timeout'"),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec: {hosts: [reviews], http: []}\n",
            "at least one rule",
        ),
        (&reviews(false, &[("v3", 1)], "    headers: {request: {set: {'x user': a}}}\n"), "no header name"),
    ] {
        demo.save("reviews.yaml", text).unwrap();
        demo.process.wait_for(said, PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let rules = demo.read("destination-rules.yaml").unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v1", 1)], "")).unwrap();
    for text in [rules.replace("- name: v1", "- name: v11"), String::new()] {
        demo.save("destination-rules.yaml", &text).unwrap();
        demo.process.wait_for("stays in force as it was", PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
    demo.save("destination-rules.yaml", &rules).unwrap();
    let answers = background.stop();
    assert_share(&answers, "v1", 1.0);
    demo.save("reviews.yaml", &reviews(false, &[("v3", 1)], "")).unwrap();
    let mut client = demo.client().unwrap();
    wait_until(PATIENCE, || (version(&client.get(REVIEWS, &[]).unwrap().text()) == "v3").then_some(())).unwrap();
    demo.end().unwrap();
}

/// A subset that did not exist when the proxies started: a new cluster has to get warm before routes lead to it.
#[test]
fn a_new_subset_is_taken_into_use() {
    let demo = demo().start().unwrap();
    let rules = demo.read("destination-rules.yaml").unwrap();
    let with_v9 = rules.replace("  - name: v3\n", "  - name: v9\n    labels: {version: v2}\n  - name: v3\n");
    assert_ne!(with_v9, rules);
    let background = Load::start(demo.entrance().unwrap(), REVIEWS, 100, version);
    demo.save("destination-rules.yaml", &with_v9).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let saved = Instant::now();
    demo.save("reviews.yaml", &reviews(false, &[("v9", 1)], "")).unwrap();
    wait_for(&background, saved, "v2");
    demo.save("reviews.yaml", &reviews(false, &[("v3", 1)], "")).unwrap();
    wait_for(&background, Instant::now(), "v3");
    demo.wait_synced(PATIENCE).unwrap();
    assert_eq!(load::failures(&background.stop()), Vec::<String>::new());
    demo.end().unwrap();
}

#[test]
fn the_header_rule_goes_before_the_weights() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(true, &[("v1", 90), ("v3", 10)], "")).unwrap();
    let mut client = demo.client().unwrap();
    let seen = |client: &mut serin_testkit::client::Client| version(&client.get(REVIEWS, &[]).unwrap().text());
    wait_until(PATIENCE, || (seen(&mut client) == "v3").then_some(())).unwrap();
    for _ in 0..100 {
        let response = client.get(REVIEWS, &[("end-user", "jason")]).unwrap();
        assert_eq!((response.status, version(&response.text()).as_str()), (200, "v2"));
    }
    assert_share(&load::burst(demo.entrance().unwrap(), REVIEWS, 2_000, version), "v3", 0.1);
    demo.end().unwrap();
}
