//! Proxies report the requests they sent, and the pilot knows how many went to which version.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use serin_testkit::client::Client;
use serin_testkit::demo::Demo;
use serin_testkit::load;
use serin_testkit::process::wait_until;

use super::*;

/// Requests to reviews by the subset that they were sent to: succeeded, and first attempts.
fn reported(demo: &Demo) -> BTreeMap<String, (u64, u64)> {
    let admin = demo.line["pilot"]["admin"].as_str().unwrap().trim_start_matches("http://");
    let list = Client::new(admin.parse().unwrap()).get("/debug/loadz", &[]).unwrap().text();
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for way in list.as_array().unwrap() {
        let parts: Vec<&str> = way["cluster"].as_str().unwrap().split('|').collect();
        if parts[0] == "outbound" && parts[3].starts_with("reviews.") {
            assert!(way["endpoint"].is_string(), "{way}");
            let sum = found.entry(parts[2].to_owned()).or_default();
            sum.0 += way["succeeded"].as_u64().unwrap();
            let times = way["firstAttemptTimes"].as_array().unwrap().iter().map(|t| t["count"].as_u64().unwrap());
            let first = way["firstAttempts"].as_u64().unwrap();
            assert_eq!(times.sum::<u64>(), first, "{way}");
            sum.1 += first;
        }
    }
    found
}

#[test]
fn the_pilot_is_told_which_version_got_how_many_requests() {
    let demo = demo().start().unwrap();
    demo.save("reviews.yaml", &reviews(false, &[("v1", 70), ("v3", 30)], "")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    demo.wait_synced(Duration::from_secs(20)).unwrap();
    // Proxies report from when they are asked to on, which is soon after their start; what was sent before is told first.
    let warm = || {
        drop(load::burst(demo.entrance().unwrap(), REVIEWS, 20, version));
        (reported(&demo).len() >= 2).then_some(())
    };
    wait_until(Duration::from_secs(30), warm).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let before = reported(&demo);
    let mut seen = BTreeMap::from([("v1".to_owned(), 0), ("v3".to_owned(), 0)]);
    for answer in load::burst(demo.entrance().unwrap(), REVIEWS, 1_000, version) {
        *seen.get_mut(&answer.outcome.unwrap().1).unwrap() += 1;
    }
    let grown = || {
        let of = |(key, count): (String, (u64, u64))| {
            let earlier = before.get(&key).copied().unwrap_or_default();
            (key, count.0 - earlier.0, count.1 - earlier.1)
        };
        reported(&demo).into_iter().map(of).filter(|(_, succeeded, _)| *succeeded > 0).collect::<Vec<_>>()
    };
    let is_serin = std::env::var_os("SERIN_TEST_ENVOY").is_none();
    let expected: Vec<_> = seen.into_iter().map(|(key, n)| (key, n, if is_serin { n } else { 0 })).collect();
    let agree = wait_until(Duration::from_secs(10), || (grown() == expected).then_some(()));
    assert!(agree.is_ok(), "{:?} is reported, sent was {expected:?}", grown());
    demo.end().unwrap();
}
