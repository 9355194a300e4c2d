//! Adoption one workload at a time: services without a proxy work, and rules towards them still apply at callers.

use std::time::Duration;

use serin_testkit::process::wait_until;

use super::*;

#[test]
fn services_without_a_proxy_take_part() {
    let abort = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings}\nspec:\n  hosts: [ratings]\n  http:\n  \
                 - fault: {abort: {percentage: {value: 100}, httpStatus: 500}}\n    route: [{destination: {host: ratings}}]\n";
    let demo = demo().arg("--without-proxy").arg("ratings,details").start().unwrap();
    assert!(demo.proxies("ratings").is_empty() && !demo.proxies("reviews").is_empty());
    let mut client = demo.client().unwrap();
    let page = client.get("/productpage", &[("end-user", "jason")]).unwrap().text();
    assert!(page.contains("Book Details") && page.contains('★'), "{page}");
    demo.save("ratings.yaml", abort).unwrap();
    let text = |client: &mut serin_testkit::client::Client| {
        client.get("/productpage", &[("end-user", "jason")]).unwrap().text()
    };
    let sorry = "Ratings service is currently unavailable";
    wait_until(Duration::from_secs(20), || text(&mut client).contains(sorry).then_some(())).unwrap();
    demo.end().unwrap();
}
