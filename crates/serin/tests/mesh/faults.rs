//! Forced delays and aborts: what they are for is to find the page's bug before users do.

use std::time::{Duration, Instant};

use super::*;

fn ratings(fault: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: ratings}}\nspec:\n  hosts: [ratings]\n  http:\n  \
         - match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n    fault: {{{fault}}}\n    \
         route: [{{destination: {{host: ratings, subset: v1}}}}]\n  - route: [{{destination: {{host: ratings, subset: v1}}}}]\n"
    )
}

fn page(client: &mut serin_testkit::client::Client, user: &str) -> (String, Duration) {
    let started = Instant::now();
    let headers = [("end-user", user)];
    let response = client.get("/productpage", if user.is_empty() { &[] } else { &headers }).unwrap();
    assert_eq!(response.status, 200);
    (response.text(), started.elapsed())
}

#[test]
fn a_long_delay_shows_the_bug_to_jason_and_to_nobody_else() {
    let delay = ratings("delay: {percentage: {value: 100.0}, fixedDelay: 7s}");
    let demo = demo().rule("ratings.yaml", &delay).unwrap().start().unwrap();
    let mut client = demo.client().unwrap();
    let (text, took) = page(&mut client, "jason");
    assert!(text.contains("Sorry, product reviews are currently unavailable"), "{text}");
    assert!(took > Duration::from_secs(5), "{took:?}");
    let (text, _) = page(&mut client, "");
    assert!(text.contains("reviews-v1-") && !text.contains("Sorry"), "{text}");
    demo.end().unwrap();
}

#[test]
fn a_short_delay_only_slows_jason_and_an_abort_only_takes_the_stars() {
    let delay = ratings("delay: {percentage: {value: 100.0}, fixedDelay: 2s}");
    let demo = demo().rule("ratings.yaml", &delay).unwrap().start().unwrap();
    let mut client = demo.client().unwrap();
    let (text, took) = page(&mut client, "jason");
    assert!(text.contains('★') && text.contains("reviews-v2-"), "{text}");
    assert!(took > Duration::from_secs(1), "{took:?}");

    demo.save("ratings.yaml", &ratings("abort: {percentage: {value: 100.0}, httpStatus: 500}")).unwrap();
    let aborted = || {
        Some(page(&mut demo.client().unwrap(), "jason").0)
            .filter(|t| t.contains("Ratings service is currently unavailable"))
    };
    let text = serin_testkit::process::wait_until(Duration::from_secs(20), aborted).unwrap();
    assert!(text.contains("Book Details") && text.contains("reviews-v2-") && !text.contains('★'), "{text}");
    demo.end().unwrap();
}
