//! Releases from beginning to end, under time and evidence of the tests' own.

use std::collections::BTreeMap;
use std::time::Duration;

use serin_model::{Analysis, Approval, Hook, HookCall, Hostname, Kayenta, Labels, OnDeadline, Query, Share};

use super::*;
use crate::evidence::{Applied, Arm};
use crate::{Target, changed, overlay};
use world::{World, spec};

mod reports;
mod world;

#[test]
fn a_sound_candidate_gets_everything_step_by_step() {
    let (spec, mut status, mut world) = (spec(&[5.0, 25.0, 50.0]), Status::default(), World::new(1));
    let events = world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    assert_eq!(overlay(&spec, &status).unwrap().weight, Share::ALL);
    let steps: Vec<usize> = events.iter().filter(|e| e.event == EventKind::Step).map(|e| e.step).collect();
    assert_eq!(steps, [0, 1, 2]);
    assert!(status.weights.observed.is_some());
}

#[test]
fn a_bad_candidate_goes_back_and_at_once() {
    let (spec, mut status, mut world) = (spec(&[5.0, 50.0]), Status::default(), World::new(2));
    world.failing = [0.001, 0.3];
    let events = world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::RolledBack);
    assert_eq!(overlay(&spec, &status).unwrap().weight, Share::NONE);
    assert!(status.reason.contains("worse"), "{}", status.reason);
    let verdict = events.iter().find(|e| e.event == EventKind::Verdict).unwrap();
    let back = events.iter().find(|e| e.phase == Phase::RollingBack).unwrap();
    assert_eq!(verdict.at, back.at, "nothing is between the verdict and the way back");
    assert!(world.evidence.candidate.requests < 1500, "{}", world.evidence.candidate.requests);
}

#[test]
fn without_requests_nothing_moves_and_a_person_is_asked() {
    let (spec, mut status, mut world) = (spec(&[5.0]), Status::default(), World::new(3));
    world.rate = 0.0;
    let events = world.run(&spec, &mut status, 2000);
    assert!(status.held && status.phase == Phase::Baking, "{:?}", status.phase);
    assert_eq!(events.last().unwrap().outcome, Some(crate::Outcome::Held));
    world.says(&spec, &mut status, Command::Promote { all: true, why: String::new() }).unwrap();
    world.run(&spec, &mut status, 100);
    assert_eq!(status.phase, Phase::Promoted);
}

#[test]
fn a_value_from_outside_takes_it_back_and_silence_only_holds_it_up() {
    let query = Query {
        name: "orders".to_owned(),
        server: String::new(),
        expression: "orders".to_owned(),
        min: Some(0.5),
        max: None,
        interval: Duration::from_secs(2),
        failures: 3,
    };
    let mut spec = spec(&[5.0, 50.0]);
    spec.analysis.queries = vec![query];
    let (mut status, mut world) = (Status::default(), World::new(6));
    world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);

    let (mut status, mut world) = (Status::default(), World::new(6));
    world.value = Err("nobody is there".to_owned());
    world.run(&spec, &mut status, 2000);
    assert!(status.held, "{:?}", status.phase);
    assert!(status.reason.ends_with("orders has no value: nobody is there"), "{}", status.reason);

    let (mut status, mut world) = (Status::default(), World::new(6));
    world.value = Ok(0.4);
    let before = world.now;
    world.run(&spec, &mut status, 2000);
    assert_eq!((status.phase, status.step), (Phase::RolledBack, 0));
    assert!(status.reason.contains("orders is 0.4, below 0.5, 3 times in a row"), "{}", status.reason);
    assert!(world.now - before < 15_000, "{} ms", world.now - before);
    // Twice is not three times in a row.
    let (mut status, mut world) = (Status::default(), World::new(6));
    for round in 0..2000 {
        world.value = Ok(if round % 12 < 6 { 0.4 } else { 0.6 });
        world.tick(&spec, &mut status);
    }
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
}

