//! Applications, proxies and the pilot die; requests do not.

use std::time::Duration;

use serde_json::Value;
use serin_testkit::load::{Load, failures};
use serin_testkit::process::{kill, terminate, wait_until};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn pid(entry: &Value, field: &str) -> u32 {
    u32::try_from(entry[field].as_u64().unwrap()).unwrap()
}

fn settle(load: &Load, more: usize) {
    let target = load.count() + more;
    wait_until(PATIENCE, || (load.count() >= target).then_some(())).unwrap();
}

#[test]
fn with_retries_nobody_notices_that_an_application_was_killed() {
    let retries = "    retries: {attempts: 2, retryOn: \"gateway-error,connect-failure,reset\"}\n";
    let rules = reviews(false, &[("v1", 50), ("v3", 50)], retries);
    let demo = demo().rule("reviews.yaml", &rules).unwrap().start().unwrap();
    let load = Load::start(demo.entrance().unwrap(), REVIEWS, 200, version);
    settle(&load, 300);
    for entry in
        demo.proxies("reviews").iter().filter(|p| p["workload"] == "reviews-v1-0" || p["workload"] == "reviews-v3-1")
    {
        kill(pid(entry, "app_pid"));
        demo.process.wait_for(&format!("{} ended", entry["workload"].as_str().unwrap()), PATIENCE).unwrap();
        settle(&load, 300);
    }
    assert_eq!(failures(&load.stop()), Vec::<String>::new());
    demo.end().unwrap();
}

#[test]
fn without_retries_only_the_first_moment_notices() {
    let demo = demo().start().unwrap();
    let load = Load::start(demo.entrance().unwrap(), REVIEWS, 200, version);
    settle(&load, 200);
    let entry = demo.proxies("reviews").into_iter().find(|p| p["workload"] == "reviews-v1-0").unwrap();
    kill(pid(&entry, "app_pid"));
    let killed = std::time::Instant::now();
    demo.process.wait_for("reviews-v1-0 ended", PATIENCE).unwrap();
    settle(&load, 600);
    let answers = load.stop();
    let failed: Vec<_> = answers.iter().filter(|a| !matches!(a.outcome, Ok((200, _)))).collect();
    let last = failed.iter().map(|a| a.at.saturating_duration_since(killed)).max().unwrap_or_default();
    eprintln!("{} of {} failed, the last {} ms after the kill", failed.len(), answers.len(), last.as_millis());
    let tail = answers.iter().rev().take(300).filter(|a| !matches!(a.outcome, Ok((200, _)))).count();
    assert_eq!(tail, 0, "requests still fail long after the kill");
    demo.end().unwrap();
}

#[test]
fn the_pilot_can_die_and_a_new_one_is_found() {
    let demo = demo().start().unwrap();
    let load = Load::start(demo.entrance().unwrap(), REVIEWS, 100, version);
    settle(&load, 100);
    kill(pid(&demo.line["pilot"], "pid"));
    demo.process.wait_for("pilot ended", PATIENCE).unwrap();
    demo.wait_synced(PATIENCE).unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v3", 1)], "")).unwrap();
    let mut client = demo.client().unwrap();
    wait_until(PATIENCE, || (version(&client.get(REVIEWS, &[]).unwrap().text()) == "v3").then_some(())).unwrap();
    assert_eq!(failures(&load.stop()), Vec::<String>::new());
    demo.end().unwrap();
}

#[test]
fn every_proxy_can_be_restarted_in_turn() {
    let demo = demo().start().unwrap();
    let load = Load::start(demo.entrance().unwrap(), REVIEWS, 100, version);
    settle(&load, 100);
    for service in ["reviews", "ratings", "details", "productpage"] {
        for entry in demo.proxies(service) {
            let workload = entry["workload"].as_str().unwrap();
            if !(workload.starts_with("reviews-v1") || service == "productpage" || workload.ends_with("-0")) {
                continue;
            }
            terminate(pid(&entry, "pid"));
            demo.process.wait_for(&format!("proxy of {workload} serves again"), PATIENCE).unwrap();
            settle(&load, 30);
        }
    }
    assert_eq!(failures(&load.stop()), Vec::<String>::new());
    demo.end().unwrap();
}
