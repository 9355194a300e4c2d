//! A request without sockets for the tests of filters, and the tests of what is common to all filters.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use arc_swap::ArcSwap;
use serin_http1::framing::Framing;
use serin_http1::{HeaderBlock, RequestHead, ResponseHead, Version};
use serin_resources::connection_manager::{HttpConnectionManager, RouteSource};
use serin_resources::header::{AppendAction, HeaderEdits, HeaderValue, Mutation};
use serin_resources::http_filter::{AdaptiveConcurrency, AdmissionControl, HeaderMutation, HttpFilter, LocalRateLimit};
use serin_resources::http_filter::{Cors, FilterConfig};
use serin_resources::listener::{Direction, Filter as NetworkFilter, Listener};
use serin_resources::route::RouteConfiguration;
use serin_telemetry::{Counters, Histogram};
use serin_traffic::filter::Chain;
use serin_traffic::response_flag::ResponseFlag;
use serin_traffic::router::RouteTable;
use std::time::Duration;
use tokio::time::Instant;

use super::{ActiveFilters, FilterContext, RequestParts, ResponseParts};
use crate::http::ConnectionContext;
use crate::http::body::{RequestBody, Source};
use crate::http::finish::StreamInfo;
use crate::http::local_reply::{LocalReply, Stop};
use crate::http::request::RequestInfo;
use crate::snapshot::{ChainRuntime, ListenerRuntime, Snapshot};
use crate::spans;
use crate::state::State;
use crate::timer::Timers;
use crate::worker::{Shared, View, Worker};

/// A listener with filters, and a connection to it.
pub(super) struct Fixture {
    connection: Rc<ConnectionContext>,
    pub(super) view: Rc<View>,
    info: RequestInfo,
}

impl Fixture {
    /// A listener with these filters, under the names 0, 1 and so on.
    pub(super) fn new<const N: usize>(filters: [FilterConfig; N]) -> Self {
        let filters = filters.into_iter().enumerate();
        let filters: Vec<HttpFilter> =
            filters.map(|(i, config)| HttpFilter { name: i.to_string(), config, disabled: false }).collect();
        let routes = RouteConfiguration::default();
        let table = RouteTable::compile(&routes);
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let chain = Arc::new(Chain::new(&filters));
        let manager =
            HttpConnectionManager { filters, ..HttpConnectionManager::new("main", RouteSource::Inline(routes)) };
        let direction = Direction::Unspecified;
        let listener = Listener::new("main".to_owned(), address, direction, NetworkFilter::http(manager));
        let runtime = ChainRuntime {
            config: listener.chains.first().unwrap().clone(),
            is_default: false,
            direction,
            buffer_limit: u32::MAX,
            stats: Arc::new(Counters::new(super::COUNTERS, 1)),
            times: Arc::new(Histogram::new(1)),
            logs: Vec::new(),
            is_remembered: false,
            mappers: Vec::new(),
            http_filters: chain,
            upgrade_filters: Vec::new(),
            gates: Vec::new(),
            faults: Arc::default(),
            tls: None,
            tls_counts: Arc::default(),
        };
        let listener = ListenerRuntime {
            config: Arc::new(listener),
            chains: vec![(Arc::new(runtime), Arc::new(table))],
            unmatched: Arc::default(),
            inspects: false,
        };
        let listeners = [("main".to_owned(), Arc::new(listener))].into();
        let snapshot = Arc::new(Snapshot { listeners, ..Snapshot::default() });
        let view = Rc::new(View::new(&snapshot, "main", 0).unwrap());
        let worker = Rc::new(Worker::new(
            0,
            Shared {
                snapshot: Arc::new(ArcSwap::new(snapshot)),
                connections: Arc::default(),
                most_held: usize::MAX,
                state: State::new(),
                spans: spans::channel().0,
            },
        ));
        let connection = Rc::new(ConnectionContext {
            worker,
            listener: "main".into(),
            seen: RefCell::new((1, view.clone())),
            held: Cell::new(0),
            is_stale: Cell::new(false),
            requests: Cell::new(0),
            began: std::time::Instant::now(),
            peer: address,
            local: Some(address),
            tls: None,
            server_name: None,
        });
        let info = RequestInfo { upgrade: None, internal: false, client: address.ip() };
        Self { connection, view, info }
    }