#[test]
fn kayentas_score_judges_where_it_is_wanted() {
    let mut spec = spec(&[20.0]);
    let interval = Duration::from_secs(1);
    spec.analysis.error_rate = None;
    spec.analysis.kayenta = Some(Kayenta { interval, points: 20, pass: 95.0, marginal: 75.0 });
    let (mut status, mut world) = (Status::default(), World::new(7));
    world.failing = [0.01, 0.01];
    world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    let (mut status, mut world) = (Status::default(), World::new(7));
    world.failing = [0.01, 0.2];
    let before = world.now;
    world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::RolledBack);
    assert!(status.reason.contains("score 50: high failures"), "{}", status.reason);
    assert!(world.now - before >= 20_000, "it has its points first");
    // A limit needs no points.
    spec.analysis.error_rate = Some(0.02);
    let (mut status, mut world) = (Status::default(), World::new(7));
    world.failing = [0.5, 0.5];
    world.run(&spec, &mut status, 2000);
    assert!(status.reason.contains("more failures than the limit"), "{}", status.reason);
}

#[test]
fn times_that_come_apart_from_requests_count() {
    let (mut status, mut spec) = (Status::default(), spec(&[20.0]));
    spec.analysis.latency = Some((0.9, Duration::from_millis(50)));
    spec.analysis.compare_latency = false;
    let mut world = World::new(8);
    let mut late = BTreeMap::new();
    for look in 0..400 {
        world.requests(overlay(&spec, &status).map_or(0.0, |o| o.weight.percent() / 100.0), 500);
        // As Envoy's metrics do: the times of a look come in the next one, in which no request is reported.
        let mut evidence = world.evidence.clone();
        evidence.candidate.times = late.clone();
        advance(&spec, &mut status, &evidence, world.now + look * 1000);
        late.clone_from(&world.evidence.candidate.times);
        evidence.candidate.times.clone_from(&late);
        advance(&spec, &mut status, &evidence, world.now + look * 1000 + 500);
    }
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    assert_eq!(status.judgement.over_limit.timed, status.judgement.step.requests, "a time of each request");
}

#[test]
fn a_regression_is_seen_while_a_hook_or_a_proxy_holds_the_step_up() {
    let mut spec = spec(&[20.0, 50.0]);
    spec.steps[1].before = vec![Hook {
        call: HookCall::Http(String::new()),
        timeout: Duration::from_secs(1000),
        metadata: BTreeMap::new(),
    }];
    let (mut status, mut world) = (Status::default(), World::new(9));
    for _ in 0..2000 {
        world.tick(&spec, &mut status);
        if (status.phase, status.step) == (Phase::Before, 1) {
            break;
        }
    }
    world.failing[1] = 0.5;
    world.run(&spec, &mut status, 60);
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.reason);

    spec.steps[1].before.clear();
    let (mut status, mut world) = (Status::default(), World::new(9));
    world.failing[1] = 0.5;
    world.evidence.applied = Applied { done: 2, of: 3, laggards: vec!["slow".to_owned()], ..Applied::default() };
    world.run(&spec, &mut status, 60);
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.reason);
    assert!(status.reason.contains("not confirmed by slow"), "{}", status.reason);
}

