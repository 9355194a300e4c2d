//! Problems that people reported: outages, failures that count, sentences.

use super::world::{World, spec};
use super::*;
use crate::verdict::OverLimit;

/// C4: nobody is sent where no instance is, and no freeze is passed over, unless somebody insists.
#[test]
fn what_people_say_causes_no_outage() {
    let (spec, mut status, mut world) = (spec(&[10.0, 50.0]), Status::default(), World::new(11));
    world.run(&spec, &mut status, 10);
    assert!(matches!(status.target, Target::Step(0)), "{status:?}");
    let says = |status: &mut Status, evidence: &Evidence, says: Command, force: bool| {
        command(&spec, status, evidence, Said { force, ..Said::new("ann", says) }, 2_000_000)
    };
    let promote = Command::Promote { all: true, why: "now".to_owned() };
    let nobody = Evidence { stable_ready: 0, candidate_ready: 0, ..world.evidence.clone() };
    for (what, why) in [
        (promote.clone(), "candidate (version=v3)"),
        (Command::Abort("x".to_owned()), "stable version (version=v1)"),
        (Command::Undo("x".to_owned()), "stable version (version=v1)"),
    ] {
        let before = status.clone();
        let refused = says(&mut status, &nobody, what.clone(), false).unwrap_err().to_string();
        assert!(refused.contains(why) && refused.contains("--force"), "{refused}");
        assert_eq!(status, before);
        assert!(says(&mut status.clone(), &nobody, what, true).is_ok());
    }
    let frozen = Release { freezes: vec![(0, 7 * 24 * 60 - 1)], ..spec.clone() };
    let said = Said::new("ann", promote.clone());
    let refused = command(&frozen, &mut status, &world.evidence, said, world.now).unwrap_err().to_string();
    assert!(refused.contains("until Sun 23:59 UTC"), "{refused}");
    assert!(
        command(
            &frozen,
            &mut status.clone(),
            &world.evidence,
            Said { force: true, ..Said::new("ann", promote) },
            world.now
        )
        .is_ok()
    );
    let events =
        says(&mut status, &world.evidence, Command::Promote { all: false, why: "seen it".to_owned() }, false).unwrap();
    assert_eq!(events[0].reason, "ann promotes it: seen it");
}

/// C5: which responses count is the release's to say, and a candidate that only answers otherwise is seen.
#[test]
fn responses_that_count_as_failures_are_chosen_and_another_mix_is_said() {
    use serin_model::{Bake, Failing, OnMix};
    let mut arm = Arm {
        requests: 100,
        failed: 3,
        answers: [(404, 40), (429, 10), (503, 3), (1014, 5), (0, 2)].into(),
        ..Arm::default()
    };
    for (list, failed) in [
        (vec![Failing::Class(5, Vec::new())], 3),
        (vec![Failing::Class(5, Vec::new()), Failing::Status(429)], 13),
        (vec![Failing::Class(4, vec![404])], 10),
        (vec![Failing::Class(4, vec![404, 429])], 0),
        (vec![Failing::Grpc(14), Failing::NoResponse], 7),
    ] {
        arm.count_failures(&Some(list));
        assert_eq!(arm.failed, failed);
    }
    for (on_mix, ends) in [(OnMix::Warn, None), (OnMix::Ignore, None), (OnMix::Rollback, Some(Phase::RolledBack))] {
        let mut spec = spec(&[20.0]);
        spec.steps[0].bake = Bake { min: Duration::from_secs(40), max: Duration::from_secs(60) };
        spec.analysis.on_mix = on_mix;
        let (mut status, mut world) = (Status::default(), World::new(12));
        for _ in 0..60 {
            world.tick(&spec, &mut status);
            // All of the candidate's are 404, as those of a service without its routes are.
            let missing = world.evidence.candidate.requests;
            world.evidence.candidate.answers.insert(404, missing);
            world.evidence.stable.answers.insert(404, world.evidence.stable.requests / 100);
        }
        let said =
            status.notes.iter().any(|note| note.starts_with("different mix of status classes") && note.contains("4xx"));
        assert_eq!(
            (said, status.phase == Phase::RolledBack),
            (on_mix != OnMix::Ignore, ends.is_some()),
            "{on_mix:?} {status:?}"
        );
        let events = status.history.iter().filter(|e| e.reason.starts_with("different mix")).count();
        assert!(on_mix != OnMix::Warn || events == 1, "it is said once, not at every look: {events}");
    }
}

/// C8: with a stable version that fails itself nothing can be compared, which is said, and holds.
#[test]
fn a_stable_version_that_fails_itself_holds_the_release() {
    let (spec, mut status, mut world) = (spec(&[20.0]), Status::default(), World::new(13));
    world.failing = [1.0, 0.0];
    world.run(&spec, &mut status, 300);
    assert!(status.held && status.phase == Phase::Baking, "{status:?}");
    assert!(status.reason.contains("the stable version itself fails"), "{}", status.reason);
}

/// D1: every sentence has numbers that people count, on both sides.
#[test]
fn sentences_have_numbers_for_people() {
    use crate::verdict::count;
    assert_eq!(
        [0.4, 999.0, 1_202_604.28, 129_441_451.0, 1e12].map(count),
        ["0", "999", "1,202,604", "129,441,451", "more than a billion"]
    );
    let (spec, mut status, mut world) = (spec(&[20.0]), Status::default(), World::new(14));
    world.failing = [0.0001, 0.5];
    world.run(&spec, &mut status, 200);
    assert_eq!(status.phase, Phase::RolledBack);
    let reason = &status.reason;
    assert!(reason.starts_with("the candidate is worse: ") && reason.contains(" of its requests failed, "), "{reason}");
    assert!(reason.contains(" of the stable version's") && !reason.contains("times the"), "{reason}");
}

#[test]
fn the_instance_that_fails_is_named() {
    let (spec, mut status, mut world) = (spec(&[50.0]), Status::default(), World::new(6));
    world.failing = [0.0, 0.1];
    for _ in 0..2000 {
        let failed = world.evidence.candidate.failed;
        let part = |failed, requests| Arm { failed, requests, ..Arm::default() };
        world.evidence.instances =
            (0..10).map(|i| (format!("10.0.0.{i}:80"), part(if i == 3 { failed } else { 0 }, 100))).collect();
        world.tick(&spec, &mut status);
        if status.phase.is_final() {
            break;
        }
    }
    assert_eq!(status.phase, Phase::RolledBack);
    assert!(status.reason.contains("10.0.0.3:80"), "{}", status.reason);
}

#[test]
fn quick_requests_of_one_step_do_not_speak_for_the_next() {
    let mut spec = spec(&[20.0, 40.0]);
    spec.analysis.latency = Some((0.9, Duration::from_millis(50)));
    spec.analysis.compare_latency = false;
    let (mut status, mut world) = (Status::default(), World::new(18));
    world.rate = 1000.0;
    while status.step == 0 || status.phase != Phase::Baking {
        world.tick(&spec, &mut status);
    }
    // Too slow by far for this step, and not yet for the whole release.
    for _ in 0..4 {
        world.evidence.candidate.requests += 50;
        *world.evidence.candidate.times.entry(1_000_000).or_default() += 10;
        *world.evidence.candidate.times.entry(1_000).or_default() += 40;
        world.now += 500;
        advance(&spec, &mut status, &world.evidence, world.now);
    }
    assert_eq!(status.judgement.over_limit, OverLimit { timed: 200, over: 40 });
    let missing = matches!(&status.verdict, crate::Verdict::NotEnough(text) if text.contains("quicker than 50 ms"));
    assert!(missing, "{:?}", status.verdict);
}