    /// The filters of a new request.
    pub(super) fn filters(&self) -> ActiveFilters<'_> {
        ActiveFilters::new(FilterContext {
            chain: &self.view.chain.http_filters,
            connection: &self.connection,
            view: &self.view,
            request: &self.info,
            overrides: &[],
            cluster: Some("a"),
        })
    }

    /// Takes a request's head through the filters; `None` when it has to wait, and its client goes away meanwhile.
    pub(super) fn request<'a>(&'a self, filters: &mut ActiveFilters<'a>) -> Option<Result<(), Stop>> {
        self.request_with(filters, &mut RequestHead::default())
    }

    fn request_with<'a>(&'a self, filters: &mut ActiveFilters<'a>, head: &mut RequestHead) -> Option<Result<(), Stop>> {
        head.start(b"GET", b"/", Version::Http11);
        let record = StreamInfo::new(&self.connection, &self.view, Instant::now());
        let timers = Timers::new();
        let mut body = RequestBody::new(Source::of(&[], true), &timers);
        let mut framing = Framing::Empty;
        let mut request = RequestParts { head, body: &mut body, framing: &mut framing, record: &record };
        once(filters.request_head(&mut request))
    }

    /// Takes the head of a local reply with this status through the filters.
    fn response(&self, filters: &mut ActiveFilters<'_>, status: u16) -> ResponseHead {
        let record = StreamInfo::new(&self.connection, &self.view, Instant::now());
        let mut head = ResponseHead::new(status);
        let request = RequestHead::default();
        let mut response = ResponseParts { head: &mut head, request: &request, record: &record, body: None };
        once(filters.response_head(&mut response)).unwrap();
        head
    }

    /// A counter of the listener.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.view.chain.stats.iter().find(|(found, _)| *found == name).unwrap().1
    }
}

/// Runs something until it waits, and drops it then.
fn once<F: Future>(future: F) -> Option<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The status and flag of a local reply.
pub(super) fn stopped_with(passed: Option<Result<(), Stop>>) -> Option<(u16, ResponseFlag)> {
    match passed {
        Some(Err(Stop::Reply(LocalReply { head, flag, .. }))) => Some((head.status, flag)),
        _ => None,
    }
}

/// Adds a value to `x-order`, in requests and responses.
fn mark(value: &str) -> FilterConfig {
    let mark = vec![Mutation::Put(HeaderValue::literal("x-order", value, AppendAction::Append))];
    FilterConfig::HeaderMutation(HeaderMutation { request: mark.clone(), response: mark, ..HeaderMutation::default() })
}