#[test]
fn the_next_step_needs_evidence_of_its_own() {
    let mut spec = spec(&[20.0, 40.0, 60.0]);
    spec.steps.iter_mut().for_each(|s| s.bake.min = Duration::ZERO);
    let (mut status, mut world) = (Status::default(), World::new(10));
    world.run(&spec, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    // The last one's count goes on in the guard.
    let steps: Vec<u64> = status.judgement.steps.iter().map(|s| s.candidate.requests).collect();
    assert!(steps.len() == 3 && steps.iter().all(|n| *n >= 50), "{steps:?}");
}

#[test]
fn a_hook_that_was_left_behind_answers_for_no_other() {
    let mut spec = spec(&[20.0]);
    let hook =
        Hook { call: HookCall::Http(String::new()), timeout: Duration::from_secs(1000), metadata: BTreeMap::new() };
    spec.steps[0].before = vec![hook.clone()];
    spec.steps[0].after = vec![hook];
    let (mut status, mut world) = (Status::default(), World::new(11));
    world.run(&spec, &mut status, 2);
    assert_eq!(status.phase, Phase::Before);
    world.says(&spec, &mut status, Command::Promote { all: false, why: String::new() }).unwrap();
    assert_eq!(status.phase, Phase::After);
    // Whichever it was, it was asked for at another time.
    for before in [true, false] {
        let hook = HookAt { step: 0, before, number: 0, since: status.since - 1 };
        let late = Command::Hooked { hook, result: Err("late".to_owned()) };
        assert!(command(&spec, &mut status, &world.evidence, Said::new("hook", late), world.now).is_err());
    }
    assert_eq!((status.phase, status.hook), (Phase::After, Some(0)));
}

#[test]
fn a_document_that_changes_under_way() {
    let before = spec(&[20.0, 50.0]);
    let (mut status, mut world) = (Status::of(&before), World::new(12));
    for _ in 0..12 {
        world.tick(&before, &mut status);
    }
    assert_eq!((status.phase, status.weights.configured), (Phase::Baking, 20.0));
    let heavier = spec(&[30.0, 50.0]);
    changed(Some(&before), &heavier, &mut status, world.now);
    assert_eq!((status.phase, status.weights.configured, status.step), (Phase::Shifting, 30.0, 0));
    world.run(&heavier, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted);
    let shorter = Release { guard: Duration::from_secs(1), ..heavier.clone() };
    changed(Some(&heavier), &shorter, &mut status, world.now);
    assert_eq!(status.phase, Phase::Promoted, "what has the traffic keeps it");
}

#[test]
fn the_next_version_takes_over_from_the_last_one() {
    let labels = |v: &str| Labels::from([("version".to_owned(), v.to_owned())]);
    let first = spec(&[20.0]);
    let (mut status, mut world) = (Status::of(&first), World::new(13));
    world.run(&first, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    let second = Release { stable: labels("v3"), candidate: labels("v4"), ..first.clone() };
    // The document may change while nobody is there to see it.
    changed(None, &second, &mut status, world.now);
    assert_eq!((status.phase, status.target), (Phase::Pending, Target::Stable));
    let in_force = overlay(&second, &status).unwrap();
    assert_eq!((in_force.stable, in_force.former, in_force.weight), (labels("v3"), vec![labels("v1")], Share::NONE));
    world.run(&second, &mut status, 2000);
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    assert_eq!(overlay(&second, &status).unwrap().former, [labels("v1")]);
    // One that names another as stable than what has the traffic leaves it there, and waits.
    let slip = Release { stable: labels("v33"), candidate: labels("v5"), ..first.clone() };
    let mut slipped = status.clone();
    changed(Some(&second), &slip, &mut slipped, world.now);
    world.run(&slip, &mut slipped, 20);
    assert_eq!((slipped.phase, overlay(&slip, &slipped).unwrap().stable), (Phase::Pending, labels("v4")));
    assert!(slipped.reason.contains("version=v4 has the traffic"), "{}", slipped.reason);
    // One that went back stays so when only its guard changes, and begins anew, with its traffic where it is, when somebody says so.
    let third = Release { stable: labels("v4"), candidate: labels("v5"), ..first.clone() };
    changed(Some(&second), &third, &mut status, world.now);
    command(&third, &mut status, &world.evidence, Said::new("ann", Command::Abort(String::new())), world.now).unwrap();
    world.run(&third, &mut status, 20);
    let again = Release { guard: Duration::from_secs(1), ..third.clone() };
    changed(Some(&third), &again, &mut status, world.now);
    assert_eq!((status.phase, status.target), (Phase::RolledBack, Target::Stable));
    let retry = Said::new("ann", Command::Retry("the guard was too long".to_owned()));
    command(&again, &mut status, &world.evidence, retry, world.now).unwrap();
    assert_eq!((status.phase, status.target), (Phase::Pending, Target::Stable));
    assert!(status.history.iter().any(|e| e.phase == Phase::RolledBack), "what happened before is kept");
    assert_eq!((status.holder.clone(), &status.former), (Some(labels("v4")), &vec![labels("v1"), labels("v3")]));
    let elsewhere = Release { host: Hostname::parse("ratings.default.svc.cluster.local").unwrap(), ..again.clone() };
    changed(Some(&again), &elsewhere, &mut status, world.now);
    assert_eq!(overlay(&elsewhere, &status), None);
}

#[test]
fn a_version_without_instances_loses_its_traffic() {
    let mut spec = spec(&[20.0]);
    spec.baseline = Some(Labels::from([("version".to_owned(), "v1b".to_owned())]));
    let (mut status, mut world) = (Status::of(&spec), World::new(14));
    world.run(&spec, &mut status, 4);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Pending, "no instance of the baseline is ready"));
    assert!(!may_begin(&spec, &status, &world.evidence));
    world.evidence.baseline_ready = 1;
    assert!(may_begin(&spec, &status, &world.evidence));
    world.run(&spec, &mut status, 10);
    assert_eq!(status.phase, Phase::Baking);
    let shaken = status.clone();
    // Instances that are replaced are gone for a moment.
    world.evidence.candidate_ready = 0;
    world.run(&spec, &mut status, 5);
    world.evidence.candidate_ready = 1;
    world.run(&spec, &mut status, 1);
    assert_eq!((status.phase, status.deserted), (Phase::Baking, None));
    world.evidence.candidate_ready = 0;
    world.run(&spec, &mut status, 20);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "no instance of the candidate is ready"));
    let mut status = shaken;
    (world.evidence.candidate_ready, world.evidence.baseline_ready) = (1, 0);
    world.run(&spec, &mut status, 20);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "no instance of the baseline is ready"));
}

