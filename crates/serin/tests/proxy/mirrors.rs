//! Mirrors: what they answer, compared with what clients got, which only Serin does, and what becomes of those that hang.

use std::time::Duration;

use serde_json::{Value, json};
use serin_testkit::backend::{Backend, read};
use serin_testkit::client::Client;
use serin_testkit::process::wait_until;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

#[test]
fn what_a_mirror_answers_otherwise_is_told_place_by_place() {
    let old = Backend::answering(ok(r#"{"stars": [5, 3], "at": 1}"#)).unwrap();
    let new = Backend::answering(ok(r#"{"stars": [5, 4], "at": 2}"#)).unwrap();
    let failing = Backend::answering("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned()).unwrap();
    let routes = json!([
        {"match": {"path": "/reviews"},
         "metadata": {"filter_metadata": {"serin.mirror": {"compare": true, "ignore_json_paths": ["$.at"]}}},
         "route": {"cluster": "old", "request_mirror_policies": [{"cluster": "new"}, {"cluster": "failing"}]}},
        {"match": {"prefix": "/"}, "route": {"cluster": "old", "request_mirror_policies": [{"cluster": "new"}]}},
    ]);
    let clusters =
        [cluster("old", &[old.address()]), cluster("new", &[new.address()]), cluster("failing", &[failing.address()])];
    let proxy = Proxy::serin(SERIN, &bootstrap(&routes, &clusters)).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    for _ in 0..3 {
        let answer = client.get("/reviews", &[]).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"stars": [5, 3], "at": 1}"#));
    }
    assert_eq!(client.get("/not-compared", &[]).unwrap().status, 200);
    let compared = || {
        let page: Value = serde_json::from_str(&proxy.page("/mirrors").unwrap().1).unwrap();
        let list = page.as_array().unwrap().clone();
        (list.len() == 2 && list.iter().all(|c| c["different"] == 3)).then_some(list)
    };
    let list = wait_until(Duration::from_secs(10), compared).unwrap();
    assert_eq!(list[0]["cluster"], "failing");
    assert_eq!(list[0]["newest"][0]["differences"][0], json!({"place": "status", "client": "200", "mirror": "500"}));
    assert_eq!((&list[1]["cluster"], &list[1]["same"]), (&json!("new"), &json!(0)));
    assert_eq!(list[1]["places"], json!({"$.stars[1]": 3}));
    assert_eq!(list[1]["newest"][0]["request"], "GET /reviews");
}

/// Serin and Envoy alike: nobody waits for a mirror, but not for ever.
#[test]
fn a_mirror_that_hangs_is_given_up_and_counted() {
    let old = Backend::answering(ok("old")).unwrap();
    let hanging = Backend::scripted(|stream, seen| {
        let mut buffer = Vec::new();
        while read(stream, &mut buffer, seen) > 0 {}
    })
    .unwrap();
    let routes = json!([{"match": {"prefix": "/"},
        "route": {"cluster": "old", "timeout": "0.3s", "request_mirror_policies": [{"cluster": "new"}]}}]);
    let clusters = [cluster("old", &[old.address()]), cluster("new", &[hanging.address()])];
    let proxy = Proxy::start(SERIN, &bootstrap(&routes, &clusters)).unwrap();
    let mut client = Client::new(proxy.listener("main").unwrap());
    for body in ["", "some words"] {
        assert_eq!(client.request("POST", "/", &[], body.as_bytes()).unwrap().text(), "old");
    }
    let counted = || {
        let (_, page) = proxy.page("/clusters").unwrap();
        let of = |name: &str| page.lines().any(|l| l == format!("new::{}::{name}", hanging.address()));
        (of("rq_timeout::2") && of("rq_error::2") && of("rq_active::0")).then_some(())
    };
    wait_until(Duration::from_secs(10), counted).unwrap();
    assert_eq!(proxy.stat("cluster.new.upstream_rq_timeout"), 2);
}