fn order(fields: &HeaderBlock) -> Vec<String> {
    fields.get_all("x-order").map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Lets so many requests pass, and then none.
fn limit(most: u32) -> FilterConfig {
    FilterConfig::LocalRateLimit(LocalRateLimit {
        prefix: "p".to_owned(),
        status: 429,
        most: Some(most),
        fill: 1,
        interval: Duration::from_secs(3600),
        enabled: 1_000_000,
        enforced: 1_000_000,
        unenforced_headers: HeaderEdits::NONE,
        response_headers: HeaderEdits::NONE,
        per_connection: false,
        resource_exhausted: false,
    })
}

/// One request at a time.
fn one_at_once() -> FilterConfig {
    FilterConfig::AdaptiveConcurrency(AdaptiveConcurrency {
        enabled: true,
        percentile: 50,
        most: 1,
        update: Duration::from_secs(3600),
        measure_every: None,
        fixed: Some(Duration::from_millis(1)),
        samples: 10,
        jitter: 0,
        least: 1,
        floor: 1,
        buffer: 25,
        status: 503,
    })
}

/// Refuses all requests once one has failed.
fn strict() -> FilterConfig {
    FilterConfig::AdmissionControl(AdmissionControl {
        enabled: true,
        window: Duration::from_secs(3600),
        aggression: u32::MAX,
        threshold: 100,
        least_rate: 0,
        most_refused: 100,
        good: vec![(100, 500)],
        good_grpc: vec![0],
    })
}

#[test]
fn requests_pass_in_order_and_responses_in_reverse() {
    let fixture = Fixture::new([mark("1"), mark("2"), mark("3")]);
    let (mut filters, mut head) = (fixture.filters(), RequestHead::default());
    assert!(fixture.request_with(&mut filters, &mut head).is_some_and(|passed| passed.is_ok()));
    assert_eq!(order(&head.fields), ["1", "2", "3"]);
    assert_eq!(order(&fixture.response(&mut filters, 200).fields), ["3", "2", "1"]);
}

#[test]
fn a_filter_that_stops_keeps_the_request_from_later_ones() {
    let fixture = Fixture::new([mark("1"), limit(0), mark("2")]);
    let (mut filters, mut head) = (fixture.filters(), RequestHead::default());
    let passed = fixture.request_with(&mut filters, &mut head);
    assert_eq!(stopped_with(passed), Some((429, ResponseFlag::RateLimited)));
    assert_eq!(order(&head.fields), ["1"]);
    // The local reply passes those that the request has passed.
    assert_eq!(order(&fixture.response(&mut filters, 429).fields), ["1"]);
}

#[test]
fn filters_that_want_no_later_hook_take_no_memory() {
    let fixture =
        Fixture::new([FilterConfig::Cors(Cors::default()), FilterConfig::Fault(Default::default()), limit(9)]);
    let mut filters = fixture.filters();
    assert!(fixture.request(&mut filters).is_some_and(|passed| passed.is_ok()));
    assert_eq!(filters.kept.capacity(), 0);
}

#[test]
fn a_slot_is_given_back_when_the_request_ends_or_another_filter_stops_it() {
    let fixture = Fixture::new([one_at_once(), limit(2)]);
    let (mut first, mut second) = (fixture.filters(), fixture.filters());
    assert!(fixture.request(&mut first).is_some_and(|passed| passed.is_ok()));
    assert_eq!(stopped_with(fixture.request(&mut second)), Some((503, ResponseFlag::UpstreamOverflow)));
    assert_eq!(fixture.count("adaptive_concurrency.gradient_controller.rq_blocked"), 1);
    // Its client goes away before there is a response.
    drop(first);
    let mut third = fixture.filters();
    assert!(fixture.request(&mut third).is_some_and(|passed| passed.is_ok()));
    fixture.response(&mut third, 200);
    drop(third);
    let mut fourth = fixture.filters();
    assert_eq!(stopped_with(fixture.request(&mut fourth)), Some((429, ResponseFlag::RateLimited)));
    drop(fourth);
    assert_eq!(stopped_with(fixture.request(&mut fixture.filters())), Some((429, ResponseFlag::RateLimited)));
}

#[test]
fn an_outcome_is_noted_with_the_response_alone() {
    let fixture = Fixture::new([strict()]);
    let mut gone = fixture.filters();
    assert!(fixture.request(&mut gone).is_some_and(|passed| passed.is_ok()));
    drop(gone);
    let mut failed = fixture.filters();
    assert!(fixture.request(&mut failed).is_some_and(|passed| passed.is_ok()), "a client that left is no failure");
    fixture.response(&mut failed, 503);
    assert_eq!(stopped_with(fixture.request(&mut fixture.filters())), Some((503, ResponseFlag::None)));
    assert_eq!(fixture.count("admission_control.rq_rejected"), 1);
}