#[test]
fn a_baseline_is_compared_with_while_it_has_traffic() {
    let mut spec = spec(&[5.0, 80.0]);
    spec.baseline = Some(Labels::from([("version".to_owned(), "v1b".to_owned())]));
    spec.analysis.compare_latency = false;
    let (mut status, mut world) = (Status::of(&spec), World::new(16));
    world.evidence.baseline_ready = 1;
    let mut observed = Vec::new();
    for _ in 0..2000 {
        // Of what the stable version would get, the baseline gets as much as the candidate.
        let before = world.evidence.stable.clone();
        let share = overlay(&spec, &status).map_or(0.0, |o| o.weight.percent() / 100.0);
        world.requests(share, 500);
        if share > 0.0 && share <= 0.5 {
            let new = world.evidence.stable.since(&before);
            let requests = (new.requests as f64 * share / (1.0 - share)).round() as u64;
            let baseline = Arm { requests, ..Arm::default() };
            world.evidence.stable.requests -= baseline.requests;
            world.evidence.baseline.add(&baseline);
        }
        world.now += 500;
        advance(&spec, &mut status, &world.evidence, world.now);
        if status.phase == Phase::Baking {
            observed.extend(status.weights.observed.map(|o| (status.step, o)));
        }
        if status.phase.is_final() || status.held {
            break;
        }
    }
    assert_eq!(status.phase, Phase::Promoted, "{}", status.reason);
    for (step, wanted) in [(0, 5.0), (1, 80.0)] {
        let last = observed.iter().rev().find(|(at, _)| *at == step).unwrap().1;
        assert!((last - wanted).abs() < 5.0, "step {step}: {last}");
    }
}

#[test]
fn the_way_back_needs_somebody_there() {
    let (spec, mut status, mut world) = (spec(&[20.0]), Status::default(), World::new(17));
    while status.phase != Phase::Baking {
        world.tick(&spec, &mut status);
    }
    world.evidence.stable_ready = 0;
    world.run(&spec, &mut status, 1);
    let note = "no instance of the stable version is ready: its 80 % of requests fail";
    assert!(status.notes.iter().any(|n| n.starts_with(note)), "{:?}", status.notes);
    world.failing[1] = 0.5;
    world.run(&spec, &mut status, 60);
    assert_eq!(overlay(&spec, &status).unwrap().weight.percent(), 20.0, "{}", status.reason);
    assert!(matches!(status.verdict, crate::Verdict::Regression(_)));
    world.evidence.stable_ready = 1;
    world.run(&spec, &mut status, 20);
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.reason);

    // Nor does it go on.
    for on_deadline in [OnDeadline::Promote, OnDeadline::Abort] {
        let worse = Release { analysis: Analysis { on_deadline, ..spec.analysis.clone() }, ..spec.clone() };
        let (mut status, mut world) = (Status::of(&worse), World::new(17));
        while status.phase != Phase::Baking {
            world.tick(&worse, &mut status);
        }
        world.evidence.stable_ready = 0;
        world.failing[1] = 0.5;
        world.run(&worse, &mut status, 300);
        assert_eq!(status.phase, Phase::Baking, "{}", status.reason);
        assert!(status.reason.ends_with("no instance of the stable version is ready"), "{}", status.reason);
    }
}

