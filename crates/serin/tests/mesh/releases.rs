//! Releases for real: pilot, proxies, applications, load; rolled back by themselves, promoted by themselves, interrupted.
//!
//! `KILLS=200` kills the pilot that often instead of a few times; `REQUESTS=1000000` asks for that many at each weight.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::client::Client;
use serin_testkit::demo::Demo;
use serin_testkit::load::{self, Load};
use serin_testkit::process::{Signal, kill, signal, wait_until};

use super::*;

const SERIN: &str = env!("CARGO_BIN_EXE_serin");
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a story of the demo to its end; the lines of its release.
fn story(name: &str) -> (Output, Vec<Value>) {
    let mut command = Command::new(SERIN);
    command.args(["demo", "--release", name, "--free-ports", "--json", "--for", "150s"]);
    if let Some(envoy) = std::env::var_os("SERIN_TEST_ENVOY") {
        command.args(["--data-plane", "envoy", "--envoy"]).arg(envoy);
    }
    let output = command.output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Value> = lines.lines().skip(1).map(|l| serde_json::from_str(l).unwrap()).collect();
    (output, lines)
}

fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["event"] == event).collect()
}

/// Milliseconds from one line to another.
fn between(one: &Value, other: &Value) -> i64 {
    let at = |line: &Value| -> f64 {
        let text = line["time"].as_str().unwrap();
        let clock = text.split('T').nth(1).unwrap().trim_end_matches('Z');
        clock.split(':').map(|part| part.parse::<f64>().unwrap()).fold(0.0, |sum, part| sum * 60.0 + part)
    };
    ((at(other) - at(one)) * 1000.0).round() as i64
}

#[test]
fn a_bad_version_goes_back_by_itself() {
    for name in ["bad", "slow", "flaky"] {
        let (output, lines) = story(name);
        let done = *of(&lines, "done").last().unwrap_or_else(|| panic!("{name}: {output:?}"));
        assert_eq!((output.status.code(), &done["outcome"]), (Some(0), &json!("rolledBack")), "{name}: {done}");
        assert_eq!(done["weights"]["applied"], 0.0);
        let verdict = *of(&lines, "verdict").last().unwrap();
        eprintln!("{name}: back {} ms after the verdict: {}", between(verdict, done), done["reason"]);
        if name == "flaky" {
            assert!(done["reason"].as_str().unwrap().contains("one instance, 127.0.0.1:"), "{done}");
        }
        // Five per cent were exposed, and never more.
        assert!(lines.iter().all(|l| l["weights"]["configured"].as_f64().unwrap() <= 5.0));
    }
}

#[test]
fn a_good_version_gets_everything_step_by_step() {
    let (output, lines) = story("good");
    let done = *of(&lines, "done").last().unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!((output.status.code(), &done["outcome"]), (Some(0), &json!("promoted")), "{done}");
    let applied: Vec<f64> = of(&lines, "applied").iter().map(|l| l["weights"]["applied"].as_f64().unwrap()).collect();
    assert_eq!(applied, [5.0, 25.0, 50.0, 100.0]);
    for line in of(&lines, "evidence") {
        assert!(line["weights"]["observed"].is_number(), "{line}");
    }
}

#[test]
fn without_evidence_a_person_is_asked() {
    let (output, lines) = story("low-traffic");
    let done = *of(&lines, "done").last().unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!((output.status.code(), &done["outcome"]), (Some(0), &json!("held")), "{done}");
}

/// A release of v3 beside v2 whose steps somebody must approve; `more` are lines of its spec.
fn release(weights: &[f64], more: &str) -> String {
    let step = |w: &f64| format!("  - {{weight: {w}%, bake: 0s, approval: {{}}}}\n");
    let steps: String = weights.iter().map(step).collect();
    format!(
        "apiVersion: serin.dev/v1alpha1\nkind: Release\nmetadata: {{name: r}}\nspec:\n  host: reviews\n  \
         stable: {{labels: {{version: v2}}}}\n  candidate: {{labels: {{version: v3}}}}\n{more}  steps:\n{steps}  \
         analysis: {{warmup: 0s, compareLatency: false, onDeadline: promote}}\n  guard: 0s\n"
    )
}

fn pilot(demo: &Demo) -> Client {
    let admin = demo.line["pilot"]["admin"].as_str().unwrap().trim_start_matches("http://");
    Client::new(admin.parse().unwrap())
}

/// The release as the pilot shows it, once it answers.
pub(super) fn status(demo: &Demo) -> Option<Value> {
    let answer = pilot(demo).get("/api/v1/releases/default/r", &[]).ok()?;
    let value: Value = serde_json::from_slice(&answer.body).ok()?;
    value["status"].is_object().then(|| value["status"].clone())
}

