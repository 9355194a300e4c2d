//! Sticky splits: a user never goes back while the new version's weight rises, under Serin and under Envoy.
//!
//! `USERS=100000` asks for that many.

use std::net::SocketAddr;

use serde_json::json;
use serin_testkit::backend::Backend;
use serin_testkit::client::Client;
use serin_testkit::proxy::{Proxy, bootstrap, cluster};

use super::{SERIN, ok};

/// Which users got the new version, asked over several connections.
fn with_the_new(address: SocketAddr, users: usize, by: &str) -> Vec<bool> {
    const CONNECTIONS: usize = 8;
    let ask = |first: usize| {
        let mut client = Client::new(address);
        let of = |user: usize| {
            let value = if by == "cookie" { format!("user=u{user}") } else { format!("u{user}") };
            client.get("/", &[(by, &value)]).unwrap().text() == "new"
        };
        (first..users).step_by(CONNECTIONS).map(of).collect::<Vec<bool>>()
    };
    let parts: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(move || ask(first))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    (0..users).map(|user| parts[user % CONNECTIONS][user / CONNECTIONS]).collect()
}

#[test]
fn a_user_keeps_the_new_version_while_its_weight_rises() {
    let users: usize = std::env::var("USERS").ok().and_then(|u| u.parse().ok()).unwrap_or(2_000);
    let (old, new) = (Backend::answering(ok("old")).unwrap(), Backend::answering(ok("new")).unwrap());
    let header = json!({"header": {"header_name": "end-user"}});
    let cookie = json!({"cookie": {"name": "user", "path": "/", "ttl": "86400s"}});
    for (by, policy) in [("end-user", header), ("cookie", cookie)] {
        let mut before = vec![false; users];
        for weight in [1, 5, 20, 50, 80] {
            let routes = json!([{"match": {"prefix": "/"}, "route": {"hash_policy": [policy], "weighted_clusters": {
                "use_hash_policy": true,
                "clusters": [{"name": "new", "weight": weight * 10_000}, {"name": "old", "weight": (100 - weight) * 10_000}],
            }}}]);
            let clusters = [cluster("old", &[old.address()]), cluster("new", &[new.address()])];
            let proxy = Proxy::start(SERIN, &bootstrap(&routes, &clusters)).unwrap();
            let now = with_the_new(proxy.listener("main").unwrap(), users, by);
            let back = before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
            let share = now.iter().filter(|n| **n).count() as f64 / users as f64;
            let expected = f64::from(weight) / 100.0;
            let error = (expected * (1.0 - expected) / users as f64).sqrt();
            eprintln!(
                "{by}, weight {weight} %: {:.2} % of {users} users have the new version, {back} went back",
                share * 100.0
            );
            assert_eq!(back, 0);
            assert!((share - expected).abs() <= 5.0 * error, "{share} instead of {expected}");
            before = now;
        }
    }
}
