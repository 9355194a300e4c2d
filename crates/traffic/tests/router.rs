//! Virtual hosts and routes: tables of Envoy's rules.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use serin_http1::{RequestHead, Version};
use serin_resources::http_filter::PerRoutes;
use serin_resources::matcher::{
    HeaderMatcher, HeaderPredicate, QueryMatcher, QueryPredicate, StringMatch, StringMatcher,
};
use serin_resources::route::{Action, PathMatch, Respond, Route, RouteConfiguration, RouteMatch, VirtualHost};
use serin_traffic::router::{Circumstances, RouteTable};

fn request(authority: &str, target: &str, headers: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    head.start(b"GET", target.as_bytes(), Version::Http11);
    head.fields.append(b"Host", authority.as_bytes());
    headers.iter().for_each(|(name, value)| head.fields.append(name.as_bytes(), value.as_bytes()));
    head
}

fn host(domains: &[&str]) -> VirtualHost {
    VirtualHost {
        name: domains.join(","),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        ..VirtualHost::default()
    }
}

#[test]
fn virtual_hosts_are_found_exact_then_suffix_then_prefix_then_any() {
    let hosts = vec![
        host(&["a.example.com", "bare"]),
        host(&["*.example.com"]),
        host(&["*.b.example.com"]),
        host(&["a.*"]),
        host(&["a.b.*"]),
        host(&["*"]),
    ];
    let mut config = RouteConfiguration { virtual_hosts: hosts, ..RouteConfiguration::default() };
    let table = RouteTable::compile(&config);
    for (authority, expected) in [
        ("A.Example.Com", "a.example.com,bare"),
        ("x.example.com", "*.example.com"),
        ("x.b.example.com", "*.b.example.com"),
        (".example.com", "*"),
        ("a.org", "a.*"),
        ("a.b.org", "a.b.*"),
        ("bare:80", "*"),
        ("", "*"),
    ] {
        assert_eq!(table.virtual_host(authority.as_bytes()).unwrap().config.name, expected, "{authority}");
    }
    config.ignore_port_in_host_matching = true;
    assert_eq!(RouteTable::compile(&config).virtual_host(b"bare:80").unwrap().config.name, "a.example.com,bare");
}

fn matches(condition: RouteMatch, head: &RequestHead) -> bool {
    let route = Route {
        name: "r".to_owned(),
        matches: condition,
        action: Action::Respond(Respond { status: 200, body: Vec::new(), format: None }),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: PerRoutes::new(),
        buffers: Default::default(),
    };
    let config = RouteConfiguration {
        virtual_hosts: vec![VirtualHost { routes: vec![route], ..host(&["*"]) }],
        ..RouteConfiguration::default()
    };
    let table = RouteTable::compile(&config);
    table.route(table.virtual_host(head.authority()).unwrap(), head, Circumstances::default()).is_some()
}

#[test]
fn paths() {
    let text = str::to_owned;
    for (path, target, expected) in [
        (PathMatch::Exact(text("/a")), "/a?b", true),
        (PathMatch::Exact(text("/a")), "/a/", false),
        (PathMatch::Prefix(text("/a")), "/ab", true),
        (PathMatch::PathPrefix(text("/a")), "/ab", false),
        (PathMatch::PathPrefix(text("/a")), "/a/b", true),
        (PathMatch::PathPrefix(text("/a")), "/a?x", true),
        (PathMatch::Regex(text("/v[0-9]+|/w")), "/v12?x", true),
        (PathMatch::Regex(text("/v[0-9]+|/w")), "/v12x", false),
        (PathMatch::Regex(text("/v[0-9]+|/w")), "/wx", false),
    ] {
        assert_eq!(matches(RouteMatch::path(path.clone()), &request("x", target, &[])), expected, "{path:?} {target}");
    }
    let folded = RouteMatch { case_sensitive: false, ..RouteMatch::path(PathMatch::Prefix(text("/Api"))) };
    assert!(matches(folded, &request("x", "/aPI/1", &[])));
}

fn header(predicate: HeaderPredicate, invert: bool, missing_is_empty: bool) -> RouteMatch {
    let matcher = HeaderMatcher { name: "x".to_owned(), predicate, invert, missing_is_empty };
    RouteMatch { headers: vec![matcher], ..RouteMatch::path(PathMatch::Prefix("/".to_owned())) }
}

