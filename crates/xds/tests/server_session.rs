//! Transcripts against the serving session: what a client says, what it must be sent, in which order.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serin_xds::server::{Mode, Request, Response, Session, TypeState};
use serin_xds::{Resource, ResourceMap, Step, TypeSpec};

const fn spec(url: &'static str, place: u8, is_full_state: bool, completes: Option<&'static str>) -> TypeSpec {
    TypeSpec {
        url,
        addition: place,
        removal: 9 - place,
        is_full_state,
        completes,
        is_on_demand: false,
        is_exclusive: false,
    }
}

const TYPES: [TypeSpec; 5] = [
    spec("C", 0, true, None),
    spec("E", 1, false, Some("C")),
    spec("L", 2, true, None),
    spec("R", 3, false, None),
    TypeSpec { is_on_demand: true, is_exclusive: true, ..spec("V", 4, false, None) },
];

/// `C:a=1 E:a=1` as a map of resources.
fn resources(text: &str) -> Arc<ResourceMap> {
    let mut map = ResourceMap { version: text.into(), ..ResourceMap::default() };
    for item in text.split_whitespace() {
        let (kind, rest) = item.split_once(':').unwrap();
        let (name, version) = rest.split_once('=').unwrap();
        let resource =
            Resource { name: name.into(), version: version.into(), body: version.as_bytes().to_vec().into() };
        let kind = TYPES.iter().find(|spec| spec.url == kind).unwrap().url;
        map.types.entry(kind).or_default().insert(name.into(), Arc::new(resource));
    }
    Arc::new(map)
}

/// One stream with a clock of its own.
struct Stream {
    session: Session,
    now: Instant,
    mode: Mode,
    last: Arc<ResourceMap>,
    sets: usize,
}

impl Stream {
    fn new(mode: Mode, text: &str) -> Self {
        let mut session = Session::new(mode, &TYPES);
        let last = resources(text);
        session.set_resources(last.clone());
        Self { session, now: Instant::now(), mode, last, sets: 0 }
    }

    /// Sets new resources; every other time they say what differs from those before.
    fn set(&mut self, text: &str) {
        let mut new = resources(text);
        self.sets += 1;
        if self.sets.is_multiple_of(2) {
            let names = |map: &ResourceMap| -> Vec<(&'static str, Arc<str>)> {
                map.types.iter().flat_map(|(kind, map)| map.keys().map(|name| (*kind, name.clone()))).collect()
            };
            let mut changed = names(&self.last);
            changed.extend(names(&new));
            let get =
                |map: &ResourceMap, (kind, name): &(&'static str, Arc<str>)| map.of_type(kind)?.get(name).cloned();
            changed.retain(|name| get(&self.last, name) != get(&new, name));
            let map = Arc::make_mut(&mut new);
            map.step = Step { from: self.last.version.clone(), changed };
        }
        self.last = new.clone();
        self.session.set_resources(new);
    }

    fn ask(&mut self, kind: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut request = Request { type_url: kind.into(), ..Request::default() };
        match self.mode {
            Mode::Sotw => request.names = names,
            Mode::Delta => request.subscribe = names,
        }
        self.session.on_request(&request);
    }

    fn answer(&mut self, response: &Response, names: &[&str], error: Option<&str>) {
        let mut request = Request {
            type_url: response.type_url.to_string(),
            nonce: response.nonce.clone(),
            error: error.map(str::to_owned),
            ..Request::default()
        };
        if self.mode == Mode::Sotw {
            request.names = names.iter().map(|n| (*n).to_owned()).collect();
        }
        self.session.on_request(&request);
    }

    /// The next response as text, such as `C +a +b -c`.
    fn next(&mut self) -> Option<(Response, String)> {
        let response = self.session.poll(self.now)?;
        let mut text = response.type_url.to_string();
        response.resources.iter().for_each(|r| text.push_str(&format!(" +{}", r.name)));
        response.removed.iter().for_each(|n| text.push_str(&format!(" -{n}")));
        Some((response, text))
    }

    /// Expects a response and acknowledges it.
    fn expect(&mut self, text: &str, names: &[&str]) {
        let (response, actual) = self.next().unwrap_or_else(|| panic!("nothing sent, expected {text}"));
        assert_eq!(actual, text);
        self.answer(&response, names, None);
    }

    fn quiet(&mut self) {
        let next = self.next().map(|(_, text)| text);
        assert_eq!(next, None);
    }
}

#[test]
fn delta_makes_before_it_breaks() {
    let mut stream = Stream::new(Mode::Delta, "C:a=1 E:a=1 L:l=1 R:r=1");
    stream.ask("C", &[]);
    stream.ask("L", &[]);
    stream.expect("C +a", &[]);
    stream.quiet();
    stream.ask("E", &["a"]);
    stream.expect("E +a", &[]);
    stream.expect("L +l", &[]);
    stream.ask("R", &["r"]);
    stream.expect("R +r", &[]);
    stream.quiet();

    stream.set("C:b=1 E:b=1 L:l=1 R:r=2");
    let (clusters, text) = stream.next().unwrap();
    assert_eq!(text, "C +b");
    stream.quiet();
    stream.answer(&clusters, &[], None);
    stream.quiet();
    stream.ask("E", &["b"]);
    stream.expect("E +b", &[]);
    stream.expect("R +r", &[]);
    stream.expect("E -a", &[]);
    stream.expect("C -a", &[]);
    stream.quiet();
}

#[test]
fn state_of_the_world_keeps_the_old_until_the_new_is_in_use() {
    let mut stream = Stream::new(Mode::Sotw, "C:a=1 L:l=1 R:r=1");
    stream.ask("C", &[]);
    stream.expect("C +a", &[]);
    stream.ask("L", &[]);
    stream.expect("L +l", &[]);
    stream.ask("R", &["r"]);
    stream.expect("R +r", &["r"]);
    stream.set("C:b=1 L:l=1 R:r=2");
    stream.expect("C +a +b", &[]);
    stream.expect("R +r", &["r"]);
    stream.expect("C +b", &[]);
    stream.quiet();
}

/// Two virtual hosts with the same domain exclude each other: Envoy rejects a moment in which both are there.
#[test]
fn what_excludes_each_other_comes_and_goes_in_one_response() {
    let mut stream = Stream::new(Mode::Delta, "C:a=1 R:r=1 V:r/none=1");
    stream.ask("C", &[]);
    stream.ask("R", &["r"]);
    stream.ask("V", &["r"]);
    stream.expect("C +a", &[]);
    stream.expect("R +r", &[]);
    stream.expect("V +r/none", &[]);
    stream.set("C:a=1 C:b=1 R:r=1 V:r/all=1");
    stream.expect("C +b", &[]);
    stream.expect("V +r/all -r/none", &[]);
    stream.quiet();
    stream.set("C:a=1 R:r=1 V:r/none=1");
    stream.expect("V +r/none -r/all", &[]);
    stream.expect("C -b", &[]);
    stream.set("C:a=1 R:r=1");
    stream.expect("V -r/none", &[]);
    stream.quiet();
}

#[test]
fn a_rejected_version_is_not_sent_again_and_a_new_one_is() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut stream = Stream::new(mode, "C:a=1");
        stream.ask("C", &[]);
        let (response, _) = stream.next().unwrap();
        stream.answer(&response, &[], Some("no"));
        assert_eq!(stream.session.take_status()[0].state, TypeState::Nacked);
        stream.quiet();
        stream.set("C:a=2");
        stream.expect("C +a", &[]);
        let status = stream.session.take_status();
        assert_eq!((status[0].state, &status[0].error), (TypeState::Synced, &None));
    }
}