pub(super) fn wait_phase(demo: &Demo, phase: &str) -> Value {
    let there = || status(demo).filter(|s| s["phase"] == phase);
    wait_until(PATIENCE, there).unwrap_or_else(|e| panic!("{phase}: {e}: {:?}", status(demo)))
}

pub(super) fn says(demo: &Demo, action: &str) -> u16 {
    pilot(demo).request("POST", &format!("/api/v1/releases/default/r/{action}"), &[], b"{}").unwrap().status
}

#[test]
fn a_user_never_goes_back_while_weights_rise() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    demo.save("release.yaml", &release(&[1.0, 5.0, 20.0, 50.0, 80.0], "  stickiness: {header: end-user}\n")).unwrap();
    let mut client = demo.client().unwrap();
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    for step in 0..5 {
        wait_step(&demo, step);
        let mut new = 0;
        for user in 0..400 {
            let name = format!("user-{user}");
            let answer = client.get(REVIEWS, &[("end-user", &name)]).unwrap();
            let found = version(&answer.text());
            new += usize::from(found == "v3");
            if before.get(&user).is_some_and(|v| v == "v3") {
                assert_eq!(found, "v3", "{name} went back at step {step}");
            }
            before.insert(user, found);
        }
        eprintln!("step {step}: {new} of 400 users have the new version");
        assert_eq!(says(&demo, "approve"), 200);
    }
    wait_phase(&demo, "promoted");
    demo.end().unwrap();
}

/// Waits until a step awaits approval.
fn wait_step(demo: &Demo, step: usize) -> Value {
    let at = || status(demo).filter(|s| s["phase"] == "awaitingApproval" && s["step"] == step);
    wait_until(PATIENCE, at).unwrap_or_else(|e| panic!("step {step}: {e}: {:?}", status(demo)))
}

#[test]
fn each_weight_is_the_share_that_is_observed() {
    let requests: usize = std::env::var("REQUESTS").ok().and_then(|r| r.parse().ok()).unwrap_or(2_000);
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    let weights = [0.01, 0.1, 1.0, 10.0, 50.0];
    demo.save("release.yaml", &release(&weights, "")).unwrap();
    for (step, weight) in weights.into_iter().enumerate() {
        wait_step(&demo, step);
        let answers = load::burst(demo.entrance().unwrap(), REVIEWS, requests, version);
        assert_eq!(load::failures(&answers), Vec::<String>::new());
        let new = answers.iter().filter(|a| matches!(&a.outcome, Ok((_, v)) if v == "v3")).count() as f64;
        let (share, of) = (weight / 100.0, requests as f64);
        let errors = (new - share * of) / (share * (1.0 - share) * of).sqrt();
        eprintln!(
            "{weight} %: {new} of {requests} had the new version, {:.4} %, {errors:.2} standard errors off",
            100.0 * new / of
        );
        // Small counts are not normal: one request more or less proves nothing.
        let few = 1.0 / (share * of).sqrt().max(0.1);
        assert!(errors.abs() <= 5.0 + few, "{new} of {requests} at {weight} %");
        assert_eq!(says(&demo, "approve"), 200);
    }
    wait_phase(&demo, "promoted");
    demo.end().unwrap();
}

/// A process and its children: Envoy runs below a process of the demo.
fn family(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = threads.map(|t| std::fs::read_to_string(t.unwrap().path().join("children")).unwrap_or_default());
    let children: String = children.collect::<Vec<_>>().join(" ");
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|c| c.parse().ok())).collect()
}

#[test]
fn an_abort_waits_for_no_proxy_that_hangs_and_no_candidate_that_is_dead() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    demo.save("release.yaml", &release(&[50.0, 60.0], "")).unwrap();
    wait_step(&demo, 0);
    let pid = |entry: &Value, field: &str| u32::try_from(entry[field].as_u64().unwrap()).unwrap();
    let hangs = demo.proxies("details").into_iter().find(|p| p["workload"] == "details-v1-1").unwrap();
    let hanging = family(pid(&hangs, "pid"));
    hanging.iter().for_each(|pid| signal(*pid, Signal::STOP));
    assert_eq!(says(&demo, "approve"), 200);
    let named = || status(&demo).filter(|s| s["phase"] == "shifting" && s["laggards"].to_string().contains("details"));
    let lags = wait_until(PATIENCE, named).unwrap_or_else(|e| panic!("{e}: {:?}", status(&demo)));
    assert_eq!(lags["laggards"].as_array().map(Vec::len), Some(1), "{lags}");
    for entry in demo.proxies("reviews").iter().filter(|p| p["workload"].as_str().unwrap().starts_with("reviews-v3")) {
        kill(pid(entry, "app_pid"));
    }
    assert_eq!(says(&demo, "abort"), 200);
    assert_eq!(status(&demo).unwrap()["weights"]["configured"], 0.0);
    let entrance = demo.entrance().unwrap();
    let stable = |count: usize| {
        let answers = load::burst(entrance, REVIEWS, count, version);
        answers.iter().all(|a| matches!(&a.outcome, Ok((200, v)) if v == "v2"))
    };
    wait_until(PATIENCE, || stable(20).then_some(())).unwrap();
    assert!(stable(500));
    let end = wait_phase(&demo, "rolledBack");
    assert!(end["reason"].as_str().unwrap().contains("not confirmed by default/details-v1-1"), "{end}");
    hanging.iter().for_each(|pid| signal(*pid, Signal::CONT));
    demo.wait_synced(PATIENCE).unwrap();
    demo.end().unwrap();
}