#[test]
fn headers() {
    let value = |pattern| HeaderPredicate::Value(StringMatcher::new(pattern));
    let exact = || value(StringMatch::Exact("1".to_owned()));
    let suffix = || value(StringMatch::Suffix("yz".to_owned()));
    for (condition, sent, expected) in [
        (header(exact(), false, false), &[("X", "1")][..], true),
        (header(exact(), false, false), &[("X", "2"), ("x", "1")], true),
        (header(exact(), true, false), &[("X", "2"), ("x", "1")], false),
        (header(value(StringMatch::Exact("1,2".to_owned())), false, false), &[("X", "1"), ("x", "2")], false),
        (header(exact(), true, false), &[("x", "2")], true),
        (header(exact(), true, false), &[], false),
        (header(exact(), true, true), &[], true),
        (header(HeaderPredicate::Present(true), false, false), &[("x", "")], true),
        (header(HeaderPredicate::Present(true), true, false), &[], true),
        (header(HeaderPredicate::Present(false), false, false), &[], true),
        (header(HeaderPredicate::Range(-5, 5), false, false), &[("x", "-5")], true),
        (header(HeaderPredicate::Range(-5, 5), false, false), &[("x", "5")], false),
        (header(HeaderPredicate::Range(-5, 5), false, false), &[("x", "4.5")], false),
        (header(suffix(), false, false), &[("x", "xyz")], true),
        (header(value(StringMatch::Contains("b".to_owned())), false, false), &[("x", "abc")], true),
        (header(value(StringMatch::Regex("a.c".to_owned())), false, false), &[("x", "abcd")], false),
    ] {
        assert_eq!(matches(condition.clone(), &request("x", "/", sent)), expected, "{condition:?} {sent:?}");
    }
}

#[test]
fn query_parameters() {
    let query = |value: Option<&str>| RouteMatch {
        query: vec![QueryMatcher {
            name: "q".to_owned(),
            value: value.map_or(QueryPredicate::Present(true), |v| {
                QueryPredicate::Value(StringMatcher::new(StringMatch::Exact(v.to_owned())))
            }),
        }],
        ..RouteMatch::path(PathMatch::Prefix("/".to_owned()))
    };
    for (value, target, expected) in [
        (None, "/?a&q", true),
        (None, "/?qq=1", false),
        (Some("1"), "/?q=1&q=2", true),
        (Some("2"), "/?q=1&q=2", false),
        (Some("a%20b"), "/?q=a%20b", true),
        (Some(""), "/?q", true),
        (Some("1"), "/", false),
    ] {
        assert_eq!(matches(query(value), &request("x", target, &[])), expected, "{value:?} {target}");
    }
}

#[test]
fn many_routes_yield_the_one_that_trying_each_in_order_yields() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let routes: Vec<Route> = (0..random.usize(1..80)).map(|_| random_route(&mut random)).collect();
        let virtual_host = VirtualHost { routes, ..host(&["*"]) };
        let config = RouteConfiguration { virtual_hosts: vec![virtual_host], ..RouteConfiguration::default() };
        let table = RouteTable::compile(&config);
        let compiled = table.virtual_host(b"x").unwrap();
        for _ in 0..100 {
            let headers: &[(&str, &str)] = if random.bool() { &[("x-user", "jason")] } else { &[] };
            let head = request("x", &random_path(&mut random), headers);
            let one_by_one =
                compiled.routes.iter().position(|r| r.matches(&head, head.path(), Circumstances::default()));
            let found = table.route(compiled, &head, Circumstances::default());
            let found = found.and_then(|f| compiled.routes.iter().position(|r| std::ptr::eq(r, f)));
            assert_eq!(found, one_by_one, "{} of {:#?}", String::from_utf8_lossy(head.target()), config);
        }
    }
}

/// A path of a few short segments, so that routes and requests often meet.
fn random_path(random: &mut fastrand::Rng) -> String {
    let mut path = String::from("/");
    for _ in 0..random.usize(0..4) {
        path.push_str(["a", "b", "ab", "/", "A", "a/"][random.usize(0..6)]);
    }
    path
}

fn random_route(random: &mut fastrand::Rng) -> Route {
    let path = random_path(random);
    let mut matches = RouteMatch::path(match random.u8(0..7) {
        0..3 => PathMatch::Exact(path),
        3 | 4 => PathMatch::Prefix(path),
        5 => PathMatch::PathPrefix(path),
        _ => PathMatch::Regex(format!("{path}.*")),
    });
    matches.case_sensitive = random.u8(0..5) > 0;
    if random.u8(0..3) == 0 {
        matches.headers = vec![HeaderMatcher {
            name: "x-user".to_owned(),
            predicate: HeaderPredicate::Present(true),
            invert: false,
            missing_is_empty: false,
        }];
    }
    Route {
        name: String::new(),
        matches,
        action: Action::Respond(Respond { status: 200, body: Vec::new(), format: None }),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: PerRoutes::new(),
        buffers: Default::default(),
    }
}