#[test]
fn a_client_that_never_acknowledges_holds_one_response() {
    let mut stream = Stream::new(Mode::Delta, "C:a=1");
    stream.ask("C", &[]);
    let (first, _) = stream.next().unwrap();
    for version in 2..100 {
        stream.set(&format!("C:a={version}"));
        stream.quiet();
    }
    stream.answer(&first, &[], None);
    let (response, _) = stream.next().unwrap();
    assert_eq!(response.resources[0].version, "99");
}

#[test]
fn an_old_nonce_is_not_answered_in_state_of_the_world_and_still_subscribes_in_delta() {
    let mut sotw = Stream::new(Mode::Sotw, "E:a=1 E:b=1");
    sotw.ask("E", &["a"]);
    let (first, _) = sotw.next().unwrap();
    sotw.answer(&first, &["a"], None);
    sotw.set("E:a=2 E:b=1");
    let (second, _) = sotw.next().unwrap();
    sotw.answer(&first, &["a", "b"], None);
    sotw.quiet();
    sotw.answer(&second, &["a", "b"], None);
    sotw.expect("E +b", &["a", "b"]);

    let mut delta = Stream::new(Mode::Delta, "E:a=1 E:b=1");
    delta.ask("E", &["a"]);
    let (first, _) = delta.next().unwrap();
    let stale =
        Request { type_url: "E".into(), nonce: "999".into(), subscribe: vec!["b".into()], ..Request::default() };
    delta.session.on_request(&stale);
    delta.answer(&first, &[], None);
    delta.expect("E +b", &[]);
}

#[test]
fn a_subscription_outlives_absence_and_a_repeated_one_is_answered_again() {
    let mut stream = Stream::new(Mode::Delta, "R:other=1");
    stream.ask("R", &["late"]);
    stream.expect("R -late", &[]);
    stream.quiet();
    stream.set("R:late=1");
    stream.expect("R +late", &[]);
    stream.ask("R", &["late"]);
    stream.expect("R +late", &[]);
    stream.quiet();
}