#[test]
fn an_abort_takes_effect_in_every_state() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    let hanging = "  - {weight: 50%, bake: 0s, before: [{command: [sleep, '1000'], timeout: 1000s}]}\n";
    let freezing = release(&[50.0], "")
        .replace("  - {weight", &format!("{hanging}  - {{weight"))
        .replace("weight: 50%, bake: 0s, approval", "weight: 60%, bake: 0s, approval");
    let baking = release(&[50.0], "").replace("bake: 0s", "bake: 1000s");
    let waiting = release(&[50.0], "  start: manual\n");
    for (document, phase) in
        [(freezing, "before"), (baking, "baking"), (release(&[50.0], ""), "awaitingApproval"), (waiting, "pending")]
    {
        let earlier = status(&demo);
        demo.save("release.yaml", &document).unwrap();
        if let Some(before) = earlier {
            // The same versions stay rolled back until somebody says otherwise.
            assert_eq!(before["phase"], "rolledBack");
            let kept = |s: &Value| s["history"].to_string().matches("stays rolled back").count();
            let told = |s: &Value| kept(s) > kept(&before);
            wait_until(PATIENCE, || status(&demo).filter(told)).unwrap();
            assert_eq!(says(&demo, "retry"), 200);
        }
        wait_phase(&demo, phase);
        assert_eq!(says(&demo, "abort"), 200, "{phase}");
        let end = wait_phase(&demo, "rolledBack");
        assert_eq!(end["weights"]["configured"], 0.0, "{phase}");
        let answers = load::burst(demo.entrance().unwrap(), REVIEWS, 100, version);
        let with: Vec<&str> = answers.iter().map(|a| a.outcome.as_ref().unwrap().1.as_str()).collect();
        assert!(with.iter().all(|v| *v == "v2"), "{phase}: {with:?}");
    }
    demo.end().unwrap();
}

#[test]
fn a_pilot_that_is_killed_goes_on_where_it_was() {
    let kills: usize = std::env::var("KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(5);
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v2", 100)], "")).unwrap();
    let load = Load::start(demo.entrance().unwrap(), REVIEWS, 50, version);
    let plan = [1.0, 10.0, 50.0];
    demo.save("release.yaml", &release(&plan, "")).unwrap();
    wait_phase(&demo, "awaitingApproval");
    let mut random = std::process::id() as usize;
    for kill in 0..kills {
        let found = status(&demo).unwrap();
        let weight = found["weights"]["configured"].as_f64().unwrap();
        assert!(plan.contains(&weight), "{weight} is not in the plan");
        // Approvals are spread over the kills; the last steps are left for the end.
        if kill == kills / 3 || kill == 2 * kills / 3 {
            wait_phase(&demo, "awaitingApproval");
            assert_eq!(says(&demo, "approve"), 200);
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 33) as u64 % 400));
        let page: Value = serde_json::from_str(&pilot(&demo).get("/debug/processz", &[]).unwrap().text()).unwrap();
        let killed = Command::new("kill").args(["-9", &page["pid"].to_string()]).status().unwrap();
        assert!(killed.success());
        let tail = || demo.process.stderr().iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n");
        wait_until(PATIENCE, || status(&demo)).unwrap_or_else(|e| panic!("after {} kills: {e}\n{}", kill + 1, tail()));
    }
    for _ in 0..3 {
        let waits = || status(&demo).filter(|s| s["phase"] == "awaitingApproval" || s["phase"] == "promoted");
        if wait_until(PATIENCE, waits).unwrap()["phase"] == "promoted" {
            break;
        }
        says(&demo, "approve");
        std::thread::sleep(Duration::from_millis(1000));
    }
    wait_phase(&demo, "promoted");
    let audit: Value = serde_json::from_str(&pilot(&demo).get("/api/v1/audit", &[]).unwrap().text()).unwrap();
    assert_eq!(audit["whole"], true, "{audit}");
    assert_eq!(load::failures(&load.stop()), Vec::<String>::new());
    demo.end().unwrap();
}