#[test]
fn what_a_person_says_goes_on_and_a_failed_hook_waits_for_somebody_to_go_back_to() {
    let mut spec = spec(&[10.0, 20.0]);
    let hook =
        Hook { call: HookCall::Http(String::new()), timeout: Duration::from_secs(1000), metadata: BTreeMap::new() };
    spec.steps[1].before = vec![hook];
    let (mut status, mut world) = (Status::of(&spec), World::new(20));
    while status.phase != Phase::Baking {
        world.tick(&spec, &mut status);
    }
    world.evidence.stable_ready = 0;
    world.failing[1] = 0.5;
    world.run(&spec, &mut status, 300);
    assert!(status.held && matches!(status.verdict, crate::Verdict::Regression(_)), "{}", status.reason);
    world.says(&spec, &mut status, Command::Promote { all: false, why: String::new() }).unwrap();
    world.tick(&spec, &mut status);
    assert_eq!((status.phase, status.step), (Phase::Before, 1), "{}", status.reason);
    world.hook = Some(Err("no".to_owned()));
    world.run(&spec, &mut status, 20);
    assert_eq!((status.phase, status.weights.configured), (Phase::Before, 10.0), "{}", status.reason);
    assert!(status.reason.starts_with("a hook failed: no"), "{}", status.reason);
    world.evidence.stable_ready = 1;
    world.failing[1] = 0.0;
    world.run(&spec, &mut status, 20);
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.reason);
}

#[test]
fn an_abort_before_it_began_moves_nothing_where_nobody_is() {
    let spec = spec(&[20.0]);
    let (mut status, mut world) = (Status::of(&spec), World::new(19));
    world.evidence.stable_ready = 0;
    world.run(&spec, &mut status, 3);
    world.says(&spec, &mut status, Command::Abort(String::new())).unwrap();
    assert_eq!((status.phase, overlay(&spec, &status)), (Phase::RolledBack, None));
}

#[test]
fn a_pause_holds_up_neither_the_judge_nor_the_clock() {
    let mut spec = spec(&[20.0]);
    let (mut status, mut world) = (Status::of(&spec), World::new(15));
    while status.phase != Phase::WarmingUp {
        world.tick(&spec, &mut status);
    }
    world.says(&spec, &mut status, Command::Pause("a look".to_owned())).unwrap();
    world.failing[1] = 0.5;
    world.run(&spec, &mut status, 60);
    assert_eq!(status.phase, Phase::RolledBack, "{}", status.reason);

    spec.steps[0].approval = Some(Approval { role: String::new(), expires: Some(Duration::from_secs(100)) });
    let (mut status, mut world) = (Status::of(&spec), World::new(15));
    while status.phase != Phase::AwaitingApproval {
        world.tick(&spec, &mut status);
    }
    world.says(&spec, &mut status, Command::Pause("a look".to_owned())).unwrap();
    world.run(&spec, &mut status, 300);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::RolledBack, "nobody approved in time"));

    spec.analysis.on_deadline = OnDeadline::Abort;
    let (mut status, mut world) = (Status::of(&spec), World::new(15));
    world.rate = 0.0;
    while status.phase != Phase::Baking {
        world.tick(&spec, &mut status);
    }
    world.says(&spec, &mut status, Command::Pause("a look".to_owned())).unwrap();
    world.run(&spec, &mut status, 300);
    assert_eq!(status.reason, "the time is up: no request reached the candidate");
}

#[test]
fn a_step_waits_for_every_proxy_but_the_way_back_does_not() {
    let (spec, mut status, mut world) = (spec(&[5.0]), Status::default(), World::new(4));
    world.evidence.applied = Applied { done: 2, of: 3, laggards: vec!["slow".to_owned()], ..Applied::default() };
    world.run(&spec, &mut status, 300);
    assert_eq!((status.phase, status.weights.applied), (Phase::Shifting, 0.0));
    assert!(status.reason.contains("slow"), "{}", status.reason);
    world.says(&spec, &mut status, Command::Abort("enough".to_owned())).unwrap();
    assert_eq!(overlay(&spec, &status).unwrap().weight, Share::NONE, "at once");
    world.run(&spec, &mut status, 20);
    assert_eq!(status.phase, Phase::RolledBack);
    assert!(status.reason.contains("not confirmed by slow"), "{}", status.reason);
}