#[test]
fn after_a_reconnect_only_changes_travel() {
    let mut stream = Stream::new(Mode::Delta, "C:a=1 C:b=2");
    let versions = [("a", "1"), ("b", "1"), ("gone", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    stream.session.on_request(&Request {
        type_url: "C".into(),
        initial_versions: versions.into(),
        ..Request::default()
    });
    stream.expect("C +b", &[]);
    stream.expect("C -gone", &[]);
    stream.quiet();
}

#[test]
fn endpoints_follow_a_changed_cluster() {
    let mut stream = Stream::new(Mode::Sotw, "C:a=1 E:a=1");
    stream.ask("C", &[]);
    stream.expect("C +a", &[]);
    stream.ask("E", &["a"]);
    stream.expect("E +a", &["a"]);
    stream.set("C:a=2 E:a=1");
    stream.expect("C +a", &[]);
    stream.expect("E +a", &["a"]);
    stream.quiet();
}

/// Envoy acknowledges a new cluster when it is warm, and it is warm when its endpoints are there.
#[test]
fn endpoints_do_not_wait_for_the_acknowledgement_of_their_cluster() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut stream = Stream::new(mode, "C:a=1 E:a=1 R:r=1");
        stream.ask("C", &[]);
        let (clusters, text) = stream.next().unwrap();
        assert_eq!(text, "C +a");
        stream.ask("E", &["a"]);
        stream.ask("R", &["r"]);
        stream.expect("E +a", &["a"]);
        assert!(stream.next().is_none(), "routes wait until the cluster is in use");
        stream.answer(&clusters, &[], None);
        stream.expect("R +r", &["r"]);
    }
}

#[test]
fn routes_wait_for_endpoints_but_not_for_ever() {
    let mut stream = Stream::new(Mode::Delta, "C:a=1 E:a=1 L:l=1");
    stream.ask("C", &[]);
    stream.ask("L", &[]);
    stream.expect("C +a", &[]);
    stream.quiet();
    let deadline = stream.session.deadline().unwrap();
    assert!(deadline - stream.now <= Duration::from_secs(2));
    stream.now = deadline;
    stream.expect("L +l", &[]);
    assert_eq!(stream.session.deadline(), None);
}

#[test]
fn an_empty_world_is_answered() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let mut stream = Stream::new(mode, "");
        stream.ask("C", &[]);
        stream.expect("C", &[]);
        stream.ask("L", &[]);
        stream.expect("L", &[]);
        stream.ask("SECRET", &[]);
        stream.expect("SECRET", &[]);
        stream.quiet();
    }
}

/// Virtual hosts: a subscription to a route configuration is one to everything below its name.
#[test]
fn a_name_stands_for_everything_below_it_where_the_type_says_so() {
    let mut stream = Stream::new(Mode::Delta, "R:r=1 V:r/a=1 V:r/b=1 V:rr/a=1");
    stream.ask("R", &["r"]);
    stream.expect("R +r", &[]);
    stream.ask("V", &["r"]);
    stream.expect("V +r/a +r/b", &[]);
    stream.quiet();
    stream.set("R:r=1 V:r/a=2 V:r/c=1 V:rr/a=2");
    stream.expect("V +r/a +r/c -r/b", &[]);
    stream.quiet();
    stream.session.on_request(&Request { type_url: "V".into(), unsubscribe: vec!["r".into()], ..Request::default() });
    stream.set("R:r=1 V:r/a=3 V:rr/a=3");
    stream.quiet();
    stream.ask("V", &["none"]);
    stream.expect("V -none", &[]);
    stream.quiet();
}

/// After many changes exactly the differences are sent, whatever the client was told meanwhile.
#[test]
fn any_sequence_of_changes_leads_to_the_newest_state() {
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..300 {
        let mode = [Mode::Delta, Mode::Sotw][round % 2];
        let mut state = draw(&mut random);
        let mut stream = Stream::new(mode, &state);
        let mut has = std::collections::BTreeMap::new();
        stream.ask("C", &[]);
        for _ in 0..40 {
            match random.u8(..3) {
                0 => {
                    state = draw(&mut random);
                    stream.set(&state);
                }
                _ => take(&mut stream, &mut has),
            }
        }
        (0..4).for_each(|_| take(&mut stream, &mut has));
        stream.quiet();
        let wanted = resources(&state);
        let wanted = wanted.of_type("C").into_iter().flatten().map(|(n, r)| (n.to_string(), r.version.clone()));
        assert_eq!(has, wanted.collect());
    }
}

/// Some clusters in some versions.
fn draw(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        if random.bool() {
            text.push_str(&format!("C:{name}={} ", random.u8(..3)));
        }
    }
    text
}

/// Takes a response as a client does, and acknowledges it.
fn take(stream: &mut Stream, has: &mut std::collections::BTreeMap<String, String>) {
    let Some((response, _)) = stream.next() else { return };
    if stream.mode == Mode::Sotw {
        has.clear();
    }
    has.extend(response.resources.iter().map(|r| (r.name.to_string(), r.version.clone())));
    response.removed.iter().for_each(|name| {
        has.remove(&**name);
    });
    stream.answer(&response, &[], None);
}
