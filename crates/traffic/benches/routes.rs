//! The cost of finding a route, by the number of routes: `cargo bench -p serin-traffic --bench routes`.

use serin_http1::{RequestHead, Version};
use serin_resources::http_filter::PerRoutes;
use serin_resources::route::{Action, PathMatch, Respond, Route, RouteConfiguration, RouteMatch, VirtualHost};
use serin_traffic::router::{Circumstances, RouteTable};

fn main() {
    divan::main();
}

const COUNTS: [usize; 4] = [1, 10, 100, 10_000];

#[divan::bench(args = COUNTS)]
fn exact(bencher: divan::Bencher<'_, '_>, count: usize) {
    look_up(bencher, count, PathMatch::Exact);
}

#[divan::bench(args = COUNTS)]
fn prefix(bencher: divan::Bencher<'_, '_>, count: usize) {
    look_up(bencher, count, PathMatch::Prefix);
}

/// Looks up the last of `count` routes.
fn look_up(bencher: divan::Bencher<'_, '_>, count: usize, kind: fn(String) -> PathMatch) {
    let routes = (0..count).map(|i| route(kind(format!("/service-{i:05}/items")))).collect();
    let host = VirtualHost { domains: vec!["*".to_owned()], routes, ..VirtualHost::default() };
    let table = RouteTable::compile(&RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() });
    let mut head = RequestHead::default();
    head.start(b"GET", format!("/service-{:05}/items", count - 1).as_bytes(), Version::Http11);
    head.fields.append(b"host", b"example.com");
    bencher.bench_local(|| {
        let host = table.virtual_host(head.authority())?;
        table.route(host, &head, Circumstances::default()).map(std::ptr::from_ref)
    });
}

fn route(path: PathMatch) -> Route {
    Route {
        name: String::new(),
        matches: RouteMatch::path(path),
        action: Action::Respond(Respond { status: 200, body: Vec::new(), format: None }),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: PerRoutes::new(),
        buffers: Default::default(),
    }
}