#[test]
fn consent_hooks_pauses_and_freezes() {
    let mut spec = spec(&[50.0]);
    spec.steps[0].approval = Some(Approval { role: String::new(), expires: Some(Duration::from_secs(100)) });
    spec.steps[0].before = vec![Hook {
        call: HookCall::Command(vec!["true".to_owned()]),
        timeout: Duration::from_secs(1),
        metadata: BTreeMap::new(),
    }];
    let (mut status, mut world) = (Status::default(), World::new(5));
    world.tick(&spec, &mut status);
    assert_eq!((status.phase, status.hook), (Phase::Before, Some(0)), "a hook is at work");
    world.hook = Some(Ok(()));
    for _ in 0..400 {
        world.tick(&spec, &mut status);
        if status.phase == Phase::AwaitingApproval {
            break;
        }
    }
    assert_eq!(status.phase, Phase::AwaitingApproval, "{}", status.reason);
    assert!(world.says(&spec, &mut status, Command::Pause("lunch".to_owned())).is_ok());
    command(
        &spec,
        &mut status,
        &world.evidence,
        Said::new("bob", Command::Approve("looks good".to_owned())),
        world.now,
    )
    .unwrap();
    world.run(&spec, &mut status, 10);
    assert_eq!(status.phase, Phase::AwaitingApproval, "paused");
    world.says(&spec, &mut status, Command::Resume(String::new())).unwrap();
    world.run(&spec, &mut status, 200);
    assert_eq!(status.phase, Phase::Promoted);
    assert!(world.says(&spec, &mut status, Command::Start(String::new())).is_err());
    world.says(&spec, &mut status, Command::Undo("no".to_owned())).unwrap();
    world.run(&spec, &mut status, 20);
    assert_eq!(status.phase, Phase::RolledBack);

    let frozen = Release { freezes: vec![(0, 7 * 24 * 60)], ..spec.clone() };
    let mut status = Status::default();
    world.run(&frozen, &mut status, 20);
    assert_eq!((status.phase, status.reason.as_str()), (Phase::Pending, "it is a time of freeze until Mon 00:00 UTC"));

    let mut status = Status::default();
    world.hook = Some(Err("exit 1".to_owned()));
    world.run(&spec, &mut status, 20);
    assert_eq!(status.phase, Phase::RolledBack);
}

/// Whatever happens when, the status is all that counts: written and read again between any two looks, nothing changes.
#[test]
fn a_release_that_is_interrupted_anywhere_ends_the_same() {
    let spec = spec(&[5.0, 25.0]);
    for seed in 0..20 {
        let bad = seed % 2 == 1;
        let play = |interrupted: bool| {
            let (mut status, mut world) = (Status::default(), World::new(seed));
            world.failing = [0.002, if bad { 0.2 } else { 0.002 }];
            for _ in 0..3000 {
                world.tick(&spec, &mut status);
                if interrupted {
                    let text = serde_json::to_string(&status).unwrap();
                    status = serde_json::from_str(&text).unwrap();
                    // Another process counts from nothing.
                    world.evidence.stable = Arm::default();
                    world.evidence.candidate = Arm::default();
                }
                if status.phase.is_final() || status.held {
                    break;
                }
            }
            (status.phase, world.now, status.judgement.candidate.requests, status.judgement.over_limit)
        };
        assert_eq!(play(true), play(false), "seed {seed}");
    }
}

#[test]
fn whatever_people_do_weights_stay_in_the_plan_and_an_abort_always_works() {
    let mut spec = spec(&[1.0, 10.0]);
    spec.steps[1].approval = Some(Approval::default());
    for seed in 0..200 {
        let (mut status, mut world) = (Status::default(), World::new(seed));
        let mut rng = fastrand::Rng::with_seed(seed);
        world.failing = [0.01, rng.f64() * 0.05];
        for _ in 0..rng.usize(1..400) {
            let says = match rng.u32(..40) {
                0 => Some(Command::Pause("x".to_owned())),
                1 => Some(Command::Resume(String::new())),
                2 => Some(Command::Approve("x".to_owned())),
                3 => Some(Command::Promote { all: false, why: String::new() }),
                4 => Some(Command::Start(String::new())),
                5 => {
                    world.evidence.applied.done = rng.usize(..=3);
                    None
                }
                _ => None,
            };
            if let Some(says) = says {
                let _ = command(&spec, &mut status, &world.evidence, Said::new("x", says), world.now);
            }
            world.tick(&spec, &mut status);
        }
        let over = status.phase.is_final();
        let aborted =
            command(&spec, &mut status, &world.evidence, Said::new("x", Command::Abort("x".to_owned())), world.now);
        assert_eq!(aborted.is_ok(), !over, "seed {seed}");
        if !over {
            assert_eq!(overlay(&spec, &status).unwrap().weight, Share::NONE, "seed {seed}");
            world.evidence.applied.done = 0;
            world.run(&spec, &mut status, 20);
            assert_eq!(status.phase, Phase::RolledBack, "seed {seed}");
        }
    }
}
